"""A picture beside the latent, and the prompt says what to do with it (InstructPix2Pix, 8 input channels).

Guidance has three terms: nobody, the picture alone, the picture and the words. The picture's own scale says how much of it
stays, the recipe's how much is done to it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View, brought
from infuse.errors import RecipeError
from infuse.media.fitting import Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Ports, Sides


class Edit(Condition):
    """Edit `image` as the prompt tells: "make the cube green".

    image_guidance_scale: how closely the picture is kept, 1 or more; it is heard while the recipe's guidance is above 1.
    scaled: the picture's latents are multiplied by the VAE's factor (CosXL Edit), as released InstructPix2Pix models never
    saw them. fit: what is done to an image of another shape than the picture to be made.
    weight: from 0 (no picture is shown) to 1.
    Source: Brooks et al. 2023 (InstructPix2Pix), sec. 3.2; diffusers' StableDiffusionInstructPix2PixPipeline.
    """

    VOICE = Condition.VOICE | {"image_guidance_scale"}

    kind: Literal["edit"] = "edit"
    image: Picture
    image_guidance_scale: float = Field(default=1.5, allow_inf_nan=False)
    scaled: bool = False
    fit: Fit = "stretch"

    @property
    def guided(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]  each has a scale of its own
        return self.image_guidance_scale

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net)
        self.plain("weight", "start", "end", "mask")  # it is heard where guidance asks for it: sides are its own affair
        self.part()
        if self.image_guidance_scale < 1:
            raise RecipeError("image_guidance_scale", f"{self.image_guidance_scale:g} would push the picture away; 1 is no push, and more keeps it "
                                                      "more closely. Give 1 or more; 1.2 to 2 is usual.")  # fmt: skip
        if not any(s.name == "image" for s in net.channel_slots):
            raise RecipeError("", f"{net.name} has no input channels for a picture to be edited. Use img2img or an ip2p ControlNet, or choose "
                                  "an InstructPix2Pix base of 8 channels.")  # fmt: skip
        warnings = tuple(brought(self.image.size, view.size, "image", "the picture to be made", self.fit))
        note = f"8-channel network; image guidance {self.image_guidance_scale:g}"
        return [Route("channels", f"image ({net.latent_channels} h w)", note=note, warnings=warnings)]

    def encode(self, kit: Encoders) -> Sides:
        pixels = kit.pixels(self.image, fit=self.fit)
        # the distribution's mode, without the VAE's factor: what these networks were trained to see
        shown = kit.posterior(pixels).mean if self.scaled else kit.likeliest(pixels)
        return Sides(Ports(channels=(Channel("image", shown),)))  # off = the slot's zeros

    def native(self) -> tuple[int, int]:
        return self.image.size

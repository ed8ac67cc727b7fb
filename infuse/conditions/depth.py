"""A depth map beside the latent: what is made has the spaces of another picture (SD2-depth, 5 input channels).

Alone it is text-to-image in these spaces; with `img2img` of the same picture it is diffusers' depth-to-image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from infuse.conditions.base import Condition, Encoders, Route, View, brought
from infuse.encoders.annotators import files
from infuse.encoders.annotators.kinds import inverted, is_flat
from infuse.errors import RecipeError
from infuse.media.fitting import Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.notices import note
from infuse.ports import Channel, Ports, Sides

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Depth(Condition):
    """Depth for a depth2img base, the same on both sides of guidance.

    image: inverse depth as a grey map (white is near), or any picture if an `annotator` measures it. The map's own darkest
    and lightest count as farthest and nearest. invert: a map in which near things are dark, turned over. fit: what is done
    to one of another shape than the picture to be made. annotator: none | midas | auto (midas, unless the image is grey
    already); annotator_model: its file, midas_v3_dpt_large.pth if left out.
    weight: from 0 (no depth is said: 0, the middle, everywhere) to 1.
    Source: Stability-AI/stablediffusion (SD2-depth); diffusers' StableDiffusionDepth2ImgPipeline.
    """

    kind: Literal["depth"] = "depth"
    image: Picture
    invert: bool = False
    fit: Fit = "stretch"
    annotator: Literal["none", "auto", "midas"] = "none"
    annotator_model: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _file(cls, data: Any) -> Any:
        if (
            isinstance(data, dict)
            and data.get("annotator") in ("auto", "midas")
            and data.get("annotator_model") is None
        ):
            return {**data, "annotator_model": files.MIDAS}
        return data

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net, "Use depth_video")
        if not any(s.name == "depth" for s in net.channel_slots):
            raise RecipeError("", f"{net.name} has no input channel for depth. Use a depth ControlNet (controlnet, with the same map), or "
                                  "choose a depth2img base of 5 channels (SD2-depth).")  # fmt: skip
        self.part()
        warnings = brought(self.image.size, view.size, "image", "the picture to be made", self.fit)
        if self.annotator == "none" and self.annotator_model is not None:
            raise RecipeError("annotator_model", "there is no annotator to use it. Say annotator: midas, or remove it.")
        memory = 0
        if self.measures:
            field = "annotator_model"
            memory = files.memory_of(
                view, self.annotator_model or files.MIDAS, field, files.MIDAS_MARK, files.no_depth(field)
            )
            if self.invert:
                raise RecipeError("invert", "what is measured is the right way round already. Remove invert.")
        else:
            warnings += self._looked_at()
        return [Route("channels", "depth (1 h w)", memory, note="5-channel network", warnings=tuple(warnings))]

    @property
    def measures(self) -> bool:
        """Is there a picture to be measured, or a map already?"""
        return self.annotator == "midas" or (self.annotator == "auto" and not is_flat(self.image.image))

    def _looked_at(self) -> list[str]:
        """What is odd about a map; raises RecipeError if it says nothing."""
        least, most = self.image.image.convert("L").getextrema()
        if least == most:
            raise RecipeError("image", "it is the same grey everywhere, so nothing is nearer than anything else. Give a depth map (white is "
                                       "near), or remove this condition.")  # fmt: skip
        if not is_flat(self.image.image):
            return [
                "image: it has colours, and is read as if its brightness were depth. If it is a photo, set annotator: midas."
            ]
        if not self.invert and (hears := inverted("depth", self.image.image)):
            return [f"image: it looks inverted: a depth2img base hears {hears}. Set invert: true to turn it over."]
        return []

    def encode(self, kit: Encoders) -> Sides:
        from infuse.encoders.annotators.relative_depth import relative

        width, height = kit.canvas
        factor = kit.spec.vae_factor
        depth, flat = relative(self._raw(kit), (height // factor, width // factor))
        if flat:
            note(
                "a depth map says the same everywhere on the latent's grid, so no depth is said: 0, neither near nor far."
            )
        value = depth.to(kit.pixels(self.image, 1, self.fit))  # as everything that the network sees
        return Sides.both(Ports(channels=(Channel("depth", value),)))

    def _raw(self, kit: Encoders) -> Float[Tensor, "1 height width"]:
        """Inverse depth in any unit, in float32."""
        if not self.measures:
            grey = kit.exact(self.image, 1, self.fit)
            return 1 - grey if self.invert else grey
        from infuse.encoders.annotators import midas
        from infuse.encoders.annotators.relative_depth import measured

        net = kit.module(self.annotator_model or files.MIDAS, midas.DPT.load)
        return measured(kit.exact(self.image, 3, self.fit), net)

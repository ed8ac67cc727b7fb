"""Begin from a picture instead of pure noise: the latent port's `start`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.media.fitting import Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Latent, Ports, Sides


class Img2Img(Condition):
    """Repaint `strength` (0-1) of a picture: the last floor(steps * strength) steps run, as in diffusers.

    fit: what is done to an image of another shape than the picture to be made.
    Source: SDEdit (Meng et al. 2021). Strength 1 still starts from the picture under full noise.
    """

    kind: Literal["img2img"] = "img2img"
    image: Picture
    fit: Fit = "stretch"
    strength: float = Field(default=0.8, gt=0, le=1)

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain()
        self.still(net, "Use video_to_video (a picture is a film that stands still)")
        return [Route("latent", f"start ({net.latent_channels} h w)", note=f"strength {self.strength:g}")]

    def encode(self, kit: Encoders) -> Sides:
        start = kit.posterior(kit.pixels(self.image, fit=self.fit))
        return Sides.both(Ports(latent=(Latent(start=start, strength=self.strength),)))

    def native(self) -> tuple[int, int]:
        return self.image.size

    def strength_of_start(self) -> float | None:
        return self.strength

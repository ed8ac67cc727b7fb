"""Begin from a film instead of pure noise: the latent port's `start`, frame by frame."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.conditions.frames import pixels, planned, taken
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.media.fitting import Fit
from infuse.network.spec import NetworkSpec
from infuse.ports import Latent, Ports, Sides


class VideoToVideo(Condition):
    """Repaint `strength` (0-1) of a film: the last floor(steps * strength) steps run, as `img2img` does for pictures.

    Source: SDEdit (Meng et al. 2021). A still picture is a film, too. Frames are taken one after another; say `{source,
    fps}` to take them at another rate.
    """

    kind: Literal["video_to_video"] = "video_to_video"
    film: Film
    strength: float = Field(default=0.8, gt=0, le=1)
    fit: Fit = "crop"
    """What is done to a film of another shape than the clip to be made."""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain()
        if not net.frames:
            raise RecipeError("", f"{net.name} makes pictures. Use img2img, or choose a video base.")
        warnings = planned(self.film, "film", view, view.size, self.fit)
        shape = f"start ({net.latent_channels} {view.frames} h w)"
        return [Route("latent", shape, note=f"strength {self.strength:g}", warnings=tuple(warnings))]

    def encode(self, kit: Encoders) -> Sides:
        start = kit.clip_posterior(pixels(taken(self.film, "film", kit, kit.size, self.fit), kit))
        return Sides.both(Ports(latent=(Latent(start=start, strength=self.strength),)))

    def native(self) -> tuple[int, int]:
        with under("film"):
            return self.film.size

    def strength_of_start(self) -> float | None:
        return self.strength

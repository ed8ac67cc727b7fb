"""Depth of every frame says where things are and how near: the layout of a clip in space and time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from infuse.conditions.base import Encoders, Route, View
from infuse.conditions.frames import pixels, planned, taken
from infuse.conditions.video.spatial import Spatial, named, spatial_size
from infuse.encoders.annotators import files
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.network.spec import NetworkSpec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

WHITE = 2.0
"""VideoComposer's unit of depth is clamp(raw / 20, 0, 10), and DPT-Large's raw answer to near things is about 20 to 40.
So the nearest thing of a map that was stretched to black and white is taken for raw 40; 10, the end of the scale, is
what that network hardly ever says."""


class DepthVideo(Spatial):
    """A clip in the spaces of a film.

    film: inverse depth as grey maps (white is near), or any film if an `annotator` measures it. white: what white
    means in the network's unit, 0 to 10. annotator: none | midas; annotator_model: its file, midas_v3_dpt_large.pth if
    left out.
    """

    kind: Literal["depth_video"] = "depth_video"
    composition = "depth"
    film: Film
    white: float = Field(default=WHITE, gt=0, le=10)
    annotator: Literal["none", "midas"] = "none"
    annotator_model: str | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _files(cls, data: Any) -> Any:
        return named(data, midas={"annotator_model": files.MIDAS})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        super().check(net, view)
        if self.annotator_model is None:
            return [self.route(view, warnings=planned(self.film, "film", view, spatial_size(view.size), self.fit))]
        if self.annotator == "none":
            raise RecipeError("annotator_model", "there is no annotator to use it. Say annotator: midas, or remove it.")
        if self.white != WHITE:
            raise RecipeError("white", "what is measured has a unit already. Remove white, or the annotator.")
        field = "annotator_model"
        memory = files.memory_of(view, self.annotator_model, field, files.MIDAS_MARK, files.no_depth(field))
        step = files.step_of(view.shapes(self.annotator_model, field))
        return [self.route(view, memory, warnings=planned(self.film, "film", view, stepped(view.size, step), self.fit))]

    def seen(self, kit: Encoders) -> Float[Tensor, "1 f height width"]:
        if self.annotator_model is None:
            return self.white * pixels(taken(self.film, "film", kit, spatial_size(kit.size), self.fit), kit, "L")
        from infuse.encoders.annotators import midas

        net = kit.module(self.annotator_model, midas.DPT.load)
        with under("film"):
            frames = self.film.frames(kit.frames, stepped(kit.canvas, net.step), self.fit)
        rgb = pixels(frames, kit)
        return midas.depth(rgb.transpose(0, 1), net).transpose(0, 1)


def stepped(size: tuple[int, int], step: int) -> tuple[int, int]:
    """The size at which a film is measured: in the annotator's own steps of so many pixels."""
    width, height = (max(round(s / step), 1) * step for s in spatial_size(size))
    return width, height

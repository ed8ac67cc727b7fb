"""Lines of every frame, or of one for all: the outlines of a clip. Light lines on dark, as the encoders saw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from infuse.conditions.base import Encoders, Route, View, brought
from infuse.conditions.frames import covering, pixels, planned, taken
from infuse.conditions.video.spatial import Spatial, named, spatial_size
from infuse.encoders.annotators import files
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FILES = {"annotator_model": files.PIDINET, "cleaner_model": files.SIMPLIFIER}
MARKERS = {"annotator_model": "init_block.weight", "cleaner_model": "layers.44.weight"}


class Sketched(Spatial):
    """What a sequence of sketches and a single one share: who draws the lines.

    annotator: none (they are drawn: light on dark, or dark on light with `invert`) | canny (OpenCV's; VideoComposer
    never saw such lines, but composition survives) | pidinet (the networks that VideoComposer was trained with:
    edges, then the same lines drawn clean). annotator_model, cleaner_model: their files, by their released names if
    left out.
    """

    annotator: Literal["none", "canny", "pidinet"] = "none"
    annotator_model: str | None = Field(default=None, min_length=1)
    cleaner_model: str | None = Field(default=None, min_length=1)
    invert: bool = False

    @model_validator(mode="before")
    @classmethod
    def _files(cls, data: Any) -> Any:
        return named(data, pidinet=FILES)

    def lines(self, frames: Sequence[Any], kit: Encoders) -> Float[Tensor, "1 f height width"]:
        """PIL images to what the encoder is shown: 1 on a line, 0 elsewhere."""
        from infuse.encoders.annotators import sketch

        if self.annotator == "canny":
            return kit.vector(np.stack([sketch.sketch_without_models(np.asarray(f)) for f in frames])[None])
        if self.annotator == "pidinet":
            from infuse.encoders.annotators.pidinet import PiDiNet
            from infuse.encoders.annotators.sketch_simplification import SketchSimplification

            edges = kit.module(str(self.annotator_model), PiDiNet.load)
            clean = kit.module(str(self.cleaner_model), SketchSimplification.load)
            return sketch.sketch(pixels(frames, kit).transpose(0, 1), edges, clean).transpose(0, 1)
        drawn = pixels(frames, kit, "L")
        return 1 - drawn if self.invert else drawn

    def light(self, field: str, first: Any) -> list[str]:
        """What is said if the lines of a drawn sketch (a PIL image) seem to be dark on light."""
        if self.annotator != "none" or self.invert or np.asarray(first.convert("L")).mean() <= 127:
            return []
        return [
            f"{field}: it is mostly light, and lines should be light on dark. Set invert, or an annotator if it is a photo."
        ]

    def drawers(self, view: View) -> int:
        """Bytes of the networks that draw; raises RecipeError or WeightsError if they cannot."""
        if self.invert and self.annotator != "none":
            raise RecipeError("invert", f"{self.annotator} draws light on dark already. Remove invert.")
        models = {name: getattr(self, name) for name in FILES}
        if self.annotator != "pidinet":
            for field, model in models.items():
                if model is not None:
                    raise RecipeError(field, "nobody would use it. Say annotator: pidinet, or remove it.")
            return 0
        return sum(files.memory_of(view, m, f, MARKERS[f], files.no_sketch(f)) for f, m in models.items())


class SketchVideo(Sketched):
    """A clip along the lines of a film of sketches, or of any film of which an `annotator` draws them."""

    kind: Literal["sketch_video"] = "sketch_video"
    composition = "sketch"
    film: Film

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        super().check(net, view)
        warnings = planned(self.film, "film", view, spatial_size(view.size), self.fit)
        with under("film"):
            warnings += self.light("film", self.film.frames(1)[0])
        return [self.route(view, self.drawers(view), warnings=warnings)]

    def seen(self, kit: Encoders) -> Float[Tensor, "1 f height width"]:
        return self.lines(taken(self.film, "film", kit, spatial_size(kit.size), self.fit), kit)


class SingleSketch(Sketched):
    """A clip that begins with, or keeps to, one sketch: the encoder is shown it in every frame."""

    kind: Literal["single_sketch"] = "single_sketch"
    composition: ClassVar[str] = "single_sketch"
    image: Picture

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        super().check(net, view)
        warnings = [
            *self.light("image", self.image.image),
            *brought(self.image.size, view.size, "image", "the clip's shape", self.fit),
        ]
        return [self.route(view, self.drawers(view), warnings=warnings)]

    def seen(self, kit: Encoders) -> Float[Tensor, "1 f height width"]:
        one = self.lines([covering(self.image, spatial_size(kit.size), kit, self.fit)], kit)
        return one.expand(-1, kit.frames, -1, -1)

"""What moves where, as arrows beside the latents: taken from a film, or drawn.

The encoder was trained on the motion vectors of a codec: pixels of the source film per frame, one vector in the middle of
each block of 16 px and zeros around it. Dense fields are thinned out to look like that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from infuse.conditions.base import Encoders, Route, View, has_white
from infuse.conditions.frames import planned, taken
from infuse.conditions.video.spatial import Spatial
from infuse.encoders.drawn_motion import AnyDrawn, Camera, drawn_motion
from infuse.encoders.motion import codec_motion, encodable, fitted_motion, may_tell, optical_flow, sparse_motion
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.media.video_reader import pyav
from infuse.network.spec import NetworkSpec
from infuse.notices import note

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class Motion(Spatial):
    """A clip that moves like a film, or along what is drawn.

    film: whose motion is taken. source: codec (the vectors in the file where each spans one frame, as in MPEG-4 without
    B-frames; else those of an MPEG-4 made of its frames, as VideoComposer was trained) | flow (optical flow, thinned
    out). drawn: arrows and paths of things; camera: its pan and zoom. scale: times the arrows' length, below 0 they turn
    round. sparse: one arrow in each block of 16 px, as trained; false for networks that were trained on dense fields.
    Source: VideoComposer, sec. 3.2.
    """

    kind: Literal["motion"] = "motion"
    composition = "motion"
    film: Film | None = None
    source: Literal["codec", "flow"] = "codec"
    drawn: tuple[AnyDrawn, ...] = Field(default=(), max_length=64)
    camera: Camera | None = None
    scale: float = Field(default=1.0, ge=-100, le=100)
    sparse: bool = True

    @model_validator(mode="after")
    def _one_origin(self) -> Motion:
        if (self.film is None) == (not self.drawn and self.camera is None):
            both = "it takes its motion from a film and draws it as well. Keep one of them, or make two conditions"
            none = "nothing says what moves. Give a film, draw arrows or paths, or a camera"
            raise ValueError(f"{none if self.film is None else both}.")
        if self.film is None and self.source != "codec":
            raise ValueError(
                "source says how a film's motion is told, and this one is drawn. Remove source, or give a film."
            )
        if self.scale == 0:
            raise ValueError("at scale 0 nothing moves. Remove the condition, or give it another scale.")
        return self

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        super().check(net, view)
        if view.frames < 2:
            raise RecipeError("", f"motion needs 2 frames, not {view.frames}. Ask for more frames, or remove it.")
        if self.film is None:
            self._regions()
            return [self.route(view, note=f"drawn: {len(self.drawn)} things{', a camera' if self.camera else ''}")]
        if self.source == "codec":
            if not self.sparse:
                raise RecipeError(
                    "sparse", "a codec's motion is sparse. Say source: flow for a dense field, or remove it."
                )
            pyav("reading motion vectors")
        warnings = planned(self.film, "film", view, None if self.source == "codec" else view.size, self.fit)
        if self.film.reader.still:
            warnings.append("film: it is one picture, so it has no motion: the clip will be told to stand still.")
        return [self.route(view, note=f"{self.source} of {self.film}{self._recoded(view)}", warnings=warnings)]

    def _recoded(self, view: View) -> str:
        """What `check` notes of a film whose own vectors cannot be used; raises CapacityError if there will be none."""
        assert self.film is not None
        if self.source == "flow" or self.film.reader.still:
            return ""
        with under("film"):
            encodable(self.film)
            return "" if may_tell(self.film, self.film.plan(view.frames)[0]) else ", encoded as MPEG-4 for it"

    def _regions(self) -> None:
        for i, thing in enumerate(self.drawn):
            if thing.region is not None and not has_white(thing.region.mask):
                raise RecipeError(
                    f"drawn.{i}.region", "it has no white pixel, so nothing would move. White is what moves."
                )

    def seen(self, kit: Encoders) -> Float[Tensor, "2 f height width"]:
        return kit.vector(self.scale * self.field(kit)).transpose(0, 1)

    def field(self, kit: Encoders) -> Float[np.ndarray, "f 2 height width"]:
        """Arrows in pixels per frame, on the canvas."""
        width, height = kit.canvas
        if self.film is None:
            dense = self._drawn(kit)
        elif self.source == "codec":
            with under("film"):
                found, notes = codec_motion(self.film, kit.frames)
                for text in notes[len(self.film.plan(kit.frames)[1]) :]:  # those before are told by `check`
                    note(f"film: {text}")
            return fitted_motion(found, height, width)  # sparse as it is, and in the film's own pixels, as trained
        else:
            dense = optical_flow(taken(self.film, "film", kit, kit.size, self.fit))
        return sparse_motion(dense) if self.sparse else dense

    def _drawn(self, kit: Encoders) -> Float[np.ndarray, "f 2 height width"]:
        with under("drawn"):
            dense = drawn_motion(self.drawn, kit.frames, kit.size[1], kit.size[0], self.camera)
        more = [(0, c - s) for c, s in zip(kit.canvas[::-1], kit.size[::-1], strict=True)]
        return np.pad(dense, [(0, 0), (0, 0), *more], "edge")

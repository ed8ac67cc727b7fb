"""Repaint a hole in a film and keep the rest. The recipe is the same for every video network; the network decides the way.

VideoComposer's masked encoder is shown the colours that are left and where they are; any other video network keeps the
known part by putting it back after each step (latent port).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infuse.conditions.base import HOLED, Encoders, Route, View, brought, has_white
from infuse.conditions.frames import exactly, pixels, planned, taken
from infuse.conditions.video.spatial import Spatial, spatial_size
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.media.fitting import Cells, Fit
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Latent, Ports, Sides

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class MaskedVideo(Spatial):
    """Fill what is white in `mask`, a film or a picture, scaled to `film` if it has another size; a picture is the hole of every frame.

    A mask that is a film is seen at the film's times, whatever its frame rate is; its own start, fps or reverse win.
    strength: 1 starts from pure noise; less starts from the film, as video_to_video does. paste: put the original pixels
    back outside of the hole, behind a soft edge that lies inside of it. fit: what is done to a film of another shape than the
    clip to be made. cells: as in `inpaint`.
    Source: VideoComposer, sec. 3.2 (12 channels); the 4-channel way is that of `inpaint`, frame by frame.
    """

    VOICE = HOLED | {"frames"}
    HOLE = "film"

    kind: Literal["masked_video"] = "masked_video"
    composition = "masked"
    film: Film
    mask: Film  # type: ignore[assignment]  # pyright: ignore[reportGeneralTypeIssues]  the hole instead of a region
    strength: float = Field(default=1.0, gt=0, le=1)
    paste: bool = True
    cells: Cells = "touched"

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        composed_here = self.composition in net.compositions
        if not net.frames:
            raise RecipeError("", f"{net.name} makes pictures. Use inpaint, or choose a video base.")
        self.part()
        self.forward()
        warnings = planned(self.film, "film", view, spatial_size(view.size), self.fit)
        with under("mask"):
            hole = self._hole()
        warnings += planned(hole, "mask", view, None, self.fit, mask=True)
        warnings += brought(hole.size, self.film.size, "mask", "its film")
        warnings += self._apart(view.frames)
        if composed_here:
            return [self.route(view, warnings=warnings)]
        if self.frames is not None:
            raise RecipeError(
                "frames", f"{net.name} is not told of the hole, it is held to it in all frames alike. Remove frames."
            )
        if self.applies_to != "both":
            raise RecipeError("applies_to", f"{net.name} is not told of the hole; it would change nothing. Remove it.")
        shape = f"keep ({net.latent_channels} {view.frames} h w)"
        return [Route("latent", shape, note="blended after each step", warnings=tuple(warnings))]

    def _hole(self) -> Film:
        """The mask at the film's times."""
        return self.mask.beside(self.film)

    def _apart(self, frames: int) -> list[str]:
        """What is said if mask and film do not show the same time; raises RecipeError if no frame has a hole."""
        film, hole = self.film, self._hole()
        shown, places = film.plan(frames)[0], hole.plan(frames)[0]
        with under("mask"):
            # most often the first one has
            if not any(has_white(image) for _, image in hole.reader.draw(sorted(set(places)), hole.drawn)):
                raise RecipeError("", "it has no white pixel in any frame that is taken, so there is nothing to repaint. White is "
                                      "repainted, black is kept.")  # fmt: skip
        if film.reader.still or hole.reader.still:
            return []
        if film.reader.clock != hole.reader.clock:
            asked = [(f.start, f.fps, f.reverse) for f in (film, hole)]
            one_by_one = "mask: only one of it and the film knows times, so their frames are paired one by one. Check start and fps."
            return [one_by_one] if asked[0] != asked[1] else []
        times = [(film.reader.times[i], hole.reader.times[k]) for i, k in zip(shown, places, strict=True)]
        if max(abs(a - b) for a, b in times) <= 1.5 / min(film.reader.rate, hole.reader.rate):
            return []
        (a, b), (c, d) = ((min(t), max(t)) for t in zip(*times, strict=True))
        return [f"mask: it shows {c:.3g} to {d:.3g} s, its film {a:.3g} to {b:.3g} s. Its own start, fps, reverse or short says so; "
                "without them it follows the film."]  # fmt: skip

    def encode(self, kit: Encoders) -> Sides:
        film, hole = self._shown(kit, kit.size)
        small = kit.cells(hole.transpose(0, 1)[:, 0], self.cells)[None]
        told = self.composition in kit.spec.compositions
        own = exactly(taken(self.film, "film", kit, kit.size, self.fit)).to(film.device) if self.paste else None
        known = kit.clip_posterior(film) if self.strength < 1 or not told else None
        start = known if self.strength < 1 else None
        keep = None if told else known
        latent = Latent(start, self.strength, keep, small, own if self.paste else None, hole)
        ports = Ports(
            latent=(latent,),
            channels=(Channel("stc", kit.stc(self.composition, self.seen(kit))),) if told else (),
        )
        return Sides.both(ports)

    def seen(self, kit: Encoders) -> Float[Tensor, "4 f height width"]:
        from infuse.encoders.annotators.masked_video import masked_video

        rgb, hole = self._shown(kit, size := spatial_size(kit.size))
        own = self._hole()
        for other, fit in kit.openings:  # not known either
            if not isinstance(other, Film) or other == own:
                continue
            hole = hole.maximum(pixels(taken(other, "mask", kit, size, fit, mask=True), kit, "L").to(hole))
        return masked_video(rgb.transpose(0, 1), hole.transpose(0, 1)).transpose(0, 1)

    def _shown(self, kit: Encoders, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(film (3 f height width) in 0-1, hole (1 f height width), 0 or 1)."""
        rgb = taken(self.film, "film", kit, size, self.fit)
        return pixels(rgb, kit), pixels(taken(self._hole(), "mask", kit, size, self.fit, mask=True), kit, "L")

    def openings(self) -> tuple[tuple[Film, Fit], ...]:
        return ((self._hole(), self.fit),)

    def native(self) -> tuple[int, int]:
        with under("film"):
            return self.film.size

    def strength_of_start(self) -> float | None:
        return self.strength if self.strength < 1 else None

"""Only the hole is worked on: every picture that lies on the one that is repainted is cut to the same box, and what is made of it is
put back. To everybody in between the box is the whole picture.

Source: only-masked inpainting of the webui (modules/processing.py of stable-diffusion-webui-forge@dfdcbab).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infuse.conditions.base import Condition, brought
from infuse.conditions.holed import Colours, Holed
from infuse.errors import RecipeError, under
from infuse.media.boxes import Box, around, cut, cut_hole, put, shaped
from infuse.media.colours import levelled, matched
from infuse.media.fitting import fitted, fitted_hole, odd
from infuse.media.pictures import Picture, px
from infuse.recipe import replaced

BORDER = 1 / 16
"""Of the shorter side: so far from the hole colours are compared, 32 pixels of 512."""
Laid = dict[str, Condition]


@dataclass(frozen=True, eq=False)
class Frame:
    """Where in a larger picture the work lies."""

    picture: Picture
    box: Box
    """(left, top, right, bottom) in its pixels."""
    openings: tuple[Any, ...]
    """How much of each pixel of the box is what is made (h w float32, 0-1), for each hole."""
    paste: bool
    """Put back the picture's own pixels outside of the holes."""

    def back(self, made: Any) -> tuple[Any, Any]:
        """(a copy of the whole picture, what was made at the box's own size), PIL images."""
        return self.picture.image.copy(), put(made, self.box)


@dataclass(frozen=True, eq=False)
class After:
    """What is done to a decoded picture of one of the holes' grounds."""

    who: Holed
    """Whose ground it is."""
    size: tuple[int, int]
    colours: Colours | None = None
    frame: Frame | None = None

    @cached_property
    def _target(self) -> tuple[Any, Any]:
        """(the ground, where its border is) as arrays (h w 3) and (h w) at the size of the work."""
        import numpy as np

        ground = np.asarray(self.who.ground(self.size))
        image = _ground(self.who)
        hole = fitted_hole(self.who.edge(image.size).point(lambda v: 255 * (v > 0)), self.size, self.who.ground_fit)
        return ground, border(hole)

    def coloured(self, made: Any) -> Any:
        """(h w 3) uint8 with its colours matched to the ground's."""
        ground, near = self._target
        return matched(made, ground) if self.colours == "original" else levelled(made, ground, near)


def border(hole: Any) -> Any:
    """Where (h w, booleans) a black and white PIL image is black, but not far from white."""
    import numpy as np
    from PIL import ImageFilter

    reach = max(round(BORDER * min(hole.size)), 1)
    wide = hole.filter(ImageFilter.MaxFilter(2 * reach + 1))
    return (np.asarray(wide) > 0) & (np.asarray(hole) == 0)


def laid_out(
    conditions: Mapping[str, Condition], active: Mapping[str, Condition], size: tuple[int, int]
) -> tuple[Laid, After | None, list[str]]:
    """(conditions with their pictures as they lie on the canvas, what is done afterwards, what was adjusted).

    Raises RecipeError under the field of whoever cannot be laid there.
    """
    laid, notes = dict(conditions), list[str]()
    for where, c in conditions.items():
        if isinstance(c, Holed):
            with under(where):
                laid[where] = c.laid()
    holed = {where: c for where in active if isinstance(c := laid[where], Holed)}
    frame = None
    if any(c.area == "masked" for c in holed.values()):
        laid, frame, said = _framed(laid, holed, size)
        notes += said
        holed = {where: c for where in holed if isinstance(c := laid[where], Holed)}
    for where, c in conditions.items():
        if isinstance(c, Holed) and (mask := laid[where].mask) is not None and mask.size == _ground(laid[where]).size:
            notes += [f"{where}.{text}" for text in _scaled(c)]
    first = next((c for c in holed.values() if c.colours), next(iter(holed.values()), None))
    if first is None or (first.colours is None and frame is None):
        return laid, None, notes
    return laid, After(first, size, first.colours, frame), notes


def _ground(c: Condition) -> Picture:
    """The picture in which its hole lies."""
    return getattr(c, str(c.HOLE))


def _scaled(c: Holed) -> list[str]:
    """What is said of a mask that has been brought to its picture: a check that comes later sees no difference."""
    return [] if c.mask is None else brought(c.mask.size, _ground(c).size, "mask", "its image")


def _framed(laid: Laid, holed: Mapping[str, Holed], size: tuple[int, int]) -> tuple[Laid, Frame, list[str]]:
    """Everybody's pictures cut to the box around all holes, grown to the shape of `size`."""
    from PIL import ImageChops

    asked = next(where for where, c in holed.items() if c.area == "masked")
    ground = _ground(holed[asked])
    edges = {}
    for where, c in holed.items():
        with under(where):
            if c.mask is None:
                raise RecipeError("area", "a picture that is continued is made as a whole: there is no hole in it to work on alone. Remove "
                                          "area, or continue the picture first.")  # fmt: skip
            edges[where] = c.edge(ground.size)
    hole = next(iter(edges.values()))
    for edge in edges.values():
        hole = ImageChops.lighter(hole, edge)
    found = around(hole, max(c.padding for c in holed.values() if c.area == "masked"))
    if found is None:
        raise RecipeError(
            f"{asked}.mask", "it has no white pixel, so there is nothing to repaint. White is repainted, black is kept."
        )
    box = shaped(found, size, ground.size)
    own = (box[2] - box[0], box[3] - box[1])
    notes = []
    if own[0] > size[0] and own[1] > size[1]:
        notes.append(f"{asked}.area: the box around the hole is {px(own)} and is worked on at {px(size)}, so that what is made is coarser than "
                     "the picture. Give a larger width and height, or less padding.")  # fmt: skip
    if odd(own, size):
        notes.append(f"{asked}.area: the picture has no room for a box in the shape of {px(size)}; what lacks is filled by its rim and left "
                     "out again.")  # fmt: skip
    frame = Frame(
        ground, box, tuple(_opening(c, edges[where].crop(box)) for where, c in holed.items()),
        any(getattr(c, "paste", True) for c in holed.values()),
    )  # fmt: skip
    out = {}
    for where, c in laid.items():
        with under(where):
            out[where], said = _cut(c, ground, box, size)
            notes += [f"{where}.{text}" for text in said]
    return out, frame, notes


def _opening(c: Holed, edge: Any) -> Any:
    """How much of each pixel of the box is what is made: by its blurred edge, or all of what is ever released."""
    import numpy as np

    alpha = np.asarray(edge, dtype=np.float32) / 255
    return alpha if c.mask_blur and not getattr(c, "soft", False) else (alpha > 0).astype(np.float32)


def _cut(c: Condition, ground: Picture, box: Box, size: tuple[int, int]) -> tuple[Condition, list[str]]:
    """A condition that sees the box alone, and what is said of its pictures that lie elsewhere."""
    changed: dict[str, Any] = {}
    notes: list[str] = []

    def part(picture: Any) -> Any:
        if not isinstance(picture, Picture):
            return picture
        if not odd(picture.size, ground.size):  # the whole picture in another size
            return Picture.of(cut(fitted(picture.image, ground.size), box, size))
        notes.append(f"image: {px(picture.size)} has not the shape of the picture that is repainted ({px(ground.size)}), so it is taken to "
                     "show the box alone. Give it in that shape to have it cut alike.")  # fmt: skip
        return picture

    if isinstance(c, Holed):
        if c.mask is None:
            return c, notes
        soft = getattr(c, "soft", False)
        drawn = c.edge(ground.size) if soft else c.drawn(ground.size)
        image = _ground(c)
        changed = {"mask": Picture.of(cut_hole(drawn, box, size, soft)), "area": "whole", "paste": False,
                   str(c.HOLE): Picture.of(cut(image.image, box, size)),
                   "mask_blur": 0.0 if soft else c.mask_blur * size[0] / (box[2] - box[0])}  # fmt: skip
    else:
        c, notes = c.within(box, ground.size)
        for name in type(c).model_fields:
            value = getattr(c, name)
            if name == "mask" and isinstance(value, Picture):
                changed[name] = Picture.of(cut(fitted(value.mask, ground.size), box, size))
            elif not c.LOOKS:
                new = replaced(value, part)
                if new is not value:
                    changed[name] = new
    return (c.model_copy(update=changed) if changed else c), notes

"""Outpainting's canvas: the picture on gray ground, and the hole around it, reaching a little into the picture.

Source: app.py of open-mmlab/PowerPaint@5b4c3d5 (canvas of gray 127, overlap of 10 px on the axes that grow).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infuse.errors import RecipeError
from infuse.media.fitting import fitted_hole
from infuse.media.pictures import Picture

GRAY = 127


@dataclass(frozen=True)
class Canvas:
    """`size` (width, height) in pixels; the picture lies at `offset` (x, y)."""

    size: tuple[int, int]
    offset: tuple[int, int] = (0, 0)

    @classmethod
    def around(cls, size: tuple[int, int], ratios: tuple[float, float], sides: tuple[int, int, int, int]) -> Canvas:
        """From (horizontal, vertical) ratios, or from pixels at (left, right, top, bottom).

        Raises RecipeError if both are given, or neither makes the canvas larger.
        """
        w, h = size
        if any(sides) and ratios != (1, 1):
            raise RecipeError("horizontal", "it comes with pixels per side. Say either by ratios how far to outpaint, or by left, "
                                            "right, top, bottom.")  # fmt: skip
        if any(sides):
            left, right, top, bottom = sides
            return cls((w + left + right, h + top + bottom), (left, top))
        wide, high = int(ratios[0] * w), int(ratios[1] * h)
        if (wide, high) == (w, h):
            raise RecipeError("horizontal", "it is 1, and so is vertical: the canvas would be the picture itself, with nothing to "
                                            "outpaint. Give a ratio above 1, or pixels in left, right, top or bottom.")  # fmt: skip
        return cls((wide, high), ((wide - w) // 2, (high - h) // 2))

    def picture(self, picture: Picture) -> Picture:
        """The picture on its canvas."""
        if picture.size == self.size:
            return picture
        return Picture.of(self._laid(picture.image, "RGB", (GRAY,) * 3))

    def mask(self, mask: Picture, own: tuple[int, int]) -> Picture:
        """A hole in a picture of its `own` (width, height), on the canvas."""
        if mask.size == self.size == own:
            return mask
        drawn = mask.mask if mask.size == own else fitted_hole(mask.mask, own)
        return Picture.of(self._laid(drawn, "L", 0))

    def hole(self, size: tuple[int, int], overlap: int) -> Picture:
        """White outside of a picture of this size, and `overlap` pixels into it on each side that grows."""
        from PIL import Image

        (x, y), (w, h) = self.offset, size
        right, bottom = self.size[0] - x - w, self.size[1] - y - h
        known = (x + overlap * (x > 0), y + overlap * (y > 0),
                 x + w - overlap * (right > 0), y + h - overlap * (bottom > 0))  # fmt: skip
        if known[0] >= known[2] or known[1] >= known[3]:
            raise RecipeError(
                "overlap", f"{overlap} px from each side leave nothing of a picture of {w} x {h} px. Use less."
            )
        image = Image.new("L", self.size, 255)
        image.paste(0, known)
        return Picture.of(image)

    def _laid(self, image: Any, mode: str, ground: Any) -> Any:
        from PIL import Image

        canvas = Image.new(mode, self.size, ground)
        canvas.paste(image, self.offset)
        return canvas

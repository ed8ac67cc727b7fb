"""Bringing pictures and masks to a size. A side that differs by less than a cell of the latent is laid on, not scaled:
pixels that are to stay stay as they are.
"""

from __future__ import annotations

from typing import Any, Literal

Fit = Literal["stretch", "crop", "pad"]
"""Another shape: pull it out of shape, cut what sticks out around the centre, or fill up around it with black."""
Cells = Literal["touched", "nearest"]
"""Which places of the latent a hole opens: all that it touches, or those whose first pixel it covers (diffusers)."""
CELL = 8
"""Pixels: the side of what one place of a latent shows."""


def near(own: tuple[int, int], size: tuple[int, int]) -> bool:
    """Are two (width, height) less than a cell apart, so that one is laid on the other without scaling?"""
    return own != size and all(abs(a - b) < CELL for a, b in zip(own, size, strict=True)) and min(own) >= CELL


def padded(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """A (width, height) rounded up to whole places of a latent, two at least."""
    width, height = (max(-(-side // factor), 2) * factor for side in size)
    return width, height


def shrunk(size: tuple[int, int], factor: int) -> tuple[int, int]:
    """A (width, height) in places of a latent: a pixel for each that the picture touches."""
    return -(-size[0] // factor), -(-size[1] // factor)


def tiles(image: Any) -> list[Any]:
    """Squares of the shorter side that cover an image from end to end, evenly spaced: two of 3 x 2, three of 3 x 1."""
    w, h = image.size
    side, n = min(w, h), -(-max(w, h) // min(w, h))
    starts = [round(i * (max(w, h) - side) / max(n - 1, 1)) for i in range(n)]
    return [image.crop((x, 0, x + side, side) if w > h else (0, x, side, x + side)) for x in starts]


def odd(own: tuple[int, int], size: tuple[int, int]) -> bool:
    """Have two sizes another shape, by more than 2 percent?"""
    (w, h), (width, height) = own, size
    return not near(own, size) and abs(w * height - h * width) > 0.02 * w * height


def fitted(image: Any, size: tuple[int, int], fit: Fit = "stretch", ground: Any = 0) -> Any:
    """A PIL image of this (width, height), scaled by Lanczos as in diffusers. ground: the colour that `pad` fills with."""
    from PIL import Image, ImageOps

    if image.size == size:
        return image
    if near(image.size, size):
        return laid(image, size)
    if fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.LANCZOS, color=ground)
    return image.resize(size, Image.Resampling.LANCZOS)


def fitted_hole(
    mask: Any, size: tuple[int, int], fit: Fit = "stretch", soft: bool = False, laid_on: bool = True
) -> Any:
    """A black and white mask ("L", 0 or 255) of this size: white wherever the mask is white in any pixel that it covers.

    However thin a hole is, it does not get lost in scaling. soft: greys stay, the lightest that a pixel covers. laid_on: a side
    that differs by less than a cell is laid on, not scaled.
    """
    import numpy as np
    from PIL import Image

    grey = np.asarray(mask.convert("L"))
    white = grey if soft else (grey >= 128).astype(np.uint8) * 255
    own = mask.size
    if own != size and not (laid_on and near(own, size)):
        if fit == "crop":
            white = _cut(white, size)
        elif fit == "pad":
            white = _filled(white, size)
        white = _covering(white, size)
    out = Image.fromarray(white)
    return laid(out, size) if out.size != size else out


def laid(image: Any, size: tuple[int, int]) -> Any:
    """An image on a canvas of another size, at the top left: cut there, or its last row and column repeated."""
    import numpy as np
    from PIL import Image

    if image.size == size:
        return image
    pixels = np.asarray(image)[: size[1], : size[0]]
    more = ((0, size[1] - pixels.shape[0]), (0, size[0] - pixels.shape[1]), *([(0, 0)] * (pixels.ndim - 2)))
    return Image.fromarray(np.pad(pixels, more, "edge"))


def _covering(white: Any, size: tuple[int, int]) -> Any:
    """Each pixel of the new grid is as white as the whitest below it: along one axis, then along the other."""
    import numpy as np

    for axis, new in ((0, size[1]), (1, size[0])):
        old, places = white.shape[axis], np.arange(new)
        first, last = places * old // new, -((places + 1) * -old // new)  # from floor to ceil
        wider = np.insert(white, old, 0, axis)  # so that `last` may be the end
        white = np.take(np.maximum.reduceat(wider, np.stack([first, last], 1).ravel(), axis), 2 * places, axis)
    return white


def _cut(white: Any, size: tuple[int, int]) -> Any:
    """The part around the centre that has the shape of `size`."""
    h, w = white.shape
    width, height = min(w, round(h * size[0] / size[1])), min(h, round(w * size[1] / size[0]))
    x, y = (w - width) // 2, (h - height) // 2
    return white[y : y + height, x : x + width]


def _filled(white: Any, size: tuple[int, int]) -> Any:
    """The whole in the middle of a black ground that has the shape of `size`."""
    import numpy as np

    h, w = white.shape
    width, height = max(w, round(h * size[0] / size[1])), max(h, round(w * size[1] / size[0]))
    x, y = (width - w) // 2, (height - h) // 2
    return np.pad(white, ((y, height - h - y), (x, width - w - x)))

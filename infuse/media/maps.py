"""Maps are brought to another size without losing what they say: a segmentation keeps its colours, a drawing its lines.

Lanczos, right for photographs, makes colours between two classes and grey between black and white. So a map of few
colours is scaled by its nearest pixels, and one of lines is made black and white again, one pixel wide if it was.
Source: Mikubill/sd-webui-controlnet@56cec5b (scripts/controlnet.py, resize modes and high-quality resize).
"""

from __future__ import annotations

from typing import Any, Literal

from infuse.media.fitting import Fit, fitted, near

Resample = Literal["auto", "smooth", "map"]
"""By Lanczos as in diffusers (smooth), as a map, or whichever it looks like."""
FEW = 200
"""Colours: a picture with fewer is a map."""
ROUNDS = 32
"""Of thinning, at most."""


def fitted_map(image: Any, size: tuple[int, int], fit: Fit = "stretch", resample: Resample = "auto") -> Any:
    """A PIL image of this (width, height). `pad` fills up with the median colour of its rim: the webui's "resize and fill"."""
    if image.size == size or near(image.size, size):
        return fitted(image, size, fit)
    if resample == "smooth" or (resample == "auto" and not is_few(image)):
        return fitted(image, size, fit, rim(image) if fit == "pad" else 0)
    if fit == "stretch":
        return scaled(image, size)
    k = (max if fit == "crop" else min)(size[0] / image.size[0], size[1] / image.size[1])
    whole = scaled(image, (round(image.size[0] * k), round(image.size[1] * k)))
    if fit == "crop":
        x, y = (max((a - b) // 2, 0) for a, b in zip(whole.size, size, strict=True))
        return whole.crop((x, y, x + size[0], y + size[1]))
    from PIL import Image

    canvas = Image.new("RGB", size, rim(image))
    canvas.paste(whole, tuple((b - a) // 2 for a, b in zip(whole.size, size, strict=True)))
    return canvas


def rim(image: Any) -> tuple[int, ...]:
    """The median colour of an image's four border lines (the corners count twice)."""
    import numpy as np

    a = np.asarray(image.convert("RGB"))
    lines = np.concatenate([a[0], a[-1], a[:, 0], a[:, -1]])
    return tuple(int(v) for v in np.median(lines, axis=0))


def colours(image: Any) -> int:
    """How many colours a PIL image has, up to `FEW`."""
    found = image.convert("RGB").getcolors(FEW)
    return FEW if found is None else len(found)


def is_binary(image: Any) -> bool:
    """Two colours, one nearly black and one nearly white."""
    low, high = image.convert("L").getextrema()
    return colours(image) == 2 and low < 16 and high > 240


def is_few(image: Any) -> bool:
    return 2 < colours(image) < FEW or is_binary(image)


def scaled(image: Any, size: tuple[int, int]) -> Any:
    """An RGB PIL image of this (width, height), its colours or lines kept."""
    import cv2
    import numpy as np
    from PIL import Image

    if image.size == size:
        return image
    a = np.asarray(image.convert("RGB"))
    larger = size[0] * size[1] >= image.size[0] * image.size[1]
    flat = cv2.INTER_NEAREST if 2 < colours(image) < FEW else cv2.INTER_CUBIC if larger else cv2.INTER_AREA
    out = cv2.resize(a, size, interpolation=flat)
    if is_binary(image):
        grey = out.mean(axis=2).clip(0, 255).astype(np.uint8)
        thin_before = one_pixel_wide(a[..., 0])
        grey = ridges(grey) if thin_before else grey
        white = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1]
        white = thinned(white, prune=larger) if thin_before else white
        out = np.repeat(white[..., None], 3, axis=2)
    return Image.fromarray(out)


def one_pixel_wide(white: Any) -> bool:
    """Do lines vanish when they are opened by 3 x 3: more than half of what is white?"""
    import cv2
    import numpy as np

    opened = cv2.dilate(cv2.erode(white, np.ones((3, 3), np.uint8)), np.ones((3, 3), np.uint8))
    before, after = int((white > 127).sum()), int((opened > 127).sum())
    return before - after > before / 2


def ridges(grey: Any) -> Any:
    """What is highest along a line of three pixels, in any of four directions; else 0."""
    import cv2
    import numpy as np

    flat, diagonal = np.array([[0, 0, 0], [1, 1, 1], [0, 0, 0]], np.uint8), np.eye(3, dtype=np.uint8)
    lines = (flat, flat.T.copy(), diagonal, np.fliplr(diagonal).copy())
    kept = [cv2.dilate(grey, kernel=line) == grey for line in lines]
    return np.where(np.logical_or.reduce(kept), grey, 0).astype(np.uint8)


EDGE = ((-1, -1, -1), (0, 1, 0), (1, 1, 1)), ((0, -1, -1), (1, 1, -1), (0, 1, 0))
"""A pixel on the rim of something, from its side and from its corner (Golay's L): taken off from each direction in turn."""
SPUR = ((-1, -1, -1), (-1, 1, -1), (0, 0, -1)), ((-1, -1, -1), (-1, 1, -1), (-1, 0, 0))
"""The end of a line."""


def thinned(white: Any, prune: bool = False) -> Any:
    """Lines of a black and white image one pixel wide; `prune` shortens each by its last pixel."""
    white, before = white.copy(), -1
    for _ in range(ROUNDS):
        white = _taken(white, EDGE)
        if (left := int((white > 0).sum())) == before:
            break
        before = left
    return _taken(white, SPUR) if prune else white


def _taken(white: Any, patterns: Any) -> Any:
    import cv2
    import numpy as np

    for pattern in patterns:
        for turn in range(4):
            kernel = np.ascontiguousarray(np.rot90(np.array(pattern, np.int8), turn))
            white[cv2.morphologyEx(white, cv2.MORPH_HITMISS, kernel) > 127] = 0
    return white

"""A picture's colours brought to those of another one: by their whole distribution, or by what both show in a few places.

Source: colour correction of the webui (modules/processing.py of stable-diffusion-webui-forge@dfdcbab): matched in Lab, while the
brightness of the picture stays its own.
"""

from __future__ import annotations

from typing import Any

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.950456, 1.0, 1.088754)
"""sRGB under D65, as OpenCV has them."""
LUMA = (0.3, 0.59, 0.11)
"""How bright red, green and blue are to the blend modes of PDF and CSS."""


def matched(image: Any, target: Any) -> Any:
    """(h w 3) uint8 with the histogram that `target` has, for each of Lab's channels; brightness stays the image's own."""
    import numpy as np

    exact = lab(image)
    own, theirs = (np.clip(np.rint(values), 0, 255) for values in (exact, lab(target)))
    moved = np.stack([_as(own[..., i], theirs[..., i]) for i in range(3)], -1) - own
    return with_luminosity(rgb(exact + moved), image)


def levelled(image: Any, target: Any, where: Any) -> Any:
    """(h w 3) uint8 shifted and stretched so that, in the places `where` (h w, booleans), it has the target's mean and spread.

    What both show there is the same thing, so that a difference is the maker's and holds for all of the image. The spread is
    changed by a fifth at most: few places have little of it.
    """
    import numpy as np

    if not where.any():
        return image
    own, there = image[where].astype(np.float64), target[where].astype(np.float64)
    slope = np.clip((there.std(0) + 1) / (own.std(0) + 1), 0.8, 1.25)
    out = (image - own.mean(0)) * slope + there.mean(0)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def lab(image: Any) -> Any:
    """sRGB (h w 3) uint8 -> Lab in the range of 8 bits, not rounded: L * 255 / 100, a + 128, b + 128."""
    import numpy as np

    c = np.asarray(image, dtype=np.float64) / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    x, y, z = np.moveaxis(linear @ np.array(TO_XYZ).T / WHITE, -1, 0)
    f = [np.where(v > 0.008856, np.cbrt(v), 7.787 * v + 16 / 116) for v in (x, y, z)]
    light = np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)
    return np.stack([light * 2.55, 500 * (f[0] - f[1]) + 128, 200 * (f[1] - f[2]) + 128], -1)


def rgb(values: Any) -> Any:
    """Lab as `lab` scales it -> sRGB (h w 3) uint8; what sRGB does not hold is clipped."""
    import numpy as np

    light, a, b = np.moveaxis(np.asarray(values, dtype=np.float64), -1, 0)
    light, a, b = light / 2.55, a - 128, b - 128
    fy = (light + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200], -1)
    xyz = np.where(f > 6 / 29, f**3, (f - 16 / 116) / 7.787) * WHITE
    linear = np.clip(xyz @ np.linalg.inv(np.array(TO_XYZ)).T, 0, 1)
    c = np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear)
    return np.clip(np.rint(c * 255), 0, 255).astype(np.uint8)


def with_luminosity(image: Any, bright: Any) -> Any:
    """Hue and saturation of one picture, brightness of another, both (h w 3) uint8: "luminosity" of the W3C's blend modes."""
    import numpy as np

    luma = np.array(LUMA)
    c = np.asarray(image, dtype=np.float64)
    c = c + ((np.asarray(bright) - c) @ luma)[..., None]
    mean, low, high = (c @ luma)[..., None], c.min(-1, keepdims=True), c.max(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        c = np.where(low < 0, mean + (c - mean) * mean / (mean - low), c)
        c = np.where(high > 255, mean + (c - mean) * (255 - mean) / (high - mean), c)
    return np.clip(np.rint(c), 0, 255).astype(np.uint8)


def _as(own: Any, theirs: Any) -> Any:
    """Numbers moved, in their order, to where the other picture has its own (histogram matching)."""
    import numpy as np

    _, at, counts = np.unique(own, return_inverse=True, return_counts=True)
    values, others = np.unique(theirs, return_counts=True)
    share, their_share = np.cumsum(counts) / own.size, np.cumsum(others) / theirs.size
    return np.interp(share, their_share, values)[at.reshape(own.shape)]

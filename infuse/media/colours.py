"""A picture's colours brought to those of another one: by their whole distribution, or by what both show in a few places.

Source of the former: colour correction of the webui (modules/processing.py of stable-diffusion-webui-forge@dfdcbab): matched in Lab, while the
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
    """(h w 3) uint8 with the target's colours in the places `where` (h w, booleans), and everywhere else with what differs there
    spread over it smoothly.

    What both show in these places is the same thing, so that a difference is the maker's, and goes on beside them. Source: the
    membrane of Perez et al. 2003 (Poisson image editing), with push and pull (Gortler et al. 1996) as its solver.
    """
    import numpy as np

    if not where.any():
        return image
    shift = spread(target.astype(np.float64) - image, where)
    return np.clip(np.rint(image + shift), 0, 255).astype(np.uint8)


def spread(values: Any, where: Any) -> Any:
    """(h w c) floats that are known in some places only, carried to all others: averages of ever larger squares, the smallest
    that know anything."""
    import numpy as np

    known = where.astype(np.float64)[..., None]
    h, w, _ = values.shape
    if known.all():
        return values
    if h == w == 1:
        return values * known
    more = ((0, h % 2), (0, w % 2), (0, 0))
    total, weight = (
        np.pad(v, more).reshape((h + 1) // 2, 2, (w + 1) // 2, 2, -1).sum((1, 3)) for v in (values * known, known)
    )
    wide = spread(total / np.maximum(weight, 1), weight[..., 0] > 0)
    return np.where(known > 0, values, _doubled(_doubled(wide, 0), 1)[:h, :w])


def _doubled(values: Any, axis: int) -> Any:
    """Twice as many along an axis, each between the two that it lies between."""
    import numpy as np

    n = values.shape[axis]
    beside = [np.take(values, np.clip(np.arange(n) + d, 0, n - 1), axis) for d in (-1, 1)]
    parts = np.stack([0.75 * values + 0.25 * b for b in beside], axis + 1)
    return parts.reshape(*values.shape[:axis], 2 * n, *values.shape[axis + 1 :])


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

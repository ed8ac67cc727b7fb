"""Does wood look like wood, and gold like gold? From colours and their changes within solids, without a judge of materials.

All take a picture (h w 3) uint8 and where the solids are (h w) bool; their outlines, where colours mix, are left out.
"""

import numpy as np

EDGE = 2
"""Pixels along a solid's outline that are not looked at."""
BROWN = ((14.0, 42.0), (0.22, 0.82))
"""Hue in degrees, and saturation in 0..1, of wood."""
GOLD = ((36.0, 47.5), (0.55, 1.0))
"""The same of gold: yellow solids are at 50 degrees, orange ones at 27."""


def brown(picture: np.ndarray, solids: np.ndarray) -> float:
    """The share of the solids' pixels that have the colour of wood; 0 where no solid is."""
    return _share(picture, solids, *BROWN)


def golden(picture: np.ndarray, solids: np.ndarray) -> float:
    """The share of the solids' pixels that have the colour of gold; 0 where no solid is."""
    return _share(picture, solids, *GOLD)


def grain(picture: np.ndarray, solids: np.ndarray) -> float:
    """How much brightness changes over five pixels, in percent of itself, less what its neighbourhood's slope explains.

    Shading is a slope and gives almost nothing; rings and streaks are not.
    """
    bright = picture.astype(np.float64) @ (0.299, 0.587, 0.114) + 1
    log = np.log(bright)
    bends = [np.abs(2 * log - np.roll(log, 4, axis) - np.roll(log, -4, axis)) for axis in (0, 1)]
    inside = shrunk(solids, 5)
    return float(100 * np.mean([b[inside].mean() for b in bends])) if inside.any() else 0.0


def shrunk(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask without what lies within so many pixels (along rows and columns) of its border."""
    for _ in range(pixels):
        inner = np.zeros_like(mask)
        inner[1:-1, 1:-1] = mask[1:-1, 1:-1] & mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        mask = inner
    return mask


def hues(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(h w) degrees in 0..360 and (h w) saturation in 0..1, as in HSV."""
    rgb = picture.astype(np.float64) / 255
    high, low = rgb.max(-1), rgb.min(-1)
    spread = high - low
    r, g, b = np.moveaxis(rgb, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        hue = np.select(
            [high == r, high == g], [((g - b) / spread) % 6, (b - r) / spread + 2], default=(r - g) / spread + 4
        )
        saturation = np.where(high > 0, spread / high, 0.0)
    return np.nan_to_num(60 * hue), saturation


def _share(picture: np.ndarray, solids: np.ndarray, hue: tuple[float, float], saturation: tuple[float, float]) -> float:
    inside = shrunk(solids, EDGE)
    h, s = hues(picture)
    right = (h >= hue[0]) & (h <= hue[1]) & (s >= saturation[0]) & (s <= saturation[1])
    return float(right[inside].mean()) if inside.any() else 0.0

"""Hints that need no network: lightness, a coarser or blurred picture, black and white, a picture whose places are mixed.

Source: Mikubill/sd-webui-controlnet@56cec5b (scripts/processor.py); numbers are its defaults. Pictures are RGB arrays of 8 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import UInt8

    RGB = UInt8[np.ndarray, "h w 3"]
FLOW = 256
"""Pixels: how far apart the places are that shuffle moves to random others."""


def canny(image: RGB, low: float, high: float) -> RGB:
    """White edges on black (OpenCV's Canny)."""
    import cv2

    return _grey(cv2.Canny(image, low, high))


def luminance(image: RGB, gamma: float) -> RGB:
    """CIELAB's lightness. (The webui's preprocessor takes red for blue there; its post-processing does not.)"""
    import cv2

    return _bent(cv2.cvtColor(image, cv2.COLOR_RGB2LAB)[..., 0], gamma)


def intensity(image: RGB, gamma: float) -> RGB:
    """The largest of red, green and blue (HSV's value)."""
    return _bent(image.max(axis=-1), gamma)


def coarse(image: RGB, rate: float) -> RGB:
    """The picture at a part of its size, for tile models; the rest is enlarged again when it is laid on the canvas."""
    import cv2

    if rate < 1.1:
        return image
    h, w = image.shape[:2]
    return cv2.resize(image, (max(int(w / rate), 1), max(int(h / rate), 1)), interpolation=cv2.INTER_AREA)


def blurred(image: RGB, sigma: float) -> RGB:
    """A Gaussian of so many pixels."""
    import cv2

    return cv2.GaussianBlur(image, (0, 0), sigma)


def threshold(image: RGB, at: float) -> RGB:
    """White where all three colours are above a value."""
    return _grey((image.min(axis=-1) > at).astype(np.uint8) * 255)


def scribble(image: RGB, at: float) -> RGB:
    """White strokes where a picture is darker than its surroundings (difference of two Gaussians, XDoG)."""
    import cv2

    near, far = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), sigma) for sigma in (0.5, 5.0))
    drawn = (255 - np.min(far - near, axis=-1)).clip(0, 255).astype(np.uint8)
    return _grey((2 * (255 - drawn.astype(np.float32)) > at).astype(np.uint8) * 255)


def shuffled(image: RGB, seed: float) -> RGB:
    """Every pixel from elsewhere, neighbours from neighbours: what is left of a picture is its colours and textures."""
    import cv2

    h, w = image.shape[:2]
    random = np.random.RandomState(int(seed))
    x, y = (_hills(h, w, random) * (side - 1) for side in (w, h))
    return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)


def _hills(h: int, w: int, random: Any) -> Any:
    """A smooth random surface, 0-1."""
    import cv2

    coarse = random.uniform(0, 1, (h // FLOW + 2, w // FLOW + 2))
    fine = cv2.resize(coarse, (w + 2 * FLOW, h + 2 * FLOW), interpolation=cv2.INTER_CUBIC)[
        FLOW : FLOW + h, FLOW : FLOW + w
    ]
    return (fine - fine.min()) / max(np.ptp(fine), 1e-9)


def _bent(grey: Any, gamma: float) -> RGB:
    return _grey(((grey / 255.0) ** gamma * 255).clip(0, 255).astype(np.uint8))


def _grey(grey: Any) -> RGB:
    return np.repeat(np.ascontiguousarray(grey)[..., None], 3, axis=-1)


@dataclass(frozen=True)
class Annotator:
    """What draws, and its options: name -> (usual value, least, most)."""

    draw: Callable[..., RGB]
    options: Mapping[str, tuple[float, float, float]]


ANNOTATORS: Mapping[str, Annotator] = {
    "canny": Annotator(canny, {"low": (100, 0, 255), "high": (200, 0, 255)}),
    "luminance": Annotator(luminance, {"gamma": (1, 0.1, 2)}),
    "intensity": Annotator(intensity, {"gamma": (1, 0.1, 2)}),
    "tile": Annotator(coarse, {"rate": (1, 1, 8)}),
    "blur": Annotator(blurred, {"sigma": (9, 0.01, 64)}),
    "threshold": Annotator(threshold, {"at": (127, 0, 255)}),
    "scribble": Annotator(scribble, {"at": (32, 1, 64)}),
    "shuffle": Annotator(shuffled, {"seed": (0, 0, 2**32 - 1)}),
}


def annotated(image: Any, name: str, options: Mapping[str, float], resolution: int | None = None) -> Any:
    """A PIL image drawn from another. resolution: pixels of the short side at which it is looked at; None: its own."""
    from PIL import Image

    found = ANNOTATORS[name]
    values = {k: options.get(k, usual) for k, (usual, _, _) in found.options.items()}
    array = np.asarray(image.convert("RGB"))
    if resolution is None:
        return Image.fromarray(found.draw(array, **values))
    padded, (h, w) = at_resolution(array, resolution)
    drawn = found.draw(padded, **values)
    if drawn.shape != padded.shape:  # coarser on purpose
        h, w = round(h * drawn.shape[0] / padded.shape[0]), round(w * drawn.shape[1] / padded.shape[1])
    return Image.fromarray(np.ascontiguousarray(drawn[: max(h, 1), : max(w, 1)]))


def at_resolution(image: RGB, resolution: int) -> tuple[RGB, tuple[int, int]]:
    """(the picture with its short side at this many pixels, its rim repeated up to multiples of 64; its own (h, w) in there)."""
    import cv2

    h, w = image.shape[:2]
    k = resolution / min(h, w)
    height, width = int(np.round(h * k)), int(np.round(w * k))
    out = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if k > 1 else cv2.INTER_AREA)
    more = ((0, -height % 64), (0, -width % 64), (0, 0))
    return np.pad(out, more, "edge"), (height, width)


def pixel_perfect(own: tuple[int, int], size: tuple[int, int], whole: bool) -> int:
    """The resolution at which an annotator sees a picture of its `own` (width, height) as large as it will be shown on `size`.

    whole: it is shown whole, between bars ("resize and fill").
    """
    scales = size[0] / own[0], size[1] / own[1]
    return int(np.round((min(scales) if whole else max(scales)) * min(own)))

"""A mask's edge made soft: a Gaussian over grey values of 8 bits, along one axis and then the other."""

from __future__ import annotations

from typing import Any


def softened(mask: Any, sigma: float) -> Any:
    """A grey PIL image blurred by `sigma` pixels; the same one if that is 0.

    2 floor(2.5 sigma + 0.5) + 1 taps, rounded to 8 bits after each axis, the picture mirrored at its rim. Source: mask blur
    of the webui (modules/processing.py of stable-diffusion-webui-forge@dfdcbab), x before y.
    """
    import numpy as np
    from PIL import Image

    reach = int(2.5 * sigma + 0.5)
    if not reach:
        return mask
    taps = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    grey = np.asarray(mask.convert("L"))
    for axis in (1, 0):
        grey = _along(axis, grey, taps)
    return Image.fromarray(grey)


def _along(axis: int, grey: Any, taps: Any) -> Any:
    """Weighted sums of neighbours along one axis."""
    import numpy as np

    reach, n = len(taps) // 2, grey.shape[axis]
    # a rim narrower than the reach is mirrored over and over
    places = np.pad(np.arange(n), reach, "reflect") if n > 1 else np.zeros(n + 2 * reach, int)
    total = np.zeros(grey.shape)
    for i, weight in enumerate(taps):
        total += weight * np.take(grey, places[i : i + n], axis)
    return (total + 0.5).astype(np.uint8)

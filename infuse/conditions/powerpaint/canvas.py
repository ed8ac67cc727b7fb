"""What a generation of PowerPaint is shown: the picture without what lies in its holes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from infuse.conditions.base import Encoders
from infuse.encoders.generations import Generation
from infuse.media.pictures import Picture

if TYPE_CHECKING:
    from torch import Tensor


def union(pixels: Sequence[Any]) -> Any:
    """The union of several holes (tensors 0-1)."""
    out = pixels[0]
    for p in pixels[1:]:
        out = out.maximum(p)
    return out


def blanked(kit: Encoders, image: Picture, holes: Sequence[Picture], generation: Generation) -> tuple[Tensor, Tensor]:
    """(picture without its hole, hole 0/1), both (c height width) on the canvas, as the generation was shown them.

    v2's app fades the picture by its mask as drawn, in 8 bits and before any change of size; the others blank what the
    mask, made black and white, covers.
    """
    pixels, hole = kit.pixels(image), union([kit.hole(h) for h in holes])
    if generation.name != "v2":
        return pixels * (1 - hole) + generation.blank * hole, hole
    soft = np.maximum.reduce([np.asarray(h.mask, dtype=np.float64) for h in holes]) / 255
    faded = np.asarray(image.image) * (1 - soft[..., None])
    return kit.pixels(Picture.of(faded.astype(np.uint8))), hole

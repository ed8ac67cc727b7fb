"""What T2I-Adapters are shown besides maps: a drawing's strokes in black and white, a palette of coarse cells."""

from __future__ import annotations

from typing import Any

import numpy as np


def strokes(image: Any) -> Any:
    """White where a drawing of light lines is lighter than half, black elsewhere: sketch adapters saw nothing in between."""
    from PIL import Image

    white = np.asarray(image.convert("L")) > 127
    return Image.fromarray(np.repeat(white[..., None], 3, axis=-1).astype(np.uint8) * 255)


def palette(image: Any, cell: int = 64) -> Any:
    """One colour for each cell of so many pixels a side; a palette already stays as it is.

    Source: TencentARC/T2I-Adapter@16bba67, ldm/modules/extra_condition/api.py (get_cond_color).
    """
    import cv2
    from PIL import Image

    w, h = image.size
    coarse = (max(w // cell, 1), max(h // cell, 1))
    small = cv2.resize(np.asarray(image.convert("RGB")), coarse, interpolation=cv2.INTER_CUBIC)
    return Image.fromarray(cv2.resize(small, (w, h), interpolation=cv2.INTER_NEAREST))

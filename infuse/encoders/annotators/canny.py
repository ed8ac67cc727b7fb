"""Canny lines of each frame, with thresholds about the frame's own brightness.

In VideoComposer's code, but no encoder for it is in the released weights.
Source: damo-vilab/videocomposer @ 5c14d4f2, tools/annotator/canny.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, UInt8


def canny_video(frames: UInt8[np.ndarray, "f h w 3"], rng: np.random.Generator) -> Float[np.ndarray, "1 f h w"]:
    """1 on a line, 0 elsewhere. Per frame: low = (1 - r) median, r uniform in 0.1-0.4, and high = 2 low."""
    import cv2

    lines = []
    for frame in frames:
        low = int(max(0.0, (1 - rng.uniform(0.1, 0.4)) * float(np.median(frame))))
        lines.append(cv2.Canny(frame, low, 2 * low))
    return np.stack(lines)[None].astype(np.float32) / 255

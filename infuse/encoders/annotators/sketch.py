"""A sketch of each frame, light lines on dark: find the edges, then draw them clean. s = 1 - G(1 - P(frame)).

The cleaning network G knows dark lines on light paper, the edge network P answers with light on dark, and so do the
encoders of VideoComposer want it; hence both inversions. The original runs both networks on a user's own drawing too.
Frames come from `frames.spatial_frame`: 384 x 384.

Source: damo-vilab/videocomposer @ 5c14d4f2, tools/videocomposer/inference_single.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

if TYPE_CHECKING:
    from infuse.encoders.annotators.pidinet import PiDiNet
    from infuse.encoders.annotators.sketch_simplification import SketchSimplification


@torch.no_grad()
def sketch(rgb: Float[Tensor, "f 3 h w"], edges: PiDiNet, clean: SketchSimplification) -> Float[Tensor, "f 1 h w"]:
    """`rgb` in 0-1 becomes a sketch in 0-1, frame by frame, which keeps memory at one frame."""
    return torch.cat([simplified(edges(frame[None]), clean) for frame in rgb])


@torch.no_grad()
def simplified(edges: Float[Tensor, "b 1 h w"], clean: SketchSimplification) -> Float[Tensor, "b 1 h w"]:
    """An edge map in 0-1 (light on dark), drawn clean; the same polarity."""
    return 1 - clean(1 - edges)


def sketch_without_models(frame: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """Light lines on dark in 0-1 by OpenCV alone, for machines that have neither network.

    Honest but not equal: Canny's lines are closed and thin where the networks answer with strokes of varying weight, and
    VideoComposer never saw such drawings in training. Composition survives, character of line does not.
    """
    import cv2

    gray = cv2.bilateralFilter(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), 7, 40, 7)  # texture is not drawn, outlines are
    middle = float(np.median(gray))
    lines = cv2.Canny(gray, int(0.67 * middle), int(1.33 * middle) + 1)
    soft = cv2.GaussianBlur(lines.astype(np.float32) / 255, (3, 3), 0.6)
    return np.clip(soft / max(float(soft.max()), 1e-6), 0, 1)

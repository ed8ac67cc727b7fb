"""A video with a hole is four channels: the colours that are left, and where they are. And holes as VideoComposer draws them.

Colours are -1 to 1 here (a single conditioning image is 0 to 1: the encoders were trained so), holes are mid-grey zeros.
Source: damo-vilab/videocomposer @ 5c14d4f2, tools/videocomposer/inference_single.py and datasets.py.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

CANVAS = 512  # masks are drawn at this size and then resized


def masked_video(rgb: Float[Tensor, "*f 3 h w"], mask: Float[Tensor, "*f 1 h w"]) -> Float[Tensor, "*f 4 h w"]:
    """`rgb` in 0-1, `mask` 1 in the hole. Answers [colours in -1 to 1 times (1 - mask), 1 - mask]."""
    keep = 1 - mask
    return torch.cat([(2 * rgb - 1) * keep, keep], dim=-3)


def random_mask(rng: np.random.Generator, size: tuple[int, int] = (384, 384)) -> Float[np.ndarray, "h w"]:
    """One hole (1) for all frames of a clip; `size` is (h, w). The original draws one even at inference.

    7 times in 10 thick strokes, 2 in 10 rectangles, 1 in 10 one half of the picture. The rules are the original's, the
    random numbers are not: it draws from numpy's global state.
    """
    import cv2

    luck = rng.random()
    mask = _strokes(rng) if luck < 0.7 else _rectangles(rng) if luck < 0.9 else _half(rng)
    return cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)


def _blank() -> np.ndarray:
    return np.zeros((CANVAS, CANVAS), np.float32)


def _strokes(rng: np.random.Generator) -> np.ndarray:
    """One to five broken lines of one to five segments, each beginning where the last ended."""
    import cv2

    mask = _blank()
    for stroke in range(rng.integers(1, 6)):
        here = rng.integers(0, CANVAS, 2)
        for _ in range(rng.integers(1, 6)):
            angle = 0.01 + rng.integers(0, 4)  # radians: four directions, mirrored in every other stroke
            angle = -angle if stroke % 2 == 0 else angle
            ray = rng.integers(10, 210) * np.array([np.sin(angle), np.cos(angle)])
            there = np.clip((here + ray).astype(int), 0, CANVAS)
            cv2.line(mask, here.tolist(), there.tolist(), 1.0, int(rng.integers(5, 105)))
            here = there
    return mask


def _rectangles(rng: np.random.Generator) -> np.ndarray:
    mask, margin = _blank(), 10
    for _ in range(rng.integers(1, 5)):
        h, w = rng.integers(30, 150, 2)
        y, x = rng.integers(margin, CANVAS - margin - h + 1), rng.integers(margin, CANVAS - margin - w + 1)
        mask[y : y + h, x : x + w] = 1
    return mask


def _half(rng: np.random.Generator) -> np.ndarray:
    mask = _blank()
    mask[: CANVAS // 2] = 1
    return np.rot90(mask, int(rng.integers(0, 4))).copy()

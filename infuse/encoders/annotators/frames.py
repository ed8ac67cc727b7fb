"""The three sizes in which VideoComposer looks at a frame: 256 for the latents, 384 for spatial conditions, 224 for style.

Source: damo-vilab/videocomposer @ 5c14d4f2, tools/videocomposer/datasets.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

if TYPE_CHECKING:
    from PIL.Image import Image

CLIP_MEAN, CLIP_STD = (0.4815, 0.4578, 0.4082), (0.2686, 0.2613, 0.2758)


def latent_frame(frame: Image, size: int = 256) -> Float[np.ndarray, "3 size size"]:
    """What the VAE encodes: halved while it is at least twice too large, then bicubic, then the centre; -1 to 1."""
    return _array(_shrunk(frame, size)) * 2 - 1


def spatial_frame(frame: Image, rng: np.random.Generator, size: int = 384) -> Float[np.ndarray, "3 size size"]:
    """What depth, sketch, image and mask conditions are made from; 0 to 1. The filter is drawn anew for every frame."""
    from PIL.Image import Resampling

    drawn = (Resampling.BILINEAR, Resampling.BICUBIC, Resampling.LANCZOS)[rng.integers(0, 3)]
    return _array(_centre(_shorter(frame, size, drawn), size))


def style_frame(frame: Image, size: int = 224) -> Float[np.ndarray, "3 size size"]:
    """The middle frame as CLIP wants it, when the video gives its own style; mean and deviation taken off.

    A style picture of the user's goes through OpenCLIP's own preprocessing instead, to the same 224. The embedding is
    the pooled and projected one of ViT-H/14 (1024 wide), not normalised, and goes into `StyleMLP`.
    """
    mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (_array(_shrunk(frame, size)) - mean) / std


def _shrunk(frame: Image, size: int) -> Image:
    from PIL.Image import Resampling

    while min(frame.size) >= 2 * size:
        frame = frame.resize((frame.width // 2, frame.height // 2), Resampling.BOX)
    return _centre(_shorter(frame, size, Resampling.BICUBIC), size)


def _shorter(frame: Image, size: int, how: int) -> Image:
    scale = size / min(frame.size)
    return frame.resize((round(scale * frame.width), round(scale * frame.height)), how)


def _centre(frame: Image, size: int) -> Image:
    left, top = (frame.width - size) // 2, (frame.height - size) // 2
    return frame.crop((left, top, left + size, top + size))


def _array(frame: Image) -> np.ndarray:
    return np.asarray(frame.convert("RGB"), np.float32).transpose(2, 0, 1) / 255

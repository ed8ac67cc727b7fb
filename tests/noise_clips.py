"""Clips of noise, to teach a tiny network of clips with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tiny
from infuse.encoders.kit import Base
from infuse.training.video import DenoiseClips, Learn, video_objective
from infuse.training.video_models import CHANNELS, video_base

FRAMES = 3


class Noise:
    """Clips of noise, the same for the same pick; everything that a condition shows is brightness."""

    frames = FRAMES

    def __len__(self) -> int:
        return 5

    def latents(self, picks: np.ndarray) -> torch.Tensor:
        return torch.stack(
            [torch.randn(4, FRAMES, 8, 8, generator=torch.Generator().manual_seed(int(p))) for p in picks]
        )

    def caption(self, pick: int, frame: int | None, rng: np.random.Generator, told: bool = False) -> str:
        return f"clip {pick}"

    def seen(self, condition: str, pick: int, frame: int | None, rng: np.random.Generator) -> torch.Tensor | None:
        many = 1 if frame is not None or condition in ("single_sketch", "local_image") else FRAMES
        return torch.full((CHANNELS[condition], many, 24, 24), 0.1 * pick)

    def looks(self, picks: np.ndarray, frames: np.ndarray | None) -> torch.Tensor:
        return torch.ones(len(picks), 32) * torch.from_numpy(picks)[:, None]


def clips(dtype: torch.dtype = torch.float32) -> Base:
    return video_base(tiny.base("sd1", dtype=dtype).base, FRAMES)


def objective(base: Base, learn: Learn = "all", **options: Any) -> DenoiseClips:
    return video_objective(base, Noise(), learn=learn, batch_size=2, **options)

"""Deterministic test weights: a tensor depends only on its key, its shape, a salt and a gain.

Rule: n = standard normal draws of numpy's legacy generator seeded with crc32("<salt>/<key>"), as float32.
  scale   one axis, key ends in "weight"  ->  1 + 0.1 * n
  bias    one axis, key ends in "bias"    ->  0.05 * n
  matrix  two or more axes                ->  n * gain / sqrt(product of all axes but the first)
Every other tensor (scalars, other vectors, buffers) has no rule; a golden stores it under "stored.<key>".
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def kind(key: str, shape: Sequence[int]) -> str | None:
    """ "scale", "bias" or "matrix"; None when the rule does not cover the tensor."""
    if len(shape) >= 2:
        return "matrix"
    return next(
        (what for what, end in (("scale", "weight"), ("bias", "bias")) if len(shape) == 1 and key.endswith(end)), None
    )


def make(shapes: Mapping[str, Sequence[int]], salt: str, gain: float = 1.0) -> dict[str, Tensor]:
    """{key: float32 tensor} for {key: shape}. Raises ValueError for a tensor without a rule."""
    return {key: one(key, tuple(shape), salt, gain) for key, shape in shapes.items()}


def one(key: str, shape: tuple[int, ...], salt: str, gain: float) -> Tensor:
    what = kind(key, shape)
    if what is None:
        raise ValueError(f"no rule for {key} {shape}: it must be stored")
    n = np.random.RandomState(zlib.crc32(f"{salt}/{key}".encode())).standard_normal(shape).astype(np.float32)
    if what == "scale":
        return torch.from_numpy(np.float32(1.0) + np.float32(0.1) * n)
    return torch.from_numpy(n * np.float32(0.05 if what == "bias" else gain / math.sqrt(math.prod(shape[1:]))))

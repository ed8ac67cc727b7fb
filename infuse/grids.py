"""Which places a network's layers have, and what a mask says at them."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def resized(mask: Float[Tensor, "height width"], size: tuple[int, int], mode: str = "bilinear") -> Float[Tensor, "h w"]:
    """A mask at another resolution."""
    return F.interpolate(mask[None, None].float(), size=size, mode=mode)[0, 0]


def halved(grid: tuple[int, int], times: int) -> tuple[int, int]:
    """The latent grid so many levels deeper; what is odd is rounded up, as strided convolutions do."""
    h, w = grid
    return -(-h // 2**times), -(-w // 2**times)


def level(grid: tuple[int, int], queries: int) -> tuple[int, int]:
    """Which halving of the latent grid has that many places."""
    h, w = grid
    while h * w > queries and h * w > 1:
        h, w = halved((h, w), 1)
    assert h * w == queries, f"no level of a {grid} latent has {queries} places"
    return h, w


def on_grid(mask: Float[Tensor, "height width"], grid: tuple[int, int], queries: int) -> Float[Tensor, " q"]:
    """A mask on the query grid of an attention layer, bicubic as in diffusers' IP-Adapter masks."""
    return resized(mask, level(grid, queries), "bicubic").flatten()

"""Depth on the latent's grid, as SD2-depth was trained with: nearest 1, farthest -1, whatever unit it came in.

Source: Stability-AI/stablediffusion's depth-to-image (LatentDepth2ImageDiffusion); diffusers' StableDiffusionDepth2ImgPipeline.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FLAT = 1e-4
"""Of the largest number: a smaller spread is what bicubic sums leave of a map that says the same everywhere."""
SIDE = 384
"""Pixels of the shorter side of what MiDaS sees."""


def relative(raw: Float[Tensor, "1 height width"], grid: tuple[int, int]) -> tuple[Float[Tensor, "1 h w"], bool]:
    """(inverse depth in -1..1 on a grid (h, w), is it flat). A flat one is 0 everywhere: neither near nor far.

    Bicubic without antialiasing, then stretched between its own least and largest, as in diffusers.
    """
    small = F.interpolate(raw[None].float(), size=grid, mode="bicubic", align_corners=False)[0]
    low, high = small.min(), small.max()
    if not high - low > FLAT * small.abs().max():
        return torch.zeros_like(small), True
    return 2 * (small - low) / (high - low) - 1, False


@torch.no_grad()
def measured(rgb: Float[Tensor, "3 height width"], net: Any) -> Float[Tensor, "1 hh ww"]:
    """Raw inverse depth of a picture in 0-1, by a MiDaS (`midas.DPT`) at about 384 pixels, in whole steps of the network's."""
    height, width = rgb.shape[-2:]
    size = tuple(max(round(side * SIDE / min(height, width) / net.step), 1) * net.step for side in (height, width))
    weight = next(net.parameters())
    seen = F.interpolate(rgb[None].float(), size=size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
    return net((2 * seen - 1).to(weight))[0].float()

"""The arithmetic of layers between products, step by step; `network.fused` has it in fewer passes over a GPU's memory.

Norms, nonlinearities and sums move much memory for little work.
"""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor


class Parts:
    """As torch does it, sums in place."""

    def resnet(self, module: Any, h: Tensor, t: Tensor | None) -> Tensor:
        """A residual block (b c h w) without resampling. t: (b c) of the time, which is added between its convolutions."""
        x = module.conv1(F.silu(module.norm1(h), inplace=True))
        if t is not None:
            x += t[:, :, None, None]
        x = module.conv2(F.silu(module.norm2(x), inplace=True))
        x += h if module.conv_shortcut is None else module.conv_shortcut(h)
        return x

    def entrance(self, module: Any, h: Tensor) -> Tensor:
        """(b c h w) to the tokens (b n c) of a spatial transformer."""
        x = module.norm(h)
        if module.use_linear_projection:
            return module.proj_in(x.permute(0, 2, 3, 1).flatten(1, 2))
        return module.proj_in(x).permute(0, 2, 3, 1).flatten(1, 2)

    def exit(self, module: Any, x: Tensor, h: Tensor) -> Tensor:
        """Tokens (b n c) back to features, beside what entered (b c h w)."""
        size = h.shape[-2:]
        if module.use_linear_projection:
            return module.proj_out(x).unflatten(1, size).permute(0, 3, 1, 2) + h
        return module.proj_out(x.unflatten(1, size).permute(0, 3, 1, 2)) + h

    def feed(self, block: Any, x: Tensor) -> Tensor:
        """Gated feed-forward beside its input (b n c), of which nothing is written into."""
        left, right = block.ff.net[0].proj(block.norm3(x)).chunk(2, dim=-1)
        return block.ff.net[2](F.gelu(right).mul_(left)).add_(x)

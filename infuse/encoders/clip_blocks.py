"""CLIP's transformer blocks as OpenAI's code names their tensors: what small networks that read CLIP's states are made of.

Source: openai/CLIP, model.py (ResidualAttentionBlock); the sort that T2I's style adapter and CoAdapter's fuser use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 8
"""Of every release: shapes do not tell."""


class Block(nn.Module):
    """Full attention, then an MLP of four times the width with a quick GELU; both after a norm, both added."""

    def __init__(self, width: int, heads: int = HEADS) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        heard = self.ln_1(x)
        x = x + self.attn(heard, heard, heard, need_weights=False)[0]
        inner = self.mlp.c_fc(self.ln_2(x))  # type: ignore[operator]
        return x + self.mlp.c_proj(inner * torch.sigmoid(1.702 * inner))  # type: ignore[operator]


def depth(keys: Iterable[str]) -> int:
    """How many blocks a file has, under the name that its authors spelled `transformer_layes`."""
    return 1 + max((int(m[1]) for k in keys if (m := re.match(r"transformer_layes\.(\d+)\.", k))), default=-1)

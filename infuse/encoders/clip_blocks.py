"""CLIP's transformer blocks as OpenAI's code names their tensors: what small networks that read CLIP's states are made of.

Source: openai/CLIP, model.py (ResidualAttentionBlock); the sort that T2I's style adapter and CoAdapter's fuser use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

HEADS = 8
"""Of every release: shapes do not tell."""


class Block(nn.Module):
    """Full attention, then an MLP of four times the width with a quick GELU; both after a norm, both added."""

    def __init__(self, width: int, heads: int = HEADS) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(
            width, heads
        )  # its tensors; what it does stands below, in training as after it
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Module()
        self.mlp.c_fc, self.mlp.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        q, k, v = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (t.unflatten(-1, (self.attn.num_heads, -1)).transpose(1, 2) for t in (q, k, v))
        x = x + self.attn.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        inner = self.mlp.c_fc(self.ln_2(x))  # type: ignore[operator]
        return x + self.mlp.c_proj(inner * torch.sigmoid(1.702 * inner))  # type: ignore[operator]


def depth(keys: Iterable[str]) -> int:
    """How many blocks a file has, under the name that its authors spelled `transformer_layes`."""
    return 1 + max((int(m[1]) for k in keys if (m := re.match(r"transformer_layes\.(\d+)\.", k))), default=-1)

"""A style adapter: learned tokens read all states of a picture, and what they have read are words of the prompt.

Source: TencentARC/T2I-Adapter@16bba67, ldm/modules/encoders/adapter.py (StyleAdapter).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.clip_blocks import HEADS, Block, depth


class StyleAdapter(nn.Module):
    """States of CLIP's image encoder, the last ones without their norm, to tokens for cross-attention."""

    def __init__(self, width: int, context: int, tokens: int, layers: int, heads: int = HEADS) -> None:
        super().__init__()
        self.style_embedding = nn.Parameter(torch.zeros(1, tokens, width))
        self.transformer_layes = nn.Sequential(*(Block(width, heads) for _ in range(layers)))  # sic
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, context))

    def forward(self, states: Float[Tensor, "b n e"]) -> Float[Tensor, "b m d"]:
        learned = self.style_embedding.expand(len(states), -1, -1)
        x = self.transformer_layes(self.ln_pre(torch.cat([states.to(learned.dtype), learned], dim=1)))
        return self.ln_post(x[:, -learned.shape[1] :]) @ self.proj

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], heads: int = HEADS) -> StyleAdapter:
        """From a file's tensors, whose shapes a check has seen."""
        start = next(k for k in tensors if k.endswith("style_embedding")).removesuffix("style_embedding")
        own = {k.removeprefix(start): t for k, t in tensors.items()}
        (_, n, width), context = own["style_embedding"].shape, own["proj"].shape[1]
        with torch.device("meta"):
            out = cls(width, context, n, depth(own), heads)
        out.load_state_dict(own, assign=True)
        return out

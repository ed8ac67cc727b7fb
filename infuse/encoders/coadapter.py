"""CoAdapter's fuser: several T2I-Adapters hear each other once, and each feature is turned up or down, channel by channel.

Every level of every member is one token, a style's tokens are tokens; what attention makes of them are factors.
Source: TencentARC/T2I-Adapter@16bba67, ldm/modules/encoders/adapter.py (CoAdapterFuser).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.clip_blocks import HEADS, Block
from infuse.encoders.t2i_kinds import Fusing, fuser_of

Said = tuple[Tensor, ...] | Tensor
"""What a member says: features (c h w) of each level, or tokens (m d)."""


class Fuser(nn.Module):
    """Its tensors have the names of the original's file. Untrained, its factors are 1: members just add."""

    def __init__(self, numbers: Fusing, heads: int = HEADS) -> None:
        super().__init__()
        width, channels = numbers.width, numbers.channels
        self.task_embedding = nn.Parameter(torch.randn(numbers.tasks, width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(len(channels), width) * width**-0.5)
        self.spatial_feat_mapping = nn.ModuleList(nn.Sequential(nn.SiLU(), nn.Linear(c, width)) for c in channels)
        self.transformer_layes = nn.Sequential(*(Block(width, heads) for _ in range(numbers.layers)))  # sic
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.spatial_ch_projs = nn.ModuleList(nn.Linear(width, c) for c in channels)
        self.seq_proj = nn.Parameter(torch.zeros(width, width))
        for proj in self.spatial_ch_projs:
            nn.init.zeros_(proj.weight)  # type: ignore[arg-type]
            nn.init.zeros_(proj.bias)  # type: ignore[arg-type]

    def forward(
        self, members: Sequence[tuple[int, Said]]
    ) -> tuple[tuple[Tensor, ...] | None, Float[Tensor, "m d"] | None]:
        """(features of each level, tokens) of all members, which come with the row of their task; None where nobody has any.

        A member's weight is in its numbers already, and what attention hears depends on it.
        """
        heard = [self._tokens(task, said) for task, said in members]
        x = self.ln_post(self.transformer_layes(self.ln_pre(torch.cat(heard)[None])))[0]
        maps: list[Tensor] | None = None
        tokens: list[Tensor] = []
        for (_, said), own in zip(members, x.split([len(h) for h in heard]), strict=True):
            if isinstance(said, Tensor):
                tokens.append(said * (1 + own @ self.seq_proj))
                continue
            factors = (1 + proj(v) for proj, v in zip(self.spatial_ch_projs, own, strict=True))
            turned = [f * by[:, None, None] for f, by in zip(said, factors, strict=True)]
            maps = turned if maps is None else [a + b for a, b in zip(maps, turned, strict=True)]
        return None if maps is None else tuple(maps), torch.cat(tokens) if tokens else None

    def _tokens(self, task: int, said: Said) -> Float[Tensor, "n d"]:
        if isinstance(said, Tensor):
            return said + self.task_embedding[task]
        means = [read(f.mean((-2, -1))) for read, f in zip(self.spatial_feat_mapping, said, strict=True)]
        return torch.stack(means) + self.task_embedding[task] + self.positional_embedding

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], heads: int = HEADS) -> Fuser:
        """From a file's tensors. Raises WeightsError if they are not a fuser's."""
        numbers = fuser_of({k: tuple(t.shape) for k, t in tensors.items()}, "this file")
        start = next(k for k in tensors if k.endswith("task_embedding")).removesuffix("task_embedding")
        with torch.device("meta"):
            out = cls(numbers, heads)
        out.load_state_dict({k.removeprefix(start): t for k, t in tensors.items()}, assign=True)
        return out

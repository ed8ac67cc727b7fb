"""From what is known of a picture or face to tokens of the context's width: the five projections of IP-Adapters.

Names of their parameters are those of the files. Source: tencent-ailab/IP-Adapter@62e4af9 (ip_adapter.py, resampler.py,
ip_adapter_faceid.py); IP-Adapter (Ye et al. 2023), sec. 3.2.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from infuse.encoders.ip_kinds import Kind


class Plain(nn.Module):
    """Pooled embedding (b e) to (b n d): one linear layer, one norm."""

    def __init__(self, width: int, n: int, context: int) -> None:
        super().__init__()
        self.n, self.proj, self.norm = n, nn.Linear(width, n * context), nn.LayerNorm(context)

    @classmethod
    def shaped(cls, t: Mapping[str, Tensor], context: int) -> Plain:
        out, width = t["image_proj.proj.weight"].shape
        return cls(width, out // context, context)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.norm(self.proj(pooled).unflatten(-1, (self.n, -1)))


class Full(nn.Module):
    """Every state (b n e) to a token (b n d)."""

    def __init__(self, width: int, inner: int, context: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, context), nn.LayerNorm(context))

    @classmethod
    def shaped(cls, t: Mapping[str, Tensor], context: int) -> Full:
        inner, width = t["image_proj.proj.0.weight"].shape
        return cls(width, inner, context)

    def forward(self, states: Tensor) -> Tensor:
        return self.proj(states)


class Face(nn.Module):
    """A face (b e) to (b n d): two linear layers, one norm (FaceID: 4 tokens; portrait: 16)."""

    def __init__(self, width: int, inner: int, n: int, context: int) -> None:
        super().__init__()
        self.n = n
        self.proj = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, n * context))
        self.norm = nn.LayerNorm(context)

    @classmethod
    def shaped(cls, t: Mapping[str, Tensor], context: int) -> Face:
        inner, width = t["image_proj.proj.0.weight"].shape
        return cls(width, inner, t["image_proj.proj.2.weight"].shape[0] // context, context)

    def forward(self, faces: Tensor) -> Tensor:
        return self.norm(self.proj(faces).unflatten(-1, (self.n, -1)))


class Resampler(nn.Module):
    """Queries read all states: (b n e) to (b q d). Its own learned ones, or (queries None) those that it is given.

    Source: IP-Adapter plus; Perceiver-IO's cross-attention.
    """

    HEAD = 64

    def __init__(
        self,
        width: int,
        inner: int,
        queries: int | None,
        depth: int,
        context: int,
        heads: int | None = None,
        mult: int = 4,
    ) -> None:
        super().__init__()
        self.latents = None if queries is None else nn.Parameter(torch.randn(1, queries, inner) / inner**0.5)
        self.proj_in, self.proj_out, self.norm_out = (
            nn.Linear(width, inner),
            nn.Linear(inner, context),
            nn.LayerNorm(context),
        )
        attended = (heads or inner // self.HEAD) * self.HEAD
        self.layers = nn.ModuleList(
            nn.ModuleList([_Perceive(inner, attended, self.HEAD), _mlp(inner, mult * inner)]) for _ in range(depth)
        )

    @classmethod
    def shaped(cls, t: Mapping[str, Tensor], context: int, prefix: str = "image_proj.") -> Resampler:
        t = {k.removeprefix(prefix): v for k, v in t.items() if k.startswith(prefix)}
        inner, width = t["proj_in.weight"].shape
        return cls(
            width,
            inner,
            t["latents"].shape[1] if "latents" in t else None,
            1 + max(int(m[1]) for k in t if (m := re.match(r"layers\.(\d+)\.", k))),
            context,
            t["layers.0.0.to_q.weight"].shape[0] // cls.HEAD,
            t["layers.0.1.1.weight"].shape[0] // inner,
        )

    def forward(self, states: Tensor, queries: Tensor | None = None) -> Tensor:
        if queries is None:
            assert self.latents is not None
            queries = self.latents.repeat(len(states), 1, 1)
        x, latents = self.proj_in(states), queries
        for attention, mlp in self.layers:  # type: ignore[misc]
            latents = latents + attention(x, latents)
            latents = latents + mlp(latents)
        return self.norm_out(self.proj_out(latents))


class FacePlus(Face):
    """A face's tokens read the states of its picture: (b e), (b n w) to (b q d).

    `shortcut` None: what they read (v1); a number: they themselves and so much of it (v2).
    """

    def __init__(self, width: int, inner: int, n: int, context: int, reader: Resampler) -> None:
        super().__init__(width, inner, n, context)
        self.perceiver_resampler = reader

    @classmethod
    def shaped(cls, t: Mapping[str, Tensor], context: int) -> FacePlus:
        inner, width = t["image_proj.proj.0.weight"].shape
        n = t["image_proj.proj.2.weight"].shape[0] // context
        return cls(width, inner, n, context, Resampler.shaped(t, context, "image_proj.perceiver_resampler."))

    def forward(self, faces: Tensor, states: Tensor, shortcut: float | None = None) -> Tensor:
        own = super().forward(faces)
        read = self.perceiver_resampler(states, own)
        return read if shortcut is None else own + shortcut * read


PROJECTIONS: Mapping[Kind, type[Plain] | type[Full] | type[Face] | type[Resampler]] = {
    "plain": Plain, "full": Full, "plus": Resampler, "faceid": Face, "faceid_plus": FacePlus, "instantid": Resampler,
}  # fmt: skip


def _mlp(width: int, inner: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, inner, bias=False), nn.GELU(), nn.Linear(inner, width, bias=False)
    )


class _Perceive(nn.Module):
    """Latents attend to states and to themselves; q and k each scaled by d^-1/4, as in the original."""

    def __init__(self, width: int, attended: int, head: int) -> None:
        super().__init__()
        self.head = head
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, attended, bias=False)
        self.to_kv = nn.Linear(width, 2 * attended, bias=False)
        self.to_out = nn.Linear(attended, width, bias=False)

    def forward(self, x: Tensor, latents: Tensor) -> Tensor:
        x, latents = self.norm1(x), self.norm2(latents)
        k, v = self.to_kv(torch.cat([x, latents], dim=1)).chunk(2, dim=-1)
        q, k, v = (t.unflatten(-1, (-1, self.head)).transpose(1, 2) for t in (self.to_q(latents), k, v))
        scale = 1 / math.sqrt(math.sqrt(self.head))
        weight = ((q * scale) @ (k * scale).transpose(-2, -1)).float().softmax(-1).to(v.dtype)
        return self.to_out((weight @ v).transpose(1, 2).flatten(2))

"""An IP-Adapter's own modules: a projection from an image encoder's answer to tokens, and K and V for every cross-attention.

Source: IP-Adapter (Ye et al. 2023), sec. 3.2; layouts of the original repository at 62e4af9.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.ip_kinds import variant


class Adapter(nn.Module):
    """An IP-Adapter file: one image projection, and K and V for every cross-attention in the file's own numbering."""

    def __init__(self, kind: str, project: nn.Module, pairs: int, widths: list[int], context: int) -> None:
        super().__init__()
        self.kind, self.project = kind, project
        self.kv = nn.ModuleList(nn.ModuleList(nn.Linear(context, w, bias=False) for _ in range(2)) for w in widths)

    def layer(self, i: int) -> nn.ModuleList:
        """(to_k, to_v) of the i-th cross-attention: down, up, middle."""
        return self.kv[i]  # type: ignore[return-value]

    def tokens(self, states: Float[Tensor, "images ..."]) -> Float[Tensor, "m d"]:
        """Tokens of all pictures, one after another."""
        return self.project(states.to(next(self.parameters()).dtype)).flatten(0, 1)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> Adapter:
        """From the flat keys of an IP-Adapter file (`image_proj.*`, `ip_adapter.N.to_k_ip.weight`)."""
        kind = variant({k: tuple(t.shape) for k, t in tensors.items()}, "this file")
        numbers = sorted({int(m[1]) for k in tensors if (m := re.fullmatch(r"ip_adapter\.(\d+)\.to_k_ip\.weight", k))})
        widths = [tensors[f"ip_adapter.{n}.to_k_ip.weight"].shape[0] for n in numbers]
        context = tensors[f"ip_adapter.{numbers[0]}.to_k_ip.weight"].shape[1]
        project = {"plain": Plain, "full": Full, "plus": Resampler}[kind].shaped(tensors, context)
        with torch.device("meta"):
            out = cls(kind, project, len(numbers), widths, context)
        state = {
            f"kv.{i}.{j}.weight": tensors[f"ip_adapter.{n}.to_{kv}_ip.weight"]
            for i, n in enumerate(numbers)
            for j, kv in enumerate("kv")
        }
        state |= {
            f"project.{k.removeprefix('image_proj.')}": t for k, t in tensors.items() if k.startswith("image_proj.")
        }
        out.load_state_dict(state, assign=True)
        return out

    def save(self) -> dict[str, Tensor]:
        """The file's flat keys; cross-attentions get the odd numbers, as in a full list of attentions."""
        out = {f"image_proj.{k}": t for k, t in self.project.state_dict().items()}
        for i, pair in enumerate(self.kv):
            out |= {f"ip_adapter.{2 * i + 1}.to_{kv}_ip.weight": m.weight for kv, m in zip("kv", pair, strict=True)}  # type: ignore[arg-type]
        return out


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


class Resampler(nn.Module):
    """Learned queries read all states: (b n e) to (b q d). Source: IP-Adapter plus; Perceiver-IO's cross-attention."""

    HEAD = 64

    def __init__(
        self, width: int, inner: int, queries: int, depth: int, context: int, heads: int | None = None, mult: int = 4
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, queries, inner) / inner**0.5)
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
    def shaped(cls, t: Mapping[str, Tensor], context: int) -> Resampler:
        inner, width = t["image_proj.proj_in.weight"].shape
        depth = 1 + max(int(m[1]) for k in t if (m := re.match(r"image_proj\.layers\.(\d+)\.", k)))
        attended = t["image_proj.layers.0.0.to_q.weight"].shape[0]
        return cls(
            width,
            inner,
            t["image_proj.latents"].shape[1],
            depth,
            context,
            attended // cls.HEAD,
            t["image_proj.layers.0.1.1.weight"].shape[0] // inner,
        )

    def forward(self, states: Tensor) -> Tensor:
        x, latents = self.proj_in(states), self.latents.repeat(len(states), 1, 1)
        for attention, mlp in self.layers:  # type: ignore[misc]
            latents = latents + attention(x, latents)
            latents = latents + mlp(latents)
        return self.norm_out(self.proj_out(latents))


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

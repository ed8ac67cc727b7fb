"""A picture as a prompt: tokens of an image encoder, attended beside the text with K and V of their own.

Source: IP-Adapter (Ye et al. 2023), sec. 3.2; layouts of the original repository at 62e4af9. Three projections are
known here: plain (pooled embedding to a few tokens), full (every state through an MLP) and plus (a resampler).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from infuse.conditions.base import Condition, Encoders, Route, View, same_family
from infuse.errors import RecipeError, WeightsError
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Decoupled, Ports, Sides

Pictures = Annotated[
    tuple[Picture, ...],
    BeforeValidator(lambda v: v if isinstance(v, tuple) else tuple(v) if isinstance(v, list) else (v,)),
    Field(min_length=1),
]


class IPAdapter(Condition):
    """Prompt with one or several pictures. Several pictures of one condition share a softmax; several conditions add.

    layers: one factor per cross-attention (16 in SD 1.x, 70 in SDXL; down, up, middle), for style or layout only.
    image_encoder: where the CLIP vision model lies, if the base does not bring the right one.
    """

    kind: Literal["ip_adapter"] = "ip_adapter"
    model: str = Field(default="ip-adapter", min_length=1)
    image: Pictures
    image_encoder: str | None = None
    layers: tuple[float, ...] | None = None

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "ip_adapter")
        same_family(self.model, found.context_width, net, "an IP-Adapter")
        kind = variant(found.shapes, self.model)
        want = int(found.shapes[KINDS[kind]][1]) if kind != "full" else int(found.shapes["image_proj.proj.0.weight"][1])
        have = view.vision(self.image_encoder)
        if have is None:
            raise WeightsError(
                "image_encoder",
                f"the base {net.name!r} brings no image encoder, and {self.model!r} needs one of width "
                f"{want}. Name a CLIP vision folder here.",
            )
        width = have.hidden if kind != "plain" else have.projection
        if width != want:
            raise WeightsError(
                "image_encoder",
                f"{self.model!r} was trained on an image encoder of width {want}{_named(want, kind)}; "
                f"{have.name} gives {width}{_named(width, kind)}. Name the right CLIP vision folder here.",
            )
        if self.layers is not None and len(self.layers) != len(net.cross_layers):
            raise RecipeError(
                "layers", f"{len(self.layers)} factors, but {net.name} has {len(net.cross_layers)} cross-attentions."
            )
        pairs = len({k for k in found.shapes if k.endswith("to_k_ip.weight")})
        if pairs != len(net.cross_layers):
            raise WeightsError(
                "model",
                f"{self.model!r} has {pairs} pairs of K and V, {net.name} has {len(net.cross_layers)} "
                "cross-attentions. This adapter belongs to another base.",
            )
        return [
            Route(
                "decoupled", f"tokens (m {net.context_width}) of {len(self.image)} picture(s)", found.memory, note=kind
            )
        ]

    def encode(self, kit: Encoders) -> Sides:
        adapter = kit.module(self.model, Adapter.load)
        hidden = adapter.kind != "plain"
        states = torch.stack([kit.look(p, self.image_encoder, hidden) for p in self.image])
        # off = projection of zeros (plain) or of the states of a zero picture, never absence (IP-Adapter sec. 3.2)
        silent = kit.look(None, self.image_encoder, hidden) if hidden else torch.zeros_like(states[0])
        on, off = adapter.tokens(states), adapter.tokens(silent.expand_as(states))
        return Sides(
            Ports(decoupled=(Decoupled(adapter, on, self.layers),)),
            Ports(decoupled=(Decoupled(adapter, off, self.layers),)),
        )

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"ip_adapter": kit.module(self.model, Adapter.load)}


KINDS = {"plain": "image_proj.proj.weight", "full": "image_proj.proj.3.weight", "plus": "image_proj.proj_in.weight"}


def variant(shapes: Mapping[str, Any], model: str) -> str:
    """Which projection a file holds, by its tensors. Raises WeightsError for those that need faces."""
    if "image_proj.perceiver_resampler.proj_in.weight" in shapes or (
        "image_proj.proj.2.weight" in shapes and "image_proj.norm.weight" in shapes
    ):
        raise WeightsError(
            "model",
            f"{model!r} is a FaceID adapter: it needs face vectors, not pictures. Use a plain, plus or full one.",
        )
    if "image_proj.latents" in shapes and shapes["image_proj.proj_in.weight"][1] == 512:
        raise WeightsError(
            "model",
            f"{model!r} belongs to InstantID: it needs face vectors, not pictures. Use a plain, plus or full one.",
        )
    for kind in ("full", "plain", "plus"):
        if KINDS[kind] in shapes:
            return kind
    raise WeightsError("model", f"{model!r} has no image projection that is known here. Is it an IP-Adapter?")


def _named(width: int, kind: str) -> str:
    names = (
        {1024: " (ViT-H)", 1280: " (bigG)", 768: " (ViT-L)"}
        if kind == "plain"
        else {1280: " (ViT-H)", 1664: " (bigG)", 1024: " (ViT-L)"}
    )
    return names.get(width, "")


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

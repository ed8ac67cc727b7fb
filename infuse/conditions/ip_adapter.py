"""A picture as a prompt: tokens of an image encoder, attended beside the text with K and V of their own.

Source: IP-Adapter (Ye et al. 2023), sec. 3.2; layouts of the original repository at 62e4af9. Three projections are
known here: plain (pooled embedding to a few tokens), full (every state through an MLP) and plus (a resampler).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from infuse.conditions.base import Condition, Encoders, Look, Route, View, overlooked, same_family, squares
from infuse.encoders.ip_kinds import KINDS, variant
from infuse.errors import RecipeError, WeightsError
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Decoupled, Ports, Sides

if TYPE_CHECKING:
    from torch import nn

Pictures = Annotated[
    tuple[Picture, ...],
    BeforeValidator(lambda v: v if isinstance(v, tuple) else tuple(v) if isinstance(v, list) else (v,)),
    Field(min_length=1),
]


class IPAdapter(Condition):
    """Prompt with one or several pictures. Several pictures of one condition share a softmax; several conditions add.

    layers: one factor per cross-attention (16 in SD 1.x, 70 in SDXL; down, up, middle), for style or layout only.
    image_encoder: where the CLIP vision model lies, if it is neither beside the adapter's file, where releases have it, nor
    the base's own. fit: what is seen of a picture
    that is no square: its middle (crop), all of it between bars (pad), or one square after another (tiles).
    """

    kind: Literal["ip_adapter"] = "ip_adapter"
    model: str = Field(default="ip-adapter", min_length=1)
    image: Pictures
    image_encoder: str | None = None
    layers: tuple[float, ...] | None = None
    fit: Look = "crop"

    def settled(self, view: View) -> IPAdapter:
        if self.image_encoder is not None:
            return self
        try:
            kind, want = reads(view.identity(self.model, "model", "ip_adapter").shapes, self.model)
            beside = (place for place in view.eyes(self.model) if seen(view.vision(place), kind) == want)
            place = next(beside, None)
        except WeightsError:  # `check` says so under its field
            return self
        return self if place is None else self.model_copy(update={"image_encoder": place})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "ip_adapter")
        same_family(self.model, found.context_width, net, "an IP-Adapter")
        kind, want = reads(found.shapes, self.model)
        have = view.vision(self.image_encoder)
        if have is None:
            raise WeightsError(
                "image_encoder",
                f"the base {net.name!r} brings no image encoder, and {self.model!r} needs one of width "
                f"{want}. Name a CLIP vision folder here.",
            )
        width = seen(have, kind)
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
        notes = [n for i, p in enumerate(self.image) for n in overlooked(p, f"image.{i}", self.fit)]
        count = sum(len(squares(p, self.fit)) for p in self.image)
        what = f"tokens (m {net.context_width}) of {count} picture{'s' if count > 1 else ''}"
        return [Route("decoupled", what, found.memory, note=kind, warnings=tuple(notes))]

    def encode(self, kit: Encoders) -> Sides:
        import torch

        from infuse.encoders.ip_adapter import Adapter

        adapter = kit.module(self.model, Adapter.load)
        hidden = adapter.kind != "plain"
        states = torch.stack(
            [kit.look(s, self.image_encoder, hidden) for p in self.image for s in squares(p, self.fit)]
        )
        # off = projection of zeros (plain) or of the states of a zero picture, never absence (IP-Adapter sec. 3.2)
        silent = kit.look(None, self.image_encoder, hidden) if hidden else torch.zeros_like(states[0])
        on, off = adapter.tokens(states), adapter.tokens(silent.expand_as(states))
        return Sides(
            Ports(decoupled=(Decoupled(adapter, on, self.layers),)),
            Ports(decoupled=(Decoupled(adapter, off, self.layers),)),
        )

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        from infuse.encoders.ip_adapter import Adapter

        return {"ip_adapter": kit.module(self.model, Adapter.load)}


def reads(shapes: Mapping[str, tuple[int, ...]], model: str) -> tuple[str, int]:
    """(projection of an adapter's file, width of the image encoder that it reads)."""
    kind = variant(shapes, model)
    return kind, int(shapes["image_proj.proj.0.weight" if kind == "full" else KINDS[kind]][1])


def seen(eye: Any, kind: str) -> int:
    """What an image encoder shows to a projection of this kind: its states, or their pooled embedding."""
    return eye.projection if kind == "plain" else eye.hidden


def _named(width: int, kind: str) -> str:
    names = (
        {1024: " (ViT-H)", 1280: " (bigG)", 768: " (ViT-L)"}
        if kind == "plain"
        else {1280: " (ViT-H)", 1664: " (bigG)", 1024: " (ViT-L)"}
    )
    return names.get(width, "")

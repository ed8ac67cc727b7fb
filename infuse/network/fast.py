"""The same layers in fewer steps: what does not change is kept, sums are made in place, rows that are alike are walked as one.

The modules' own forward is the specification (`walk.Plain`); this is its other way of computing, for calls without gradients.
Both give the same numbers up to the rounding of sums. What is left out: divisions by 1, the second row of guidance before
anybody heard words, keys and values of words in every step but the first, diffusers' bookkeeping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from infuse.constants import indices
from infuse.network.attention import Heard, PortedAttention
from infuse.network.parts import Parts
from infuse.spoken import Spoken

BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UNetMidBlock2DCrossAttn", "UNetMidBlock2D")  # fmt: skip
"""Whose parts the walk visits in their order."""
WALKED = ("UNet2DConditionModel", "ControlNetModel", "Union")
"""Networks of which that is the whole forward."""


def walkable(net: Any) -> bool:
    """Is this a network whose own forward is the walk, and nobody has put another in its place?"""
    known = net.__dict__.get("_infuse_walkable")
    if known is None:
        known = net.__dict__["_infuse_walkable"] = _walkable(net)
    return known and not any(map(watched, (net, *net.down_blocks, *getattr(net, "up_blocks", ()), net.mid_block)))


def watched(module: Any) -> bool:
    """Does somebody else want to know when it is called, or answers in its stead?"""
    return module is not None and bool(
        module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    )


def _walkable(net: Any) -> bool:
    blocks = [*getattr(net, "down_blocks", ()), *getattr(net, "up_blocks", ())]
    blocks += [net.mid_block] if getattr(net, "mid_block", None) is not None else []
    config = getattr(net, "config", {})
    return (
        bool(blocks)
        and isinstance(net, nn.Module)
        and type(net).__name__ in WALKED
        and all(type(b).__name__ in BLOCKS for b in blocks)
        and not config.get("center_input_sample")
        and not config.get("dual_cross_attention")
        and not config.get("encoder_hid_dim_type")
        and getattr(net, "time_embed_act", None) is None
    )


def settled(net: Any) -> None:
    """Convolutions of numbers of two bytes read and write channels last, as their kernels want it: once, in place."""
    first = net.conv_in.weight
    if first.element_size() == 2 and not first.is_contiguous(memory_format=torch.channels_last):
        net.to(memory_format=torch.channels_last)


@dataclass(frozen=True, eq=False)
class Alike:
    """Rows that begin alike: `first` of each kind, and which of them each row is."""

    rows: int
    first: Tensor
    spread: Tensor

    def of(self, told: dict[str, Any]) -> dict[str, Any]:
        """What the first of each kind is told: diffusers' arguments for embeddings."""
        return {k: self.of(v) if isinstance(v, dict) else v[self.first] for k, v in told.items()}


def shared(context: Spoken, same: Sequence[int] | None) -> Alike | None:
    """What rows have in common until they hear these words. same: for each row the first one that it is like; None: all differ."""
    if same is None:
        return None
    kinds, device = list(dict.fromkeys(same)), context.values.device
    spread = [kinds.index(i) for i in same]
    return context.once(("alike", same), lambda: Alike(len(same), indices(kinds, device), indices(spread, device)))


class Fast:
    """Layers of one call. `alike`: rows that have heard the same so far; they part where they are told different words."""

    def __init__(self, context: Tensor, heard: Heard, parts: Parts, alike: Alike | None = None) -> None:
        self.context, self.heard, self.parts, self.alike = context, heard, parts, alike
        fused = heard.kwargs.get("gligen")
        self.fused = fused["objs"] if fused else ()
        self._emb: dict[int, tuple[Tensor, Tensor]] = {}

    def whole(self, h: Tensor) -> Tensor:
        return h if self.alike is None or len(h) == self.alike.rows else h[self.alike.spread]

    def time(self, emb: Tensor, like: Tensor, act: Any) -> Tensor:
        """The embedding behind its nonlinearity, for as many rows as there are: the same in all resnets of a call."""
        kept = self._emb.get(len(like))
        if kept is None or kept[0] is not emb:
            said = act(emb)
            kept = self._emb[len(like)] = (emb, said if len(said) == len(like) else self.whole(said))
        return kept[1]

    def resnet(self, module: Any, h: Tensor, emb: Tensor) -> Tensor:
        """A ResnetBlock2D without scale, shift or resampling; of any other kind its own forward."""
        if not plain_resnet(module) or watched(module):
            return module(h, emb if len(emb) == len(h) else self.whole(emb))
        project = module.time_emb_proj
        return self.parts.resnet(module, h, project and project(self.time(emb, h, module.nonlinearity)))

    def attended(self, module: Any, h: Tensor) -> Tensor:
        """A Transformer2DModel of pictures."""
        if not plain_transformer(module) or watched(module):
            whole = self.whole(h)
            said = self.heard.kwargs
            return module(whole, encoder_hidden_states=self.context, cross_attention_kwargs=said, return_dict=False)[0]
        x = self.parts.entrance(module, h)
        for block in module.transformer_blocks:
            x = self.block(block, x)
        return self.parts.exit(module, x, self.whole(h))

    def block(self, block: Any, x: Tensor) -> Tensor:
        """Self-attention, whoever speaks between (GLIGEN), words and pictures, feed-forward; each beside its input."""
        if watched(block):
            whole = self.whole(x)
            return block(whole, encoder_hidden_states=self.context, cross_attention_kwargs=self.heard.kwargs)
        x = self.ask(block.attn1, block.norm1(x), None).add_(x)
        x = self.whole(x)
        if self.fused:
            x = block.fuser(x, self.fused)
        x = self.ask(block.attn2, block.norm2(x), self.context).add_(x)
        gate = block.ff.net[0]
        if watched(block.ff) or watched(gate):
            return block.ff(block.norm3(x)) + x  # what somebody looks at is not written into
        return self.parts.feed(block, x)

    def ask(self, attention: Any, x: Tensor, words: Tensor | None) -> Tensor:
        if watched(attention):
            return attention(x, encoder_hidden_states=words, heard=self.heard).clone()
        return attention.processor(attention, x, words, heard=self.heard)


def plain_resnet(module: Any) -> bool:
    """Kept on the module, as asking costs as much as a small layer."""
    known: bool | None = module.__dict__.get("_infuse_plain")
    if known is None:
        known = module.__dict__["_infuse_plain"] = bool(
            type(module) is ResnetBlock2D
            and module.upsample is None
            and module.downsample is None
            and module.time_embedding_norm == "default"
            and not module.skip_time_act
            and module.output_scale_factor == 1
            and isinstance(module.nonlinearity, nn.SiLU)
            and module.dropout.p == 0
        )
    return known


def plain_transformer(module: Any) -> bool:
    """The same of a transformer."""
    known: bool | None = module.__dict__.get("_infuse_plain")
    if known is None:
        known = module.__dict__["_infuse_plain"] = bool(
            type(module) is Transformer2DModel
            and module.is_input_continuous
            and all(map(plain_block, module.transformer_blocks))
        )
    return known


def plain_block(block: Any) -> bool:
    return bool(
        type(block) is BasicTransformerBlock
        and block.norm_type == "layer_norm"
        and block.pos_embed is None
        and block.attn2 is not None
        and not block.only_cross_attention
        and block._chunk_size is None
        and isinstance(block.ff.net[0], GEGLU)
        and len(block.ff.net) == 3
        and block.ff.net[1].p == 0
        and all(isinstance(a.processor, PortedAttention) for a in (block.attn1, block.attn2))
        and all(a.spatial_norm is None and a.group_norm is None and not a.residual_connection and a.rescale_output_factor == 1
                for a in (block.attn1, block.attn2))
    )  # fmt: skip

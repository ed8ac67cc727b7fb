"""One walk through the modules of a UNet, with a stop at every site: after each layer and each change of scale.

diffusers' own forward lets information in at the skips and the middle only. BrushNet speaks, and is heard, at all places
between `conv_in` and the last decoder layer; so UNet, BrushNet and a ControlNet's encoder are walked alike, and what happens at
a site is the visitor's business. *How* a layer is computed is an argument, too: by the modules' own forward (`Plain`, the
specification: with a visitor that changes nothing, the walk equals the UNet's own forward bit for bit), or in fewer steps
(`network.fast`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, Protocol

import torch
from torch import Tensor


class Visitor(Protocol):
    """What happens on the way. Whatever it answers is added; None: nothing."""

    def embedding(self, time: Tensor, emb: Tensor) -> Tensor | None:
        """Asked once, before anything else: for the embedding (b e) that all layers hear, of which `time` is the timestep's part."""

    def first(self, h: Tensor) -> Tensor | None:
        """Asked after the first convolution, before its features are stored as a skip."""

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        """Asked at every site, in order: after the first convolution, each layer and downsampler, the middle block, each layer and
        upsampler. `h` is what that part answered, `before` what went into it (in the decoder, without the skip)."""


class Layers(Protocol):
    """How layers are computed. Rows that are alike may be walked as one, up to where they hear different words."""

    context: Tensor
    """Tokens (b n d)."""

    def resnet(self, module: Any, h: Tensor, emb: Tensor) -> Tensor: ...

    def attended(self, module: Any, h: Tensor) -> Tensor:
        """A spatial transformer's answer."""
        ...

    def whole(self, h: Tensor) -> Tensor:
        """All rows of features."""
        ...


class Plain:
    """The modules' own forward. `attention`: the arguments of every attention processor."""

    def __init__(self, context: Tensor, attention: Mapping[str, Any]) -> None:
        self.context, self.attention = context, dict(attention)

    def resnet(self, module: Any, h: Tensor, emb: Tensor) -> Tensor:
        return module(h, emb)

    def attended(self, module: Any, h: Tensor) -> Tensor:
        return module(
            h, encoder_hidden_states=self.context, cross_attention_kwargs=dict(self.attention), return_dict=False
        )[0]

    def whole(self, h: Tensor) -> Tensor:
        return h


class Deep:
    """What lies below the outermost level: the features with which the last block on the way up begins, (b c h w). Where they are
    there already, no more than the outermost level is walked; else they are there afterwards."""

    def __init__(self, features: Tensor | None = None) -> None:
        self.features, self.known = features, features is not None


class Stroll:
    """A visitor that changes nothing; others say what they do otherwise."""

    def embedding(self, time: Tensor, emb: Tensor) -> Tensor | None:
        return None

    def first(self, h: Tensor) -> Tensor | None:
        return None

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        return None


class Ask:
    """Everyone on one walk: each is shown the same features, and what they say is summed."""

    def __init__(self, visitors: Sequence[Visitor]) -> None:
        self.visitors = visitors

    def embedding(self, time: Tensor, emb: Tensor) -> Tensor | None:
        return total([v.embedding(time, emb) for v in self.visitors])

    def first(self, h: Tensor) -> Tensor | None:
        return total([v.first(h) for v in self.visitors])

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        return total([v(h, before) for v in self.visitors])


def total(said: Sequence[Tensor | None]) -> Tensor | None:
    """The sum of what was said; None if nobody said anything."""
    heard = [t for t in said if t is not None]
    return reduce(torch.add, heard) if heard else None


def walk(
    unet: Any,
    x: Tensor,
    timestep: Tensor,
    layers: Layers,
    visitor: Visitor,
    *,
    residuals: Callable[[], Sequence[Tensor] | None] | None = None,
    features: Sequence[Tensor] | None = None,
    embedding: Mapping[str, Any] | None = None,
    deep: Deep | None = None,
) -> Tensor:
    """Features before the output head, (b width h w).

    `residuals` are ControlNet's, added to the skips and, the last one, after the middle block: they are asked for when the way down
    is done, so that they can be computed meanwhile. `features` are a T2I-Adapter's, added where diffusers adds them; `embedding` holds diffusers' timestep_cond, class_labels and
    added_cond_kwargs. `deep`: what is kept of the walk, or known of it from another one; then residuals are those of the outermost
    level, and the visitor is asked there only.
    Sites: PowerPaint's BrushNet_CA at open-mmlab/PowerPaint@5b4c3d5; the outermost skip is stored before its site.
    """
    time, emb = embedded(unet, x, timestep, layers.context, embedding or {})
    emb = added(emb, visitor.embedding(time, emb))
    h = unet.conv_in(x)
    h = added(h, visitor.first(h))
    known = deep is not None and deep.known
    h, stored, levels = encode(unet, h, emb, layers, visitor, features, outermost=known)
    said, middle = residuals() if residuals is not None else None, None
    if said is not None:
        *skips, middle = said
        stored = [layers.whole(s) + r for s, r in zip(stored, skips, strict=True)]
    if not known:
        before = h
        h = bottom(unet, h, emb, layers)
        if levels and levels[0].shape == h.shape:
            h = h + levels.pop(0)
        h = visited(added(h, middle), before, visitor)
    for block in unet.up_blocks[-1:] if known else unet.up_blocks:
        if deep is not None and block is unet.up_blocks[-1]:
            h = deep.features = h if deep.features is None else deep.features
        for i in range(len(block.resnets)):
            below = torch.cat([h, layers.whole(stored.pop())], dim=1)
            h = visited(layer(block, i, below, emb, layers), h, visitor)
        for upsampler in block.upsamplers or ():
            h = visited(upsampler(h, stored[-1].shape[-2:]), h, visitor)
    return h


def embedded(unet: Any, x: Tensor, timestep: Tensor, context: Tensor, said: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """(the timestep's embedding, the same with all that is summed to it), (b e)."""
    emb = time = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep), said.get("timestep_cond"))
    of_class = unet.get_class_embed(sample=x, class_labels=said.get("class_labels"))
    emb = emb if of_class is None else emb + of_class
    more = unet.get_aug_embed(
        emb=emb, encoder_hidden_states=context, added_cond_kwargs=said.get("added_cond_kwargs") or {}
    )
    return time, emb if more is None else emb + more


def encode(
    net: Any,
    h: Tensor,
    emb: Tensor,
    layers: Layers,
    visitor: Visitor,
    features: Sequence[Tensor] | None = None,
    outermost: bool = False,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The way down from the first convolution's features: (the last ones, what is stored for the way up, features not yet added).
    outermost: the first block's layers only."""
    levels, stored = list(features or ()), [h]
    h = visited(h, h, visitor)
    for block in net.down_blocks[:1] if outermost else net.down_blocks:
        attends = bool(getattr(block, "attentions", None))
        for i in range(len(block.resnets)):
            answer = layer(block, i, h, emb, layers)
            if attends and levels and i == len(block.resnets) - 1:
                answer = answer + levels.pop(0)
            h = visited(answer, h, visitor)
            stored.append(h)
        if outermost:
            break
        for downsampler in block.downsamplers or ():
            h = visited(downsampler(h), h, visitor)
            stored.append(h)
        if not attends and levels:  # diffusers adds in place, so that the stored skip has it, too
            h = stored[-1] = layers.whole(h) + levels.pop(0)
    return h, stored, levels


def bottom(net: Any, h: Tensor, emb: Tensor, layers: Layers) -> Tensor:
    """The middle block's answer."""
    h = layers.whole(h)
    if net.mid_block is None:
        return h
    h = layers.resnet(net.mid_block.resnets[0], h, emb)
    for module, resnet in zip(net.mid_block.attentions, net.mid_block.resnets[1:], strict=True):
        h = layers.resnet(resnet, h if module is None else layers.attended(module, h), emb)
    return h


def layer(block: Any, i: int, h: Tensor, emb: Tensor, layers: Layers) -> Tensor:
    """A resnet, and the transformer behind it if there is one."""
    h = layers.resnet(block.resnets[i], h, emb)
    module = block.attentions[i] if getattr(block, "attentions", None) else None
    return h if module is None else layers.attended(module, h)


def visited(h: Tensor, before: Tensor, visitor: Visitor) -> Tensor:
    return added(h, visitor(h, before))


def added(h: Tensor, more: Tensor | None) -> Tensor:
    return h if more is None else h + more


def head(unet: Any, h: Tensor) -> Tensor:
    """The UNet's answer from its last features."""
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(h)))


def site_widths(unet: Any) -> tuple[list[int], int, list[int]]:
    """Channels at each site: (down, middle, up). Down begins with conv_in."""
    down = [unet.conv_in.out_channels]
    for block in unet.down_blocks:
        n = len(block.resnets) + len(block.downsamplers or ())
        down += [block.resnets[0].out_channels] * n
    up = []
    for block in unet.up_blocks:
        n = len(block.resnets) + len(block.upsamplers or ())
        up += [block.resnets[0].out_channels] * n
    return down, down[-1], up

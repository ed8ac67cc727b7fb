"""One walk through the modules of a UNet, with a stop at every site: after each layer and each change of scale.

diffusers' own forward lets information in at the skips and the middle only. BrushNet speaks, and is heard, at all places
between `conv_in` and the last decoder layer; so UNet and BrushNet are walked alike, and what happens at a site is the
visitor's business. With a visitor that changes nothing, this equals the UNet's own forward bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Visitor = Callable[[Tensor], Tensor]
"""What happens at a site: called in order (down, middle, up) with the features there, returns what goes on."""


def walk(
    unet: Any,
    x: Tensor,
    timestep: Tensor,
    context: Tensor,
    attention: Mapping[str, Any],
    visit: Visitor,
    *,
    skips: Sequence[Tensor] | None = None,
    middle: Tensor | None = None,
    embedding: Mapping[str, Any] | None = None,
) -> Tensor:
    """Features before the output head, (b width h w).

    `attention` are the arguments of every attention processor; `skips` and `middle` are ControlNet's residuals, added to
    the skips and after the middle block; `embedding` holds diffusers' timestep_cond and added_cond_kwargs.
    Sites: PowerPaint's BrushNet_CA at open-mmlab/PowerPaint@5b4c3d5; the outermost skip is stored before its site.
    """
    said: Any = embedding or {}
    emb = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep), said.get("timestep_cond"))
    more = unet.get_aug_embed(
        emb=emb, encoder_hidden_states=context, added_cond_kwargs=said.get("added_cond_kwargs") or {}
    )
    emb = emb if more is None else emb + more

    def layer(block: Any, i: int, h: Tensor) -> Tensor:
        h = block.resnets[i](h, emb)
        return attended(block.attentions[i], h) if getattr(block, "attentions", None) else h

    def attended(module: Any, h: Tensor) -> Tensor:
        if module is None:
            return h
        return module(h, encoder_hidden_states=context, cross_attention_kwargs=dict(attention), return_dict=False)[0]

    h = unet.conv_in(x)
    stored = [h]
    h = visit(h)
    for block in unet.down_blocks:
        for i in range(len(block.resnets)):
            h = visit(layer(block, i, h))
            stored.append(h)
        for downsampler in block.downsamplers or ():
            h = visit(downsampler(h))
            stored.append(h)
    if skips is not None:
        stored = [s + r for s, r in zip(stored, skips, strict=True)]
    if unet.mid_block is not None:
        h = unet.mid_block.resnets[0](h, emb)
        for module, resnet in zip(unet.mid_block.attentions, unet.mid_block.resnets[1:], strict=True):
            h = resnet(attended(module, h), emb)
    h = visit(h if middle is None else h + middle)
    for block in unet.up_blocks:
        for i in range(len(block.resnets)):
            h = visit(layer(block, i, torch.cat([h, stored.pop()], dim=1)))
        for upsampler in block.upsamplers or ():
            h = visit(upsampler(h, stored[-1].shape[-2:]))
    return h


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

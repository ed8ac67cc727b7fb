"""Branch networks answer for the rows that carry them: ControlNets and BrushNets, what they hear and how loudly they are heard.

A ControlNet is an encoder with a middle (`walk.encode`, `walk.bottom`) that is shown a hint, and a convolution for each of its
answers. Its own forward is diffusers'; without gradients it is walked in fewer steps, its hint embedded once for a run.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.controlnets.controlnet import ControlNetModel
from jaxtyping import Float
from torch import Tensor

from infuse.constants import indices
from infuse.grids import halved
from infuse.network.attention import Heard
from infuse.network.fast import Fast, settled, shared, walkable
from infuse.network.parts import Parts
from infuse.network.union import Union
from infuse.network.walk import Stroll, bottom, encode
from infuse.network.walk import embedded as time_of
from infuse.spoken import Batch, Spoken, SpokenResidual


def branch_answer(
    said: SpokenResidual, batch: Batch, levels: Sequence[int] | None = None, parts: Parts | None = None
) -> list[Float[Tensor, "k c h w"]]:
    """One branch for the rows that carry it: its residuals, shallow to middle, weighed per site and masked.

    A branch hears the 4-channel latent, the embedding of its rows, and their text tokens or its own; never image tokens
    or extra channels (ControlNet sec. 3; specification of the combination: original IP-Adapter repository).
    `levels`, those of the base's sites, spread what a globally pooled ControlNet says; without them it stays as said.
    parts: how what is between products is computed; None: always as the modules' own forward has it.
    """
    if remembered(said, batch, "use"):
        told = [batch.memory[row].answers[key] for row, key in keys(said)]
        return weighed(said, [torch.stack(site) for site in zip(*told, strict=True)])
    rows, x = said.rows, batch.x[said.rows]
    context = said.context or subset(batch.context, said.where)
    heard = Heard(context)
    attention = heard.kwargs
    said_too = embedded({k: v[rows] for k, v in batch.embedding.items() if hears(said.branch, k)})
    network = getattr(said.branch, "network", said.branch)
    fast = parts is not None and not torch.is_grad_enabled() and walkable(network)
    if fast:
        settled(network)
    if getattr(said.branch, "place", "skips") == "inside":
        more = {"layers": Fast(context.values, heard, parts)} if parts is not None and fast else {}
        answer = said.branch(x, batch.timestep[rows], said.hints, context.values, attention, said_too, **more)
    elif parts is not None and fast and type(said.branch) is ControlNetModel:
        answer = levelled(*controlnet(said, x, batch.timestep[rows], said_too, heard, parts), levels, x)
    else:
        own: dict[str, Any] = {"vectors": said.vectors, "parts": said.parts}
        if parts is not None and fast and isinstance(said.branch, Union):
            own["layers"] = Fast(context.values, heard, parts)
        down, middle = said.branch(
            x,
            batch.timestep[rows],
            encoder_hidden_states=context.values,
            controlnet_cond=said.hints,
            conditioning_scale=1.0,
            cross_attention_kwargs=attention,
            return_dict=False,
            **said_too,
            **{k: v for k, v in own.items() if v is not None},
        )
        answer = levelled(down, middle, levels, x)
    if remembered(said, batch, "make"):
        for n, (row, key) in enumerate(keys(said)):
            batch.memory[row].answers[key] = tuple(r[n].clone() for r in answer)
    return weighed(said, answer)


def weighed(said: SpokenResidual, answer: Sequence[Tensor]) -> list[Tensor]:
    """What was answered at each site, as loud and there where each row hears it."""
    out = [r * said.weights[:, i, None, None, None].to(r.dtype) for i, r in enumerate(answer)]
    return out if all(m is None for m in said.masks) else [r * regions_of(said, r) for r in out]


def remembered(said: SpokenResidual, batch: Batch, use: str) -> bool:
    """Is what this branch says made to be kept, or is what was kept used, in this call (`lossy.controlnet_every`)?"""
    return (
        batch.shortcut is not None
        and batch.shortcut.branches == use
        and getattr(said.branch, "place", "skips") == "skips"
    )


def keys(said: SpokenResidual) -> list[tuple[int, Hashable]]:
    """(row, under what its memory has the answer) of each of a branch's rows: a row may ask a branch more than once."""
    seen: dict[int, int] = {}
    out: list[tuple[int, Hashable]] = []
    for row in said.where:
        seen[row] = seen.get(row, 0) + 1
        out.append((row, (said.through, seen[row])))
    return out


def levelled(
    down: Sequence[Tensor], middle: Tensor, levels: Sequence[int] | None, x: Float[Tensor, "k c h w"]
) -> Sequence[Tensor]:
    """All answers in order, at the resolutions of the base's sites."""
    grid = (int(x.shape[-2]), int(x.shape[-1]))
    return [*down, middle] if levels is None else spread([*down, middle], levels, grid)


def hears(branch: Any, slot: str) -> bool:
    """Has this branch a place for what an embedding slot holds? One that was trained beside a plain base has none for a guidance
    scale, a class vector or a noise level."""
    network = getattr(branch, "network", branch)
    if slot == "guidance":
        return getattr(network.time_embedding, "cond_proj", None) is not None
    if slot in CLASS:
        return getattr(network, "class_embedding", None) is not None
    return getattr(network, "add_embedding", None) is not None


def spread(answer: Sequence[Tensor], levels: Sequence[int], grid: tuple[int, int]) -> list[Tensor]:
    """Answers (k c 1 1) of a globally pooled ControlNet (shuffle), heard at every place of their sites; others as they are.

    Before masks and sums: a region is one of the site's places, and other branches have answers for each of them.
    """
    return [r.expand(*r.shape[:2], *halved(grid, n)) for r, n in zip(answer, levels, strict=True)]


def regions_of(said: SpokenResidual, answer: Float[Tensor, "k c h w"]) -> Float[Tensor, "k 1 h w"]:
    """Where each row is heard, at the resolution of one site: everywhere, unless it has a mask."""
    size = (int(answer.shape[-2]), int(answer.shape[-1]))
    everywhere = answer.new_ones(1, *size)
    if ("where", size) not in said.kept or torch.is_grad_enabled():
        masks = [
            None if m is None else F.interpolate(m[None, None].to(answer), size=size, mode="bilinear")[0]
            for m in said.masks
        ]
        said.kept["where", size] = torch.stack([everywhere if m is None else m for m in masks])
    return said.kept["where", size]


def subset(context: Spoken, rows: Sequence[int]) -> Spoken:
    """The context of some rows only; of some frames, which then are rows, if it is that of clips. Kept with the context."""
    return context.once(("rows", tuple(rows)), lambda: _subset(context, rows))


def _subset(context: Spoken, rows: Sequence[int]) -> Spoken:
    if context.frames > 1:
        flat = None if context.bias is None else _frame_bias(context)
        values = context.values.repeat_interleave(context.frames, 0)
        spread = [
            (i * context.frames + j, here, mask) for i, here, mask in context.regions for j in range(context.frames)
        ]
        context = Spoken(values, flat, tuple(spread), context.grid)
    regions = tuple((k, here, mask) for k, row in enumerate(rows) for i, here, mask in context.regions if i == row)
    i = indices(rows, context.values.device)
    return Spoken(context.values[i], None if context.bias is None else context.bias[i], regions, context.grid)


def _frame_bias(context: Spoken) -> Tensor:
    assert context.bias is not None
    return context.bias.flatten(0, 1) if context.bias.ndim == 3 else context.bias.repeat_interleave(context.frames, 0)


def controlnet(
    said: SpokenResidual,
    x: Float[Tensor, "k 4 h w"],
    timestep: Tensor,
    told: dict[str, Any],
    heard: Heard,
    parts: Parts,
) -> tuple[list[Float[Tensor, "k c h w"]], Float[Tensor, "k c h w"]]:
    """A stock ControlNet's residuals, shallow to deep, and its middle's. Rows that are told and shown the same are walked as one
    up to where they hear different words."""
    net: Any = said.branch
    assert heard.context is not None
    alike = shared(heard.context, said.same)
    layers = Fast(heard.context.values, heard, parts, alike)
    hints = said.hints if alike is None else said.hints[alike.first]
    if alike is not None:
        x, timestep, told = x[alike.first], timestep[alike.first], alike.of(told)
    mark = ("hint", net.controlnet_cond_embedding.conv_in.weight._version, len(hints))
    if mark not in said.kept:
        shown = hints.flip(1) if net.config["controlnet_conditioning_channel_order"] == "bgr" else hints
        said.kept[mark] = net.controlnet_cond_embedding(shown)
    _, emb = time_of(_Embedding(net), x, timestep, layers.context, told)
    h, stored, _ = encode(net, net.conv_in(x).add_(said.kept[mark]), emb, layers, Stroll())
    h = bottom(net, h, emb, layers)
    down = [layers.whole(conv(s)) for conv, s in zip(net.controlnet_down_blocks, stored, strict=True)]
    middle = net.controlnet_mid_block(h)
    if net.config["global_pool_conditions"]:
        return [r.mean((2, 3), keepdim=True) for r in down], middle.mean((2, 3), keepdim=True)
    return down, middle


class _Embedding:
    """What a UNet has methods for, a ControlNet does in its forward: the embedding of time, class and sizes."""

    def __init__(self, net: Any) -> None:
        self.net, self.time_embedding = net, net.time_embedding

    def get_time_embed(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return self.net.time_proj(timestep).to(sample.dtype)

    def get_class_embed(self, sample: Tensor, class_labels: Tensor | None) -> Tensor | None:
        if self.net.class_embedding is None:
            return None
        assert class_labels is not None, "a class was not told"
        told = self.net.time_proj(class_labels) if self.net.config["class_embed_type"] == "timestep" else class_labels
        return self.net.class_embedding(told).to(sample.dtype)

    def get_aug_embed(self, emb: Tensor, encoder_hidden_states: Tensor, added_cond_kwargs: Any) -> Tensor | None:
        match self.net.config["addition_embed_type"]:
            case "text":
                return self.net.add_embedding(encoder_hidden_states)
            case "text_time":
                ids = self.net.add_time_proj(added_cond_kwargs["time_ids"].flatten()).reshape(len(emb), -1)
                return self.net.add_embedding(torch.cat([added_cond_kwargs["text_embeds"], ids], -1).to(emb.dtype))
        return None


CLASS = ("image_embeds", "noise_level")
"""Slots that a network hears through its class embedding: unCLIP's vector, the upscaler's noise level."""


def embedded(slots: dict[str, Tensor]) -> dict[str, Any]:
    """Embedding slots as the arguments diffusers has for them."""
    out: dict[str, Any] = {}
    if "time_ids" in slots:
        out["added_cond_kwargs"] = {"text_embeds": slots["text_embeds"], "time_ids": slots["time_ids"]}
    if "guidance" in slots:
        out["timestep_cond"] = slots["guidance"]
    if "image_embeds" in slots:
        out["class_labels"] = slots["image_embeds"]
    if "noise_level" in slots:
        out["class_labels"] = slots["noise_level"][:, 0].round().long()
    return out

"""A base network answers a batch: through diffusers' public arguments, the specification.

Only where a branch speaks inside of the blocks, which those arguments cannot say, does `walk` visit the same modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.grids import halved, resized
from infuse.network.attention import Heard, Projections, install
from infuse.network.edits import Edits, listen, telling
from infuse.network.spec import NetworkSpec
from infuse.network.walk import Ask, Stroll, Visitor, head, walk
from infuse.spoken import Batch, Spoken, SpokenResidual


class Network:
    """One UNet2DConditionModel and what it answers. Holds no state of any job.

    `calls` counts network evaluations, `branch_calls` those of branch networks (ControlNet and its kin).
    """

    def __init__(self, unet: nn.Module, spec: NetworkSpec) -> None:
        self.unet, self.spec = unet, spec
        self.calls = self.branch_calls = 0
        self._stacks: dict[Any, dict[Any, Any]] = {}
        install(unet, tuple(path for path, _ in spec.cross_layers))
        listen(unet, "unet")

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def predict(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """What the base model answers (epsilon or v), whatever the rows ask for. One call of the UNet."""
        skips = self.answers(batch, speaking(batch, "skips"))
        sites = self.answers(batch, speaking(batch, "inside"))
        attention = self.heard(batch).kwargs
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        visitors: list[Visitor] = [Sites(sites)] if sites is not None else []
        visitors += [Lockstep(said, batch) for said in speaking(batch, "lockstep")]
        visitors += [Norms(batch)] if any(e.norms for s in batch.shared for e in s.entries) else []
        self.calls += 1
        with telling(self.edits(batch)):
            if visitors:
                self.branch_calls += sum(isinstance(v, Lockstep) for v in visitors)
                h = walk(
                    self.unet, x, batch.timestep, batch.context.values, attention, Ask(visitors), features=batch.features,
                    skips=skips[:-1] if skips else None, middle=skips[-1] if skips else None, embedding=embedded(batch.embedding),
                )  # fmt: skip
                return head(self.unet, h)[: batch.asked]
            return self.unet(
                x,
                batch.timestep,
                encoder_hidden_states=batch.context.values,
                cross_attention_kwargs=attention,
                down_block_additional_residuals=skips and tuple(skips[:-1]),
                mid_block_additional_residual=skips and skips[-1],
                down_intrablock_additional_residuals=batch.features and list(batch.features),  # diffusers empties it
                return_dict=False,
                **embedded(batch.embedding),
            )[0][: batch.asked]

    def edits(self, batch: Batch) -> Edits | None:
        """What LoRAs say to the layers in this call. Stacked factors are kept while the same networks speak to the same rows."""
        if not batch.edits:
            return None
        who = tuple((id(e.entry.network), e.rows) for e in batch.edits)
        if who not in self._stacks:
            self._stacks = {who: {}}
        frames = int(batch.x.shape[2]) if batch.x.ndim == 5 else 1
        grid = (int(batch.x.shape[-2]), int(batch.x.shape[-1]))
        return Edits(batch.edits, len(batch.x) * frames, frames, grid, self._stacks[who])

    def heard(self, batch: Batch) -> Heard:
        """What every attention is told. Hints of branches that speak there are embedded once for the call."""
        grid = (int(batch.x.shape[-2]), int(batch.x.shape[-1]))
        speakers = speaking(batch, "projections")
        self.branch_calls += len(speakers)
        at = tuple(Projections(s, s.branch.embedded(s.hints), grid) for s in speakers)  # type: ignore[operator]
        return Heard(batch.context, batch.decoupled, at, batch.shared)

    def answers(self, batch: Batch, speakers: Sequence[SpokenResidual]) -> list[Tensor] | None:
        """The sum of some branches' answers, per site; None if there are none."""
        total: list[Tensor] | None = None
        for said in speakers:
            self.branch_calls += 1
            answer = branch_answer(said, batch, self.spec.levels)
            if total is None:
                total = [r.new_zeros(len(batch.x), *r.shape[1:]) for r in answer]
            total = [t.index_add(0, said.rows, r) for t, r in zip(total, answer, strict=True)]
        return total


def speaking(batch: Batch, place: str) -> list[SpokenResidual]:
    """The branches that speak at this place of the base: ControlNets at the skips, unless they say otherwise."""
    return [s for s in batch.residuals if getattr(s.branch, "place", "skips") == place]


class Sites(Stroll):
    """What BrushNets answered, at one site after another."""

    def __init__(self, answers: Sequence[Tensor]) -> None:
        self.answers = iter(answers)

    def __call__(self, h: Tensor, before: Tensor) -> Tensor:
        return next(self.answers)


class Lockstep:
    """A branch that walks beside the base (ControlNet-XS), for the rows that carry it."""

    def __init__(self, said: SpokenResidual, batch: Batch) -> None:
        self.said, self.batch, self.rows = said, batch, said.rows
        self.beside: Any = None
        self.began = False

    def _spread(self, more: Tensor | None, like: Tensor) -> Tensor | None:
        return None if more is None else torch.zeros_like(like).index_add(0, self.rows, more.to(like.dtype))

    def embedding(self, time: Tensor, emb: Tensor) -> Tensor | None:
        x, t = self.batch.x[self.rows], self.batch.timestep[self.rows]
        context = self.said.context or subset(self.batch.context, self.rows)
        branch: Any = self.said.branch
        self.beside = branch.begin(x, t, emb[self.rows], self.said.hints, context, self.said.weights, self.said.masks)
        return self._spread(self.beside.embedding(time[self.rows], emb[self.rows]), emb)

    def first(self, h: Tensor) -> Tensor | None:
        return self._spread(self.beside.first(h[self.rows]), h)

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        if not self.began:  # after the first convolution it has spoken already
            self.began = True
            return None
        return self._spread(self.beside(h[self.rows], before[self.rows]), h)


class Norms(Stroll):
    """Features of a row take over mean and spread of those of a picture that runs beside it (adaptive instance norm).

    Of several pictures, means and variances are averaged. Source: Mikubill/sd-webui-controlnet@56cec5b (reference_adain).
    """

    def __init__(self, batch: Batch) -> None:
        self.batch, self.site = batch, -1

    def __call__(self, h: Tensor, before: Tensor) -> Tensor | None:
        site, self.site = self.site, self.site + 1
        out: Tensor | None = None
        for said in self.batch.shared:
            here = [(i, e) for i, e in zip(said.shadows, said.entries, strict=True) if site in e.norms and e.share]
            if not here:
                continue
            x, them = h[said.row], h[[i for i, _ in here]]
            mean = them.mean((2, 3), keepdim=True).mean(0)
            spread = them.var((2, 3), keepdim=True, correction=0).clamp(min=1e-6).mean(0).sqrt()
            own = x.var((1, 2), keepdim=True, correction=0).clamp(min=1e-6).sqrt()
            more = (x - x.mean((1, 2), keepdim=True)) / own * spread + mean - x
            more = more * sum(e.share * e.voice.weight for _, e in here) / len(here)
            masks = [e.voice.mask for _, e in here]
            if all(
                m is not None for m in masks
            ):  # somebody who is heard everywhere is heard outside of others' regions, too
                size = (int(x.shape[-2]), int(x.shape[-1]))
                more = more * torch.stack([resized(m, size).to(x) for m in masks if m is not None]).amax(0)
            out = torch.zeros_like(h) if out is None else out
            out[said.row] = more
        return out


def branch_answer(
    said: SpokenResidual, batch: Batch, levels: Sequence[int] | None = None
) -> list[Float[Tensor, "k c h w"]]:
    """One branch for the rows that carry it: its residuals, shallow to middle, weighed per site and masked.

    A branch hears the 4-channel latent, the embedding of its rows, and their text tokens or its own; never image tokens
    or extra channels (ControlNet sec. 3; specification of the combination: original IP-Adapter repository).
    `levels`, those of the base's sites, spread what a globally pooled ControlNet says; without them it stays as said.
    """
    rows, x = said.rows, batch.x[said.rows]
    context = said.context or subset(batch.context, rows)
    attention = Heard(context).kwargs
    said_too = embedded({k: v[rows] for k, v in batch.embedding.items() if hears(said.branch, k)})
    if getattr(said.branch, "place", "skips") == "inside":
        answer = said.branch(x, batch.timestep[rows], said.hints, context.values, attention, said_too)
    else:
        own = {"vectors": said.vectors, "parts": said.parts}
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
        answer = (
            [*down, middle] if levels is None else spread([*down, middle], levels, (int(x.shape[-2]), int(x.shape[-1])))
        )
    out = [r * said.weights[:, i, None, None, None].to(r.dtype) for i, r in enumerate(answer)]
    return out if all(m is None for m in said.masks) else [r * regions_of(said, r) for r in out]


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
    masks = [
        None if m is None else F.interpolate(m[None, None].to(answer), size=size, mode="bilinear")[0]
        for m in said.masks
    ]
    return torch.stack([everywhere if m is None else m for m in masks])


def subset(context: Spoken, rows: Tensor) -> Spoken:
    """The context of some rows only; of some frames, which then are rows, if it is that of clips."""
    if context.frames > 1:
        flat = None if context.bias is None else _frame_bias(context)
        values = context.values.repeat_interleave(context.frames, 0)
        spread = [
            (i * context.frames + j, here, mask) for i, here, mask in context.regions for j in range(context.frames)
        ]
        context = Spoken(values, flat, tuple(spread), context.grid)
    regions = tuple(
        (k, here, mask) for k, row in enumerate(rows.tolist()) for i, here, mask in context.regions if i == row
    )
    return Spoken(context.values[rows], None if context.bias is None else context.bias[rows], regions, context.grid)


def _frame_bias(context: Spoken) -> Tensor:
    assert context.bias is not None
    return context.bias.flatten(0, 1) if context.bias.ndim == 3 else context.bias.repeat_interleave(context.frames, 0)


def guidance_vector(scale: float, width: int) -> Float[Tensor, " e"]:
    """How a distilled network (LCM) is told a guidance scale: sinusoids of w = scale - 1, in thousandths.

    In float32, operation by operation as diffusers' LatentConsistencyModelPipeline, since 1000 w magnifies every last bit.
    """
    half = width // 2
    w = torch.tensor(scale - 1, dtype=torch.float32) * 1000.0
    step = torch.log(torch.tensor(10000.0)) / (half - 1)
    angles = w * torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    return F.pad(torch.cat([angles.sin(), angles.cos()]), (0, width % 2))


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

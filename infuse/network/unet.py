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

from infuse.batch import Batch, Spoken, SpokenResidual, halved
from infuse.network.attention import install
from infuse.network.spec import NetworkSpec
from infuse.network.walk import head, walk


class Network:
    """One UNet2DConditionModel and what it answers. Holds no state of any job.

    `calls` counts network evaluations, `branch_calls` those of branch networks (ControlNet and its kin).
    """

    def __init__(self, unet: nn.Module, spec: NetworkSpec) -> None:
        self.unet, self.spec = unet, spec
        self.calls = self.branch_calls = 0
        install(unet, tuple(path for path, _ in spec.cross_layers))

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.unet.parameters()).dtype

    def predict(self, batch: Batch) -> Float[Tensor, "b c h w"]:
        """What the base model answers (epsilon or v), whatever the rows ask for. One call of the UNet."""
        skips = self.answers(batch, [s for s in batch.residuals if not inside(s)])
        sites = self.answers(batch, [s for s in batch.residuals if inside(s)])
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        self.calls += 1
        attention = {"context": batch.context, "decoupled": batch.decoupled}
        if sites is not None:
            heard = iter(sites)
            h = walk(
                self.unet, x, batch.timestep, batch.context.values, attention, lambda h: h + next(heard),
                skips=skips[:-1] if skips else None, middle=skips[-1] if skips else None, embedding=embedded(batch.embedding),
            )  # fmt: skip
            return head(self.unet, h)
        return self.unet(
            x,
            batch.timestep,
            encoder_hidden_states=batch.context.values,
            cross_attention_kwargs=attention,
            down_block_additional_residuals=skips and tuple(skips[:-1]),
            mid_block_additional_residual=skips and skips[-1],
            return_dict=False,
            **embedded(batch.embedding),
        )[0]

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


def inside(said: SpokenResidual) -> bool:
    """Does this branch speak inside of the blocks (BrushNet), instead of at the skips and the middle (ControlNet)?"""
    return getattr(said.branch, "inside", False)


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
    said_too = embedded(
        {k: v[rows] for k, v in batch.embedding.items() if k != "guidance" or hears_guidance(said.branch)}
    )
    if inside(said):
        answer = said.branch(x, batch.timestep[rows], said.hints, context.values, {"context": context}, said_too)
    else:
        down, middle = said.branch(
            x,
            batch.timestep[rows],
            encoder_hidden_states=context.values,
            controlnet_cond=said.hints,
            conditioning_scale=1.0,
            cross_attention_kwargs={"context": context},
            return_dict=False,
            **said_too,
        )
        answer = (
            [*down, middle] if levels is None else spread([*down, middle], levels, (int(x.shape[-2]), int(x.shape[-1])))
        )
    out = [r * said.weights[:, i, None, None, None].to(r.dtype) for i, r in enumerate(answer)]
    return out if all(m is None for m in said.masks) else [r * regions_of(said, r) for r in out]


def hears_guidance(branch: Any) -> bool:
    """Has this branch a place for a guidance scale? One that was trained beside a plain base has not."""
    return getattr(getattr(branch, "network", branch).time_embedding, "cond_proj", None) is not None


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


def embedded(slots: dict[str, Tensor]) -> dict[str, Any]:
    """Embedding slots as the arguments diffusers has for them."""
    out: dict[str, Any] = {}
    if "time_ids" in slots:
        out["added_cond_kwargs"] = {"text_embeds": slots["text_embeds"], "time_ids": slots["time_ids"]}
    if "guidance" in slots:
        out["timestep_cond"] = slots["guidance"]
    return out

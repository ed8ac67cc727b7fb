"""A base network answers a batch. This is the plain way, through diffusers' public arguments: the specification."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.batch import Batch, Spoken, SpokenResidual
from infuse.network.attention import install
from infuse.network.spec import NetworkSpec


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
        down, middle = self.residuals(batch)
        x = batch.x if batch.channels is None else torch.cat([batch.x, batch.channels], dim=1)
        self.calls += 1
        return self.unet(
            x,
            batch.timestep,
            encoder_hidden_states=batch.context.values,
            cross_attention_kwargs={"context": batch.context, "decoupled": batch.decoupled},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
            **embedded(batch.embedding),
        )[0]

    def residuals(self, batch: Batch) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
        """The sum of all branches' answers, per site; (None, None) if no branch speaks."""
        total: list[Tensor] | None = None
        for said in batch.residuals:
            self.branch_calls += 1
            answer = branch_answer(said, batch)
            if total is None:
                total = [r.new_zeros(len(batch.x), *r.shape[1:]) for r in answer]
            total = [t.index_add(0, said.rows, r) for t, r in zip(total, answer, strict=True)]
        return (None, None) if total is None else (tuple(total[:-1]), total[-1])


def branch_answer(said: SpokenResidual, batch: Batch) -> list[Float[Tensor, "k c h w"]]:
    """One branch for the rows that carry it: its residuals, shallow to middle, weighed per site and masked.

    A ControlNet hears the 4-channel latent, the text tokens and the embedding of its rows; never image tokens or
    extra channels (ControlNet sec. 3; specification of the combination: original IP-Adapter repository).
    """
    rows = said.rows
    down, middle = said.branch(
        batch.x[rows],
        batch.timestep[rows],
        encoder_hidden_states=batch.context.values[rows],
        controlnet_cond=said.hints,
        conditioning_scale=1.0,
        cross_attention_kwargs={"context": subset(batch.context, rows)},
        return_dict=False,
        **embedded({k: v[rows] for k, v in batch.embedding.items()}),
    )
    out = [r * said.weights[:, i, None, None, None].to(r.dtype) for i, r in enumerate([*down, middle])]
    for k, mask in enumerate(said.masks):
        if mask is not None:
            for r in out:
                size = (int(r.shape[-2]), int(r.shape[-1]))
                r[k] = r[k] * F.interpolate(mask[None, None].to(r), size=size, mode="bilinear")[0]
    return out


def subset(context: Spoken, rows: Tensor) -> Spoken:
    """The context of some rows only."""
    regions = tuple(
        (k, here, mask) for k, row in enumerate(rows.tolist()) for i, here, mask in context.regions if i == row
    )
    return Spoken(context.values[rows], None if context.bias is None else context.bias[rows], regions, context.grid)


def embedded(slots: dict[str, Tensor]) -> dict[str, Any]:
    """Embedding slots as the arguments diffusers has for them."""
    out: dict[str, Any] = {}
    if "time_ids" in slots:
        out["added_cond_kwargs"] = {"text_embeds": slots["text_embeds"], "time_ids": slots["time_ids"]}
    if "guidance" in slots:
        out["timestep_cond"] = slots["guidance"]
    return out

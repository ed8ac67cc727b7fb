"""Clips as their frames: what attention and branch networks see of a batch of clips is a batch of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from infuse.spoken import Batch, Spoken, SpokenDecoupled, SpokenResidual


def unrolled(batch: Batch) -> Batch:
    """A batch of clips (b c f h w) as one of pictures (b*f c h w): what attention and branch networks see of it.

    `context.values` stay one per clip; a video UNet repeats them itself, a branch is handed them by `subset`.
    """
    b, _, f = batch.x.shape[:3]
    pictures = batch.x.transpose(1, 2).flatten(0, 1)
    context: Spoken = batch.context.once(("frames", f), lambda: replace(batch.context, frames=f, cache={}))
    return Batch(
        pictures,
        batch.timestep.repeat_interleave(f),
        None,
        context,
        tuple(_adapter_frames(d, f) for d in batch.decoupled),
        tuple(_branch_frames(r, f) for r in batch.residuals),
        {k: v.repeat_interleave(f, 0) for k, v in batch.embedding.items()},
        None if batch.features is None else tuple(level.transpose(1, 2).flatten(0, 1) for level in batch.features),
        shortcut=batch.shortcut,
        memory=tuple(m.of(j) for m in batch.memory for j in range(f)),
    )


def _every(rows: Tensor, f: int) -> Tensor:
    """Indices of all frames of these rows."""
    return (rows[:, None] * f + torch.arange(f, device=rows.device)).flatten()


def _loudness(weights: Tensor, frames: Sequence[tuple[float, ...] | None], f: int) -> Tensor:
    """(k, ...) weights of rows to (k*f, ...) weights of frames."""
    spread = weights.repeat_interleave(f, 0)
    each = [w for row in frames for w in (row or (1.0,) * f)] or [1.0] * len(spread)
    return spread * spread.new_tensor(each).reshape(-1, *(1,) * (spread.ndim - 1))


def _adapter_frames(said: SpokenDecoupled, f: int) -> SpokenDecoupled:
    own = said.tokens.values.ndim == 4  # tokens of its own for every frame

    def spread() -> Spoken:
        values, bias = (
            t if t is None else t.flatten(0, 1) if own else t.repeat_interleave(f, 0)
            for t in (said.tokens.values, said.tokens.bias)
        )
        assert values is not None
        return Spoken(values, bias, grid=said.tokens.grid)

    edited = said.edited and (_every(said.edited[0], f), said.edited[1].repeat_interleave(f, 0))
    return replace(
        said,
        rows=_every(said.rows, f),
        tokens=said.tokens.once(("frames", f), spread),
        weights=_loudness(said.weights, said.frames, f),
        layers=None if said.layers is None else said.layers.repeat_interleave(f, 0),
        masks=tuple(m for m in said.masks for _ in range(f)),
        edited=edited,
    )


def _branch_frames(said: SpokenResidual, f: int) -> SpokenResidual:
    hints = said.hints if said.hints.ndim == 5 else said.hints[:, :, None].expand(-1, -1, f, -1, -1)
    return replace(
        said,
        rows=_every(said.rows, f),
        hints=hints.transpose(1, 2).flatten(0, 1),
        weights=_loudness(said.weights, said.frames, f),
        masks=tuple(m for m in said.masks for _ in range(f)),
        vectors=None if said.vectors is None else said.vectors.repeat_interleave(f, 0),
        same=None,
        where=tuple(row * f + j for row in said.where for j in range(f)),
    )

"""The only code that knows there is more than one job: rows go in, one batch of tensors comes out.

Nothing in a batch couples its rows: tokens are padded behind a bias, adapters and branches carry the indices of the
rows they speak to, empty slots get their ground value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Decoupled, Ports, Residual, Tokens, Vector


@dataclass(frozen=True, eq=False)
class Row:
    """One evaluation of the network for one job."""

    x: Float[Tensor, "c h w"]
    """The latent as the solver scaled it."""
    timestep: Float[Tensor, ""]
    ports: Ports


@dataclass(frozen=True, eq=False)
class Spoken:
    """Padded tokens of some rows, with what their attention must know."""

    values: Float[Tensor, "k n d"]
    bias: Float[Tensor, "k n"] | None
    """log(weight) per token, -inf for padding; None when all are plain."""
    regions: tuple[tuple[int, slice, Tensor], ...] = ()
    """(row, its tokens, mask (height width)): these tokens are heard inside the mask only."""
    grid: tuple[int, int] = (1, 1)
    cache: dict[int, Tensor | None] = field(default_factory=dict)

    def bias_for(self, queries: int) -> Float[Tensor, "k 1 q n"] | None:
        """The additive bias for a layer with that many queries."""
        if queries not in self.cache:
            self.cache[queries] = self._bias(queries)
        return self.cache[queries]

    def _bias(self, queries: int) -> Tensor | None:
        if self.bias is None and not self.regions:
            return None
        flat = self.bias if self.bias is not None else self.values.new_zeros(self.values.shape[:2])
        if not self.regions:
            return flat[:, None, None]
        full = flat[:, None, None].repeat(1, 1, queries, 1)
        for row, tokens, mask in self.regions:
            full[row, 0, :, tokens] += on_grid(mask, self.grid, queries).clamp(1e-9, 1).log()[:, None].to(full)
        return full


@dataclass(frozen=True, eq=False)
class SpokenDecoupled:
    """One adapter's tokens for the rows that carry it."""

    adapter: nn.Module
    rows: Tensor
    tokens: Spoken
    weights: Float[Tensor, " k"]
    layers: Float[Tensor, "k layers"] | None
    masks: tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class SpokenResidual:
    """One branch's hints for the rows that carry it."""

    branch: nn.Module
    rows: Tensor
    hints: Float[Tensor, "k c height width"]
    weights: Float[Tensor, "k sites"]
    masks: tuple[Tensor | None, ...]


@dataclass(frozen=True, eq=False)
class Batch:
    """Everything one network call needs."""

    x: Float[Tensor, "b c h w"]
    timestep: Float[Tensor, " b"]
    channels: Float[Tensor, "b e h w"] | None
    context: Spoken
    decoupled: tuple[SpokenDecoupled, ...]
    residuals: tuple[SpokenResidual, ...]
    embedding: dict[str, Tensor]


def collate(rows: Sequence[Row], spec: NetworkSpec) -> Batch:
    """Rows of one latent shape to one batch. Rows may differ in everything else."""
    x = torch.stack([r.x for r in rows])
    grid = (int(x.shape[-2]), int(x.shape[-1]))
    timestep = torch.stack([r.timestep.to(x.device, torch.float32) for r in rows])
    channels = None
    if spec.channel_slots:
        filled = [
            [fill(s, [c for c in r.ports.channels if c.slot == s.name], r.x) for s in spec.channel_slots] for r in rows
        ]
        channels = torch.stack([torch.cat(slots) for slots in filled])
    return Batch(
        x,
        timestep,
        channels,
        tokens([r.ports.context for r in rows], grid),
        tuple(decoupled(*group, grid) for group in grouped(rows, lambda p: p.decoupled, lambda e: e.adapter)),
        tuple(residual(*group, spec) for group in grouped(rows, lambda p: p.residuals, lambda e: e.branch)),
        {s: torch.stack([mix(r.ports.embedding, s, x) for r in rows]) for s in spec.embedding_slots},
    )


def fill(slot: Any, entries: Sequence[Channel], x: Tensor) -> Float[Tensor, "c h w"]:
    """ground + sum of weight * mask * (value - ground): at weight 0 the slot holds what it holds without a condition."""
    ground = next((e.value for e in entries if e.ground), None)
    out = base = x.new_full((slot.channels, *x.shape[1:]), slot.default) if ground is None else ground
    for e in entries:
        if e.ground:
            continue
        if e.voice.weight == 1 and e.voice.mask is None and slot.exclusive:
            return e.value  # type: ignore[return-value]
        mask = 1.0 if e.voice.mask is None else resized(e.voice.mask, (x.shape[-2], x.shape[-1])).to(x)
        out = out + e.voice.weight * mask * (e.value - base)  # type: ignore[operator]
    return out  # type: ignore[return-value]


def mix(entries: Sequence[Vector], slot: str, like: Tensor) -> Float[Tensor, " e"]:
    """The same rule for a vector slot."""
    mine = [e for e in entries if e.slot == slot]
    base = next((e.value for e in mine if e.ground), None)
    out = base
    for e in mine:
        if not e.ground:
            said: Any = e.voice.weight  # a number by now: `Ports.at` has asked the curve
            out = said * e.value if out is None else out + said * (e.value - (0 if base is None else base))
    assert out is not None, f"nobody speaks for the embedding slot {slot!r}"
    return out.to(like.device)


def tokens(spoken: Sequence[Sequence[Tokens]], grid: tuple[int, int]) -> Spoken:
    """Concatenate each row's tokens, pad rows to one length; a bias only if something must be hidden or weighed."""
    lengths = [sum(len(t.values) for t in row) for row in spoken]
    n = max(lengths)
    values = torch.stack(
        [F.pad(torch.cat([t.values for t in row]), (0, 0, 0, n - m)) for row, m in zip(spoken, lengths, strict=True)]
    )
    regions, plain = [], all(m == n for m in lengths)
    bias = values.new_zeros(len(spoken), n)
    for i, (row, m) in enumerate(zip(spoken, lengths, strict=True)):
        bias[i, m:] = -math.inf
        at = 0
        for t in row:
            here = slice(at, at := at + len(t.values))
            if t.voice.weight != 1:
                plain, bias[i, here] = False, math.log(t.voice.weight)  # type: ignore[arg-type]
            if t.voice.mask is not None:
                regions.append((i, here, t.voice.mask))
    return Spoken(values, None if plain else bias, tuple(regions), grid)


def grouped(
    rows: Sequence[Row], port: Callable[[Ports], Sequence[Any]], key: Callable[[Any], nn.Module]
) -> list[tuple[list[int], list[Any]]]:
    """Entries of one port, grouped by the module they speak through: [(row indices, entries)] in first-seen order."""
    seen: dict[int, int] = {}
    items = [(i, e) for i, r in enumerate(rows) for e in port(r.ports)]
    order = sorted(items, key=lambda ie: seen.setdefault(id(key(ie[1])), len(seen)))
    return [
        ([i for i, _ in g], [e for _, e in g])
        for g in (list(g) for _, g in groupby(order, key=lambda ie: id(key(ie[1]))))
    ]


def decoupled(rows: list[int], entries: list[Decoupled], grid: tuple[int, int]) -> SpokenDecoupled:
    """One adapter, all rows that carry it (a row may carry it more than once)."""
    said = tokens([[Tokens(e.tokens)] for e in entries], grid)
    v = said.values
    layers = None
    if any(e.layers is not None for e in entries):
        n = max(len(e.layers or ()) for e in entries)
        layers = v.new_tensor([e.layers or (1.0,) * n for e in entries])
    return SpokenDecoupled(
        entries[0].adapter,
        torch.tensor(rows, device=v.device),
        said,
        v.new_tensor([e.voice.weight for e in entries]),
        layers,
        tuple(e.voice.mask for e in entries),
    )


def residual(rows: list[int], entries: list[Residual], spec: NetworkSpec) -> SpokenResidual:
    """One branch, all rows that carry it, with each entry's weight per site."""
    hints = torch.stack([e.hint for e in entries])
    weights = hints.new_tensor([[e.voice.weight * s for s in e.sites or (1.0,) * spec.sites] for e in entries])  # type: ignore[operator]
    return SpokenResidual(
        entries[0].branch, torch.tensor(rows, device=hints.device), hints, weights, tuple(e.voice.mask for e in entries)
    )


def resized(mask: Float[Tensor, "height width"], size: tuple[int, int], mode: str = "bilinear") -> Float[Tensor, "h w"]:
    """A mask at another resolution."""
    return F.interpolate(mask[None, None].float(), size=size, mode=mode)[0, 0]


def level(grid: tuple[int, int], queries: int) -> tuple[int, int]:
    """Which halving of the latent grid has that many places."""
    h, w = grid
    while h * w > queries and h * w > 1:
        h, w = -(-h // 2), -(-w // 2)
    assert h * w == queries, f"no level of a {grid} latent has {queries} places"
    return h, w


def on_grid(mask: Float[Tensor, "height width"], grid: tuple[int, int], queries: int) -> Float[Tensor, " q"]:
    """A mask on the query grid of an attention layer, bicubic as in diffusers' IP-Adapter masks."""
    return resized(mask, level(grid, queries), "bicubic").flatten()

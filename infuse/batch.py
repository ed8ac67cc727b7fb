"""The only code that knows there is more than one job: rows go in, one batch of tensors comes out.

Nothing in a batch couples its rows: tokens are padded behind a bias, adapters and branches carry the indices of the
rows they speak to, empty slots get their ground value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.ports import Channel, Decoupled, Ports, Residual, Tokens, Vector


class Slots(Protocol):
    """What a batch must know of the network that will read it."""

    @property
    def channel_slots(self) -> Sequence[Any]: ...
    @property
    def embedding_slots(self) -> Mapping[str, int]: ...
    @property
    def sites(self) -> int: ...


@dataclass(frozen=True, eq=False)
class Row:
    """One evaluation of the network for one job."""

    x: Float[Tensor, "c h w"] | Float[Tensor, "c f h w"]
    """The latent as the solver scaled it; a clip has its frames beside its channels."""
    timestep: Float[Tensor, ""]
    ports: Ports


@dataclass(frozen=True, eq=False)
class Spoken:
    """Padded tokens of some rows, with what their attention must know."""

    values: Float[Tensor, "k n d"]
    bias: Float[Tensor, "k n"] | Float[Tensor, "k f n"] | None
    """log(weight) per token (and frame), -inf for padding; None when all are plain."""
    regions: tuple[tuple[int, slice, Tensor], ...] = ()
    """(row, its tokens, mask (height width)): these tokens are heard inside the mask only."""
    grid: tuple[int, int] = (1, 1)
    frames: int = 1
    """Of a clip: its attention sees every frame as a row of its own."""
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
        flat = flat.flatten(0, 1) if flat.ndim == 3 else flat.repeat_interleave(self.frames, 0)
        if not self.regions:
            return flat[:, None, None]
        full = flat[:, None, None].repeat(1, 1, queries, 1)
        for row, tokens, mask in self.regions:
            here = slice(row * self.frames, (row + 1) * self.frames)
            full[here, 0, :, tokens] += on_grid(mask, self.grid, queries).clamp(1e-9, 1).log()[:, None].to(full)
        return full


@dataclass(frozen=True, eq=False)
class SpokenDecoupled:
    """One adapter's tokens for the rows that carry it."""

    adapter: nn.Module
    rows: Tensor
    tokens: Spoken
    weights: Float[Tensor, " k"]
    """Of each row; of each frame, once a clip's rows are unrolled."""
    layers: Float[Tensor, "k layers"] | None
    masks: tuple[Tensor | None, ...]
    frames: tuple[tuple[float, ...] | None, ...] = ()


@dataclass(frozen=True, eq=False)
class SpokenResidual:
    """One branch's hints for the rows that carry it."""

    branch: nn.Module
    rows: Tensor
    hints: Float[Tensor, "k c height width"]
    weights: Float[Tensor, "k sites"]
    masks: tuple[Tensor | None, ...]
    context: Spoken | None = None
    """Tokens of the branch's own; None: it hears those of its rows."""
    frames: tuple[tuple[float, ...] | None, ...] = ()
    """Weight of each frame of a clip, for each row; None: all the same."""


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


def collate(rows: Sequence[Row], spec: Slots) -> Batch:
    """Rows of one latent shape to one batch. Rows may differ in everything else.

    Whatever of a row comes to decide a shape or a kernel here, `network.call.structure` must know of.
    """
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
        tuple(decoupled(*group, grid) for group in grouped(rows, lambda p: p.decoupled, lambda e: id(e.adapter))),
        tuple(
            residual(*group, spec, grid)
            for group in grouped(
                rows, lambda p: p.residuals, lambda e: (id(e.branch), bool(e.context), tuple(e.hint.shape))
            )
        ),
        {s: torch.stack([mix(r.ports.embedding, s, x) for r in rows]) for s in spec.embedding_slots},
    )


def fill(slot: Any, entries: Sequence[Channel], x: Tensor) -> Float[Tensor, "c h w"]:
    """ground + sum of weight * mask * (value - ground): at weight 0 the slot holds what it holds without a condition."""
    ground = next((e.value for e in entries if e.ground), None)
    out = base = x.new_full((slot.channels, *x.shape[1:]), slot.default) if ground is None else ground
    for e in entries:
        if e.ground:
            continue
        if e.voice.weight == 1 and e.voice.mask is None and e.voice.frames is None and slot.exclusive:
            return e.value  # type: ignore[return-value]
        mask = 1.0 if e.voice.mask is None else resized(e.voice.mask, (x.shape[-2], x.shape[-1])).to(x)
        if e.voice.frames is not None:
            mask = mask * x.new_tensor(e.voice.frames)[:, None, None]
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
        bias[i, ..., m:] = -math.inf
        at = 0
        for t in row:
            here = slice(at, at := at + len(t.values))
            if t.voice.weight != 1:
                plain, bias[i, ..., here] = False, math.log(t.voice.weight)  # type: ignore[arg-type]
            if t.voice.frames is not None:  # a weight for every frame: the bias has one more axis
                plain, bias = False, bias if bias.ndim == 3 else bias[:, None].repeat(1, len(t.voice.frames), 1)  # type: ignore[arg-type]
                bias[i, :, here] += bias.new_tensor(t.voice.frames).clamp(min=1e-9).log()[:, None]
            if t.voice.mask is not None:
                regions.append((i, here, t.voice.mask))
    return Spoken(values, None if plain else bias, tuple(regions), grid)


def grouped(
    rows: Sequence[Row], port: Callable[[Ports], Sequence[Any]], key: Callable[[Any], Hashable]
) -> list[tuple[list[int], list[Any]]]:
    """Entries of one port, grouped by whom they speak through: [(row indices, entries)] in first-seen order."""
    groups: dict[Hashable, tuple[list[int], list[Any]]] = {}
    for i, row in enumerate(rows):
        for entry in port(row.ports):
            where, entries = groups.setdefault(key(entry), ([], []))
            where.append(i)
            entries.append(entry)
    return list(groups.values())


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
        tuple(e.voice.frames for e in entries),  # type: ignore[arg-type]  numbers by now
    )


def residual(rows: list[int], entries: list[Residual], spec: Slots, grid: tuple[int, int]) -> SpokenResidual:
    """One branch, all rows that carry it, with each entry's weight per site."""
    hints = torch.stack([e.hint for e in entries])  # type: ignore[arg-type]  tensors by now: the job has drawn
    sites = (1.0,) * getattr(entries[0].branch, "sites", spec.sites)
    weights = hints.new_tensor([[e.voice.weight * s for s in e.sites or sites] for e in entries])  # type: ignore[operator]
    return SpokenResidual(
        entries[0].branch,
        torch.tensor(rows, device=hints.device),
        hints,
        weights,
        tuple(e.voice.mask for e in entries),
        tokens([e.context for e in entries], grid) if entries[0].context else None,
        tuple(e.voice.frames for e in entries),  # type: ignore[arg-type]  numbers by now: the job has cut its window
    )


def resized(mask: Float[Tensor, "height width"], size: tuple[int, int], mode: str = "bilinear") -> Float[Tensor, "h w"]:
    """A mask at another resolution."""
    return F.interpolate(mask[None, None].float(), size=size, mode=mode)[0, 0]


def halved(grid: tuple[int, int], times: int) -> tuple[int, int]:
    """The latent grid so many levels deeper; what is odd is rounded up, as strided convolutions do."""
    h, w = grid
    return -(-h // 2**times), -(-w // 2**times)


def level(grid: tuple[int, int], queries: int) -> tuple[int, int]:
    """Which halving of the latent grid has that many places."""
    h, w = grid
    while h * w > queries and h * w > 1:
        h, w = halved((h, w), 1)
    assert h * w == queries, f"no level of a {grid} latent has {queries} places"
    return h, w


def on_grid(mask: Float[Tensor, "height width"], grid: tuple[int, int], queries: int) -> Float[Tensor, " q"]:
    """A mask on the query grid of an attention layer, bicubic as in diffusers' IP-Adapter masks."""
    return resized(mask, level(grid, queries), "bicubic").flatten()


# ── clips ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def unrolled(batch: Batch) -> Batch:
    """A batch of clips (b c f h w) as one of pictures (b*f c h w): what attention and branch networks see of it.

    `context.values` stay one per clip; a video UNet repeats them itself, a branch is handed them by `subset`.
    """
    b, _, f = batch.x.shape[:3]
    pictures = batch.x.transpose(1, 2).flatten(0, 1)
    context = replace(batch.context, frames=f, cache={})
    return Batch(
        pictures,
        batch.timestep.repeat_interleave(f),
        None,
        context,
        tuple(_adapter_frames(d, f) for d in batch.decoupled),
        tuple(_branch_frames(r, f) for r in batch.residuals),
        {k: v.repeat_interleave(f, 0) for k, v in batch.embedding.items()},
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
    values = said.tokens.values.repeat_interleave(f, 0)
    bias = None if said.tokens.bias is None else said.tokens.bias.repeat_interleave(f, 0)
    return replace(
        said,
        rows=_every(said.rows, f),
        tokens=Spoken(values, bias, grid=said.tokens.grid),
        weights=_loudness(said.weights, said.frames, f),
        layers=None if said.layers is None else said.layers.repeat_interleave(f, 0),
        masks=tuple(m for m in said.masks for _ in range(f)),
    )


def _branch_frames(said: SpokenResidual, f: int) -> SpokenResidual:
    hints = said.hints if said.hints.ndim == 5 else said.hints[:, :, None].expand(-1, -1, f, -1, -1)
    return replace(
        said,
        rows=_every(said.rows, f),
        hints=hints.transpose(1, 2).flatten(0, 1),
        weights=_loudness(said.weights, said.frames, f),
        masks=tuple(m for m in said.masks for _ in range(f)),
    )

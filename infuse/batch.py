"""The only code that knows there is more than one job: rows go in, one batch of tensors comes out.

Nothing in a batch couples its rows: tokens are padded behind a bias, adapters and branches carry the indices of the
rows they speak to, empty slots get their ground value. Between the edges of windows rows say the same from step to step:
then they are laid out once, and only the latent and the timestep are filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.constants import Constants, indices, moved, numbers
from infuse.grids import resized
from infuse.ports import Channel, Decoupled, Edit, Features, Ports, Residual, Tokens, Vector, Voice
from infuse.spoken import Batch, Row, Slots, Spoken, SpokenDecoupled, SpokenEdit, SpokenResidual, SpokenShared
from infuse.tokens import framed, padded, tokens

__all__ = ["Batch", "Row", "Spoken", "SpokenDecoupled", "SpokenResidual", "SpokenShared", "branches", "collate", "spoken_through"]  # fmt: skip


def collate(rows: Sequence[Row], spec: Slots, constants: Constants | None = None, steady: bool = False) -> Batch:
    """Rows of one latent shape to one batch. Rows may differ in everything else.

    constants: what is kept from call to call; None: nothing is. steady: rows that are alike are computed one by one all the same,
    as the width of a call decides the last bits. Whatever of a row comes to decide a shape or a kernel here,
    `network.call.structure` must know of.
    """
    if rows[0].shortcut is not None:  # the same of all rows of a call
        batch = collate([replace(r, shortcut=None) for r in rows], spec, constants, steady)
        return replace(batch, shortcut=rows[0].shortcut, memory=tuple(r.memory for r in rows if r.memory is not None))
    if constants is None or any(r.ports.shared for r in rows):  # what runs beside a row is noised anew in every step
        return laid_out(rows, spec, constants or Constants(), steady)
    said, x = [r.ports for r in rows], torch.stack([r.x for r in rows])
    key = ("rows", *map(id, said), tuple(x.shape), x.dtype, likeness(rows), steady)
    layout = constants.of(key, said, lambda: laid_out(rows, spec, constants, steady))
    return replace(layout, x=x, timestep=times(rows, x.device))


def laid_out(rows: Sequence[Row], spec: Slots, constants: Constants, steady: bool = False) -> Batch:
    """The batch, of entries whose tensors are not laid out yet."""
    asked, same = len(rows), None if steady else alike(rows)
    rows, shared = beside(rows)
    x = torch.stack([r.x for r in rows])
    grid = (int(x.shape[-2]), int(x.shape[-1]))
    channels = None
    if spec.channel_slots:
        filled = [
            [fill(s, [c for c in r.ports.channels if c.slot == s.name], r.x) for s in spec.channel_slots] for r in rows
        ]
        channels = torch.stack([torch.cat(slots) for slots in filled])
    return Batch(
        x,
        times(rows, x.device),
        channels,
        tokens([r.ports.context for r in rows], grid, constants),
        tuple(
            decoupled(*group, grid, constants)
            for group in grouped(rows, lambda p: p.decoupled, lambda e: (id(e.adapter), e.scaling, e.tokens.ndim))
        ),
        tuple(residual(*group, spec, grid, constants, same) for group in grouped(rows, branches, spoken_through)),
        {s: torch.stack([mix(r.ports.embedding, s, x) for r in rows]) for s in spec.embedding_slots},
        features(rows),
        shared,
        tuple(edit(*group) for group in grouped(rows, lambda p: p.edits, lambda e: (id(e.network), e.blocks))),
        asked,
        None if shared else same,
    )


def times(rows: Sequence[Row], device: torch.device) -> Float[Tensor, " b"]:
    """The timestep of each row, in one copy."""
    return moved(torch.stack([r.timestep.to(torch.float32) for r in rows]), device)


def likeness(rows: Sequence[Row]) -> tuple[int, ...]:
    """For each row the first one that has the same latent at the same time: the terms of one job's guidance."""
    seen: dict[tuple[int, int], int] = {}
    return tuple(seen.setdefault((id(r.x), id(r.timestep)), i) for i, r in enumerate(rows))


def alike(rows: Sequence[Row]) -> tuple[int, ...] | None:
    """For each row the first one that a network is told the same besides words: latent, time, channels, vectors. None: all differ."""

    def told(i: int, row: Row) -> Hashable:
        entries = (*row.ports.channels, *row.ports.embedding)
        return first[i], tuple((e.slot, id(e.value), e.voice.weight, id(e.voice.mask), e.voice.frames) for e in entries)

    first, seen = likeness(rows), dict[Hashable, int]()
    same = tuple(seen.setdefault(told(i, r), i) for i, r in enumerate(rows))
    return None if len(set(same)) == len(same) else same


def branches(ports: Ports) -> Sequence[Residual]:
    """What is said through a branch network."""
    return [e for e in ports.residuals if isinstance(e, Residual)]


def spoken_through(e: Residual) -> Hashable:
    """Entries of one key are answered together."""
    merged = e.sites if getattr(e.branch, "merges", False) else None
    return id(e.branch), bool(e.context), tuple(e.hint.shape), e.vector is None, merged  # type: ignore[union-attr]  drawn by now


def beside(rows: Sequence[Row]) -> tuple[Sequence[Row], tuple[SpokenShared, ...]]:
    """The rows, and after them one for each picture that runs beside them: the same words, nothing else."""
    shadows: list[Row] = []
    shared: list[SpokenShared] = []
    for i, row in enumerate(rows):
        if not row.ports.shared:
            continue
        ground = tuple(c for c in row.ports.channels if c.ground)
        first = len(rows) + len(shadows)
        for e in row.ports.shared:
            assert e.x is not None, "the job has not said at which noise level"
            said = Ports(
                channels=(*ground, *e.beside), **{p: getattr(row.ports, p) for p in ("context", "embedding", "edits")}
            )
            shadows.append(Row(e.x.to(row.x), row.timestep, said))
        size = (int(row.x.shape[-2]), int(row.x.shape[-1]))
        shared.append(SpokenShared(i, tuple(range(first, len(rows) + len(shadows))), row.ports.shared, size))
    return [*rows, *shadows], tuple(shared)


def features(rows: Sequence[Row]) -> tuple[Float[Tensor, "b c *f h w"], ...] | None:
    """The sum of what the adapters of each row say at each level; None if there are none."""
    said = [[e for e in r.ports.residuals if isinstance(e, Features)] for r in rows]
    first = next((e for row in said for e in row), None)
    if first is None:
        return None
    frames = rows[0].x.ndim == 4
    shapes = [(f.shape[0], *((rows[0].x.shape[1],) if frames else ()), *f.shape[-2:]) for f in first.levels]
    sums = [[f.new_zeros(shape) for _ in rows] for f, shape in zip(first.levels, shapes, strict=True)]
    for i, row in enumerate(said):
        for e in row:
            for j, f in enumerate(e.levels):
                sums[j][i] = sums[j][i] + heard(
                    f[:, None] if frames and f.ndim == 3 else f, e.voice, (e.sites or (1.0,) * len(e.levels))[j]
                )
    return tuple(torch.stack(level) for level in sums)


def heard(value: Float[Tensor, "c *f h w"], voice: Voice, factor: float) -> Float[Tensor, "c *f h w"]:
    """A value of a place in its voice: weight, region and, of a clip, frames."""
    factor *= voice.weight
    out = value if factor == 1 else factor * value
    if voice.frames is not None:
        out = out * out.new_tensor(voice.frames)[:, None, None]
    if voice.mask is not None:
        out = out * resized(voice.mask, (value.shape[-2], value.shape[-1])).to(value)
    return out


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
    mine: list[Any] = [e for e in entries if e.slot == slot]  # values are tensors by now: the job has drawn
    base = next((e.value for e in mine if e.ground), None)
    out = base
    for e in mine:
        if not e.ground:
            said: Any = e.voice.weight  # a number by now: `Ports.at` has asked the curve
            out = said * e.value if out is None else out + said * (e.value - (0 if base is None else base))
    assert out is not None, f"nobody speaks for the embedding slot {slot!r}"
    return out.to(like.device)


def edit(rows: list[int], entries: list[Edit]) -> SpokenEdit:
    """One LoRA, all rows that carry it."""
    voices = [e.voice for e in entries]
    return SpokenEdit(
        entries[0],
        tuple(rows),
        tuple(v.weight for v in voices),
        tuple(v.mask for v in voices),
        tuple(v.frames for v in voices),  # type: ignore[arg-type]
    )


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


def decoupled(
    rows: list[int], entries: list[Decoupled], grid: tuple[int, int], constants: Constants
) -> SpokenDecoupled:
    """One adapter, all rows that carry it (a row may carry it more than once)."""
    told = [e.tokens for e in entries]
    said = constants.of(
        ("decoupled", grid, *((id(e.tokens), id(e.voice.mask)) for e in entries)),
        [told, [e.voice.mask for e in entries]],
        lambda: padded([[Tokens(t)] for t in told], grid) if told[0].ndim == 2 else framed(entries, grid),
    )
    v = said.values
    layers = where = None
    if any(e.layers is not None for e in entries):
        n = max(len(e.layers or ()) for e in entries)
        factors = [e.layers or (1.0,) * n for e in entries]
        layers, where = numbers(factors, v), tuple(any(column) for column in zip(*factors, strict=True))
    edited = None
    if hasattr(entries[0].adapter, "edit"):
        once = {
            row: e.lowrank for row, e in sorted(zip(rows, entries, strict=True), key=lambda pair: abs(pair[1].lowrank))
        }
        edited = indices(list(once), v.device), numbers(list(once.values()), v)
    return SpokenDecoupled(
        entries[0].adapter,
        indices(rows, v.device),
        said,
        numbers([e.voice.weight for e in entries], v),
        layers,
        tuple(e.voice.mask for e in entries),
        tuple(e.voice.frames for e in entries),  # type: ignore[arg-type]  numbers by now
        where,
        entries[0].scaling,
        edited,
    )


def residual(
    rows: list[int],
    entries: list[Residual],
    spec: Slots,
    grid: tuple[int, int],
    constants: Constants,
    same: Sequence[int] | None = None,
) -> SpokenResidual:
    """One branch, all rows that carry it, with each entry's weight per site."""
    if getattr(entries[0].branch, "merges", False):
        return merged(rows, entries, spec, grid)
    told: list[Any] = [e.hint for e in entries]  # tensors by now: the job has drawn
    hints, kept = constants.of(
        ("hints", id(entries[0].branch), *map(id, told), *(id(e.voice.mask) for e in entries)),
        [told, [e.voice.mask for e in entries], entries[0].branch],
        lambda: (torch.stack(told), {}),
    )
    sites = (1.0,) * getattr(entries[0].branch, "sites", spec.sites)
    weights = numbers([[e.voice.weight * s for s in e.sites or sites] for e in entries], hints)  # type: ignore[operator]
    return SpokenResidual(
        entries[0].branch,
        indices(rows, hints.device),
        hints,
        weights,
        tuple(e.voice.mask for e in entries),
        tokens([e.context for e in entries], grid, constants) if entries[0].context else None,
        tuple(e.voice.frames for e in entries),  # type: ignore[arg-type]  numbers by now: the job has cut its window
        None if entries[0].vector is None else torch.stack([e.vector for e in entries]),  # type: ignore[misc]
        same=shown_alike(rows, told, same),
        where=tuple(rows),
        through=spoken_through(entries[0]),
        kept=kept,
    )


def shown_alike(rows: Sequence[int], hints: Sequence[Any], same: Sequence[int] | None) -> tuple[int, ...] | None:
    """For each of a branch's rows the first one that is told and shown the same; None: all differ."""
    if same is None:
        return None
    seen: dict[Hashable, int] = {}
    mine = tuple(seen.setdefault((same[row], id(h)), i) for i, (row, h) in enumerate(zip(rows, hints, strict=True)))
    return None if len(set(mine)) == len(mine) else mine


def merged(rows: list[int], entries: list[Residual], spec: Slots, grid: tuple[int, int]) -> SpokenResidual:
    """A branch that hears all hints of a row in one evaluation (ControlNet-Union). A lone hint is weighed at the sites, as any
    ControlNet's; of several, each counts by its weight and region, and what the branch makes of them is heard wholly."""
    mine: dict[int, list[Residual]] = {}
    for row, e in zip(rows, entries, strict=True):
        mine.setdefault(row, []).append(e)
    m, like = max(map(len, mine.values())), entries[0].hint
    sites = entries[0].sites or (1.0,) * getattr(entries[0].branch, "sites", spec.sites)
    hints = torch.stack([_padded([e.hint for e in row], m) for row in mine.values()])
    vectors = (
        None
        if entries[0].vector is None
        else torch.stack([_padded([e.vector for e in row], m) for row in mine.values()])
    )
    parts, lone = like.new_zeros(len(mine), m, *grid), [row[0] if len(row) == 1 else None for row in mine.values()]  # type: ignore[union-attr]
    for i, row in enumerate(mine.values()):
        for j, e in enumerate(row):
            parts[i, j] = 1.0 if lone[i] else heard(parts.new_ones(1, *grid), e.voice, 1.0)[0]
    weights = numbers([[(e.voice.weight if e else 1.0) * s for s in sites] for e in lone], hints)
    return SpokenResidual(
        entries[0].branch,
        indices(list(mine), hints.device),
        hints,
        weights,
        tuple(e.voice.mask if e else None for e in lone),
        vectors=vectors,
        parts=parts,
        where=tuple(mine),
        through=spoken_through(entries[0]),
    )


def _padded(values: Sequence[Any], m: int) -> Tensor:
    return torch.stack([*values, *(torch.zeros_like(values[0]),) * (m - len(values))])

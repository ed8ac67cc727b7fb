"""Tokens of several rows as one tensor: padded behind a bias, so that no row hears what another is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from infuse.constants import Constants
from infuse.ports import Decoupled, Tokens
from infuse.spoken import Couple, Spoken


def tokens(spoken: Sequence[Sequence[Tokens]], grid: tuple[int, int], constants: Constants) -> Spoken:
    """Concatenate each row's tokens, pad rows to one length; a bias only if something must be hidden or weighed."""
    key = tuple(
        tuple((id(t.now), t.voice.weight, id(t.voice.mask), t.voice.frames, t.apart, t.rest) for t in row)
        for row in spoken
    )
    return constants.of(("tokens", grid, key), spoken, lambda: padded(spoken, grid))


def padded(spoken: Sequence[Sequence[Tokens]], grid: tuple[int, int]) -> Spoken:
    """The same, made."""
    lengths = [sum(len(t.now) for t in row) for row in spoken]
    n = max(lengths)
    values = torch.stack(
        [F.pad(torch.cat([t.now for t in row]), (0, 0, 0, n - m)) for row, m in zip(spoken, lengths, strict=True)]
    )
    regions, plain, couples = (
        [],
        all(m == n for m in lengths),
        [c for i, row in enumerate(spoken) if (c := couple(i, row))],
    )
    bias = values.new_zeros(len(spoken), n)
    for i, (row, m) in enumerate(zip(spoken, lengths, strict=True)):
        bias[i, ..., m:] = -math.inf
        at = 0
        for t in row:
            here = slice(at, at := at + len(t.now))
            if t.apart is not None:  # its weight and region are no biases
                continue
            if t.voice.weight != 1:
                plain, bias[i, ..., here] = False, math.log(t.voice.weight)  # type: ignore[arg-type]
            if t.voice.frames is not None:  # a weight for every frame: the bias has one more axis
                plain, bias = False, bias if bias.ndim == 3 else bias[:, None].repeat(1, len(t.voice.frames), 1)  # type: ignore[arg-type]
                bias[i, :, here] += bias.new_tensor(t.voice.frames).clamp(min=1e-9).log()[:, None]
            if t.voice.mask is not None:
                regions.append((i, here, t.voice.mask))
    return Spoken(values, None if plain else bias, tuple(regions), grid, couples=tuple(couples))


def couple(row: int, said: Sequence[Tokens]) -> Couple | None:
    """What a row's words that are attended apart share out among themselves; None if there are none."""
    at, slices = 0, []
    for t in said:
        slices.append(slice(at, at := at + len(t.now)))
    own = [(here, t) for here, t in zip(slices, said, strict=True) if t.apart is not None]
    if not own:
        return None
    weights: Any = tuple(t.apart for _, t in own)
    rests = tuple(1 - t.voice.weight * (1 - t.rest) for _, t in own)
    return Couple(row, tuple(h for h, _ in own), weights, tuple(t.voice.mask for _, t in own), rests)


def framed(entries: Sequence[Decoupled], grid: tuple[int, int]) -> Spoken:
    """Tokens of a clip, others for every frame: values are (k f m d) until the clip is unrolled."""
    n = max(e.tokens.shape[1] for e in entries)
    values = torch.stack([F.pad(e.tokens, (0, 0, 0, n - e.tokens.shape[1])) for e in entries])
    bias = None
    if any(e.tokens.shape[1] != n for e in entries):
        bias = values.new_zeros(values.shape[:3])
        for i, e in enumerate(entries):
            bias[i, :, e.tokens.shape[1] :] = -math.inf
    return Spoken(values, bias, grid=grid)

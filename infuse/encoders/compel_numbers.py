"""compel's arithmetic: a weight moves a token's state away from what the empty prompt has there, and a weight below 1 also mixes
in the prompt without these words.

Source: damian0815/compel@c60b9fb embeddings_provider.py, compel.py. `.blend` fails there; this is its formula.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infuse.encoders.chunks import CHUNK, Chunk
from infuse.words.compel import Blend, Conjunction
from infuse.words.emphasis import Piece

LEAST = 1e-5
"""A weight of 0 counts as this: it would make the prompt without these words infinitely loud."""
ROWS = 32
"""Chunks of one call, for prompts in which many words are weighed down."""


class Encoder(Protocol):
    """What is asked of a `Reader`."""

    def by_sentences(self, said: Sequence[Piece]) -> list[Chunk]: ...

    def encoded(self, chunks: Sequence[Chunk], mask: Int[Tensor, "k 77"] | None = None) -> Float[Tensor, "k 77 d"]: ...

    def weights(self, chunks: Sequence[Chunk]) -> Float[Tensor, "k 77"]: ...


@dataclass(frozen=True)
class Reading:
    """One prompt in chunks, and its share in a blend."""

    chunks: list[Chunk]
    share: float = 1.0


@dataclass(frozen=True)
class Part:
    """What stands side by side with others (`.and`): one reading, or several that are added (`.blend`)."""

    readings: tuple[Reading, ...]
    weight: float = 1.0

    @property
    def chunks(self) -> int:
        return max(len(r.chunks) for r in self.readings)


def laid(encoder: Encoder, said: Conjunction) -> tuple[Part, ...]:
    """The chunks of every prompt."""
    return tuple(Part(_readings(encoder, part), weight) for part, weight in said.parts)


def _readings(encoder: Encoder, part: Blend | tuple[Piece, ...]) -> tuple[Reading, ...]:
    if not isinstance(part, Blend):
        return (Reading(encoder.by_sentences(part)),)
    total = sum(part.weights) if part.normalize else 1.0  # 0 is a letter of the parser's
    shares = (weight / total for weight in part.weights)
    return tuple(Reading(encoder.by_sentences(text), w) for text, w in zip(part.texts, shares, strict=True))


def encoded(encoder: Encoder, parts: Sequence[Part], n: int) -> Float[Tensor, "n 77 d"]:
    """The parts one after another, filled up with encoded empty chunks."""
    nothing = encoder.encoded([[]])
    said = [_part(encoder, part, nothing) for part in parts]
    return _filled(torch.cat(said), nothing, n)


def _part(encoder: Encoder, part: Part, nothing: Float[Tensor, "1 77 d"]) -> Float[Tensor, "k 77 d"]:
    said = [_filled(_weighed(encoder, r.chunks, nothing), nothing, part.chunks) for r in part.readings]
    z = (
        said[0]
        if len(said) == 1
        else torch.stack([z * r.share for z, r in zip(said, part.readings, strict=True)]).sum(0)
    )
    return z if part.weight == 1 else nothing + (z - nothing) * part.weight


def _filled(z: Float[Tensor, "k 77 d"], nothing: Float[Tensor, "1 77 d"], n: int) -> Float[Tensor, "n 77 d"]:
    return torch.cat([z, *[nothing] * (n - len(z))])


def _weighed(encoder: Encoder, chunks: list[Chunk], nothing: Float[Tensor, "1 77 d"]) -> Float[Tensor, "k 77 d"]:
    """base + sum of t_i (without_i - base) / (1 + sum t_i): the average of the prompt and of itself without each piece that weighs
    less than 1, t_i = tan((1 - w_i) pi / 2). A chunk that has nothing of a piece is the same without it."""
    weights = encoder.weights(chunks)
    base = _moved(encoder.encoded(chunks), weights, nothing)
    less = {t.piece: math.tan((1 - max(t.weight, LEAST)) * math.pi / 2) for c in chunks for t in c if t.weight < 1}
    asked = [
        (row, piece) for row, c in enumerate(chunks) for piece in dict.fromkeys(t.piece for t in c) if piece in less
    ]
    total, result = 1 + sum(less.values()), base.clone()
    for some in (asked[i : i + ROWS] for i in range(0, len(asked), ROWS)):
        rows = [row for row, _ in some]
        masks = torch.ones(len(some), weights.shape[1], dtype=torch.long)
        for mask, (row, piece) in zip(masks, some, strict=True):
            own = [place for place, token in enumerate(chunks[row], 1) if token.piece == piece]
            # what lies between two chunks of a piece, an early end and its padding, counts as the piece's (compel)
            goes_on = row + 1 < len(chunks) and any(token.piece == piece for token in chunks[row + 1])
            mask[own[0] : (CHUNK if goes_on else own[-1]) + 1] = 0
        without = _moved(encoder.encoded([chunks[row] for row in rows], masks), weights[rows], nothing)
        for one, (row, piece) in zip(without, some, strict=True):
            result[row] += (one - base[row]) * (less[piece] / total)
    return result


def _moved(
    z: Float[Tensor, "k 77 d"], weights: Float[Tensor, "k 77"], nothing: Float[Tensor, "1 77 d"]
) -> Float[Tensor, "k 77 d"]:
    """Away from the empty prompt by each token's weight; a weight of 1 leaves its token as it is, to the last bit."""
    factors = weights[..., None].to(z)
    return torch.where(factors == 1, z, nothing + factors * (z - nothing))

"""compel's syntax: `+` and `-` after a word or a group weigh it, a number after a bracket does too; `.and` and `.blend` join
several prompts. What fits nothing is words."""

from __future__ import annotations

from dataclasses import dataclass

from infuse.words.emphasis import Piece


@dataclass(frozen=True)
class Blend:
    """Several prompts whose encodings are averaged: sum(w E), divided by sum(w) if `normalize`."""

    texts: tuple[tuple[Piece, ...], ...]
    weights: tuple[float, ...]
    normalize: bool = True


@dataclass(frozen=True)
class Conjunction:
    """Prompts that are encoded each by itself and stand one after another, each with a weight.

    parts: at least one; usually one of weight 1. loras: (name, weight) as `withLora` names them.
    """

    parts: tuple[tuple[Blend | tuple[Piece, ...], float], ...]
    loras: tuple[tuple[str, float], ...] = ()

    @property
    def plain(self) -> str:
        """The first part's words without weights: what pooled vectors are made of."""
        first = self.parts[0][0]
        return " ".join(piece.text for piece in (first.texts[0] if isinstance(first, Blend) else first) if piece.text)


def read(text: str) -> Conjunction:
    """A prompt in compel's syntax. Source: damian0815/compel@c60b9fb."""
    return Conjunction((((Piece(text),), 1.0),))

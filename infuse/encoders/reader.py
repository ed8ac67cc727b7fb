"""One encoder reads one text: its syntax becomes weighted tokens in chunks, and each chunk becomes states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from infuse.encoders import compel_numbers
from infuse.encoders.chunks import BREAK, CHUNK, Chunk, Run, allowed, at_sentences, filled
from infuse.encoders.embeddings import Names
from infuse.encoders.emphasis import weighted
from infuse.encoders.prompt_syntax import words
from infuse.encoders.said import Said
from infuse.encoders.states import Placed, States, heard, states
from infuse.words import compel
from infuse.words.emphasis import Piece, pieces

_spelling = Lock()
"""One for all tokenizers: they are shared between models, and a tenth of a millisecond is not worth a lock for each."""


def spelled(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text, any length, without start and end. From one thread at a time: others raise "Already borrowed"."""
    with _spelling:
        return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


def written(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The tokens as the vocabulary has them: `cat</w>`."""
    with _spelling:
        return tokenizer.convert_ids_to_tokens(list(ids))


def padded(chunks: Sequence[Sequence[int]], tokenizer: Any, n: int) -> Int[Tensor, "n 77"]:
    """Ids with start, end and padding; empty chunks up to n."""
    bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    rows = [[bos, *ids, eos] for ids in [*chunks, *[[]] * (n - len(chunks))]]
    return torch.tensor([r + [pad] * (CHUNK + 2 - len(r)) for r in rows])


@dataclass(frozen=True)
class Reader:
    """The encoder at `place` among those of a base, and what is said to it."""

    model: Any
    tokenizer: Any
    place: int
    widths: tuple[int, ...]
    """Of all encoders of the base."""
    wide: bool
    said: Said

    @cached_property
    def prompt(self) -> str:
        return self.said.prompt_of(self.place)

    @cached_property
    def chunks(self) -> int:
        """How many it takes, at least one. Raises CapacityError beyond 32."""
        return allowed(sum(part.chunks for part in self._parts) if self._compel else len(self._filled))

    def tokens(self, n: int) -> Float[Tensor, "n 77 d"]:
        """What is heard of it, filled up to n chunks with encoded empty ones."""
        if self._compel:
            return compel_numbers.encoded(self, self._parts, n)
        chunks = [*self._filled, *[Chunk()] * (n - len(self._filled))]
        z, weights = self.encoded(chunks), self.weights(chunks)
        if (weights == 1).all():
            return z
        # each chunk is a call of the webui's encoder, and keeps its mean by itself
        keep = self.said.emphasis == "original"
        return torch.cat([weighted(z[i : i + 1], weights[i : i + 1], keep) for i in range(n)])

    def pooled(self) -> Float[Tensor, " e"] | None:
        """The first chunk as a whole: from the last layer, whatever is skipped, and never weighted."""
        first = self._parts[0].readings[0].chunks[0] if self._compel else self._filled[0]
        said = self._states([first]).pooled
        return None if said is None else said[0]

    @property
    def ids(self) -> list[list[int]]:
        """Of each chunk, of a text that is no compel's."""
        return [[t.id for t in chunk] for chunk in self._filled]

    @property
    def first(self) -> Int[Tensor, "1 77"]:
        """The ids of the first chunk, with start, end and padding."""
        return padded(self.ids[:1], self.tokenizer, 1)

    def encoded(self, chunks: Sequence[Chunk], mask: Int[Tensor, "k 77"] | None = None) -> Float[Tensor, "k 77 d"]:
        """The states that are heard of these chunks, without their weights."""
        return heard(self.model, self._states(chunks, mask), self.said.clip_skip, self.wide)

    def weights(self, chunks: Sequence[Chunk]) -> Float[Tensor, "k 77"]:
        """One per token; start, end and padding have 1."""
        found = torch.ones(len(chunks), CHUNK + 2, dtype=torch.float64)
        for row, chunk in enumerate(chunks):
            found[row, 1 : 1 + len(chunk)] = torch.tensor([t.weight for t in chunk], dtype=torch.float64)
        return found

    def split(self, said: Sequence[Piece]) -> Iterator[Run]:
        """Pieces to tokens. Each is spelled by itself, so that a weight's boundary is a word's."""
        for number, piece in enumerate(said):
            if piece.cut:
                yield BREAK
            elif piece.text:
                weight = 1.0 if self.said.emphasis == "ignore" else piece.weight
                for text in self._names.parts(piece.text):
                    yield from self._names.runs(spelled(self.tokenizer, text), weight, number)

    def by_sentences(self, said: Sequence[Piece]) -> list[Chunk]:
        """compel's chunks of one of its prompts."""
        return at_sentences(self.split(said), lambda ids: written(self.tokenizer, ids))

    @property
    def _compel(self) -> bool:
        return self.said.syntax == "compel"

    @cached_property
    def _filled(self) -> list[Chunk]:
        plain = self.said.syntax == "plain"
        said = (Piece(words(self.prompt)),) if plain else pieces(self.prompt)
        with _spelling:
            comma = self.tokenizer.convert_tokens_to_ids(",</w>")
        return filled(self.split(said), comma, late=plain)

    @cached_property
    def _parts(self) -> tuple[compel_numbers.Part, ...]:
        return compel_numbers.laid(self, compel.read(self.prompt))

    @cached_property
    def _names(self) -> Names:
        given = self.said.embeddings
        return Names(
            {name: spelled(self.tokenizer, name) for name in given}, {name: e.places for name, e in given.items()}
        )

    def _states(self, chunks: Sequence[Chunk], mask: Tensor | None = None) -> States:
        placed: list[Placed] = [
            (row, place, self.said.embeddings[token.begins].fitted(self.widths)[self.place])
            for row, chunk in enumerate(chunks)
            for place, token in enumerate(chunk)
            if token.begins
        ]
        ids = padded([[t.id for t in chunk] for chunk in chunks], self.tokenizer, len(chunks))
        return states(self.model, ids, placed, mask)

"""Words to tokens for cross-attention: CLIP text encoders, any length in chunks of 75.

SD 1/2 hear the last hidden state after the final norm; SDXL hears the penultimate states of two encoders side by side,
and the pooled output of the second for its first chunk (Podell et al. 2023, sec. 2.1). What is said to them besides bare words
stands in a `Said`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.chunks import CHUNK
from infuse.encoders.chunks import MOST_CHUNKS as MOST_CHUNKS
from infuse.encoders.embeddings import Embedding as Embedding
from infuse.encoders.reader import Reader
from infuse.encoders.reader import padded as padded
from infuse.encoders.reader import spelled as spelled
from infuse.encoders.said import Said as Said
from infuse.encoders.states import heard, states
from infuse.notices import note


@dataclass(frozen=True)
class TextEncoders:
    """One (SD) or two (SDXL) CLIP text models with their tokenizers."""

    models: Sequence[Any]
    tokenizers: Sequence[Any]

    @property
    def wide(self) -> bool:
        """Two encoders: penultimate states, no final norm, pooled output."""
        return len(self.models) > 1 or type(self.models[0]).__name__.endswith("WithProjection")

    def tokens(self, said: str | Said) -> Float[Tensor, "n d"]:
        """77 tokens for every chunk of 75, encoders side by side: one that takes fewer chunks is filled up with empty ones.

        Raises CapacityError for more than 32 chunks, RecipeError for a layer (`clip_skip`) that an encoder doesn't have and
        for an embedding of another family.
        """
        readers = self._readers(said)
        most = max(Said.of(said).chunks, *(r.chunks for r in readers))
        return torch.cat([r.tokens(most) for r in readers], dim=-1).flatten(0, 1)

    def chunks(self, said: str | Said) -> int:
        """How many chunks `tokens` has of it. Raises CapacityError beyond 32."""
        return max(Said.of(said).chunks, *(r.chunks for r in self._readers(said)))

    def ids(self, prompt: str, encoder: int = 0) -> list[list[int]]:
        """A bare text's chunks as an encoder's tokenizer spells them, without start, end and padding."""
        return self._readers(prompt)[encoder].ids

    def batch(self, prompts: Sequence[str]) -> Float[Tensor, "b 77 d"]:
        """Many short prompts at once, each cut to its first chunk: what training asks for."""
        firsts = zip(*([r.first for r in self._readers(prompt)] for prompt in prompts), strict=True)
        said = [
            heard(m, states(m, torch.cat(ids)), None, self.wide) for m, ids in zip(self.models, firsts, strict=True)
        ]
        return torch.cat(said, dim=-1)

    def pooled(self, said: str | Said) -> Float[Tensor, " e"] | None:
        """The pooled projection of the last encoder for the first chunk; None for SD 1/2."""
        return self._readers(said)[-1].pooled() if self.wide else None

    def phrase(self, text: str) -> Float[Tensor, " e"]:
        """What the first encoder says of a few words as a whole, before any projection: its last state at their end."""
        model, reader = self.models[0], self._readers(text)[0]
        if reader.chunks > 1:
            note(f"{text[:40]!r}: a phrase has {CHUNK} tokens at most, and what comes after them is not heard.")
        return model(reader.first.to(model.device)).pooler_output[0]

    def _readers(self, said: str | Said) -> list[Reader]:
        widths = tuple(m.config.hidden_size for m in self.models)
        both = zip(self.models, self.tokenizers, strict=True)
        return [Reader(m, t, i, widths, self.wide, Said.of(said)) for i, (m, t) in enumerate(both)]

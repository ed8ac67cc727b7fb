"""Words to tokens for cross-attention: CLIP text encoders, any length in chunks of 75.

SD 1/2 hear the last hidden state after the final norm; SDXL hears the penultimate states of two encoders side by side,
and the pooled output of the second for its first chunk (Podell et al. 2023, sec. 2.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.prompt_syntax import words
from infuse.errors import CapacityError
from infuse.notices import note

CHUNK = 75
LOOK_BACK = 20
"""A chunk that is full ends at a comma, if there is one among its last tokens (webui's rule)."""
MOST_CHUNKS = 32
_spelling = Lock()
"""One for all tokenizers: they are shared between models, and a tenth of a millisecond is not worth a lock for each."""


def spelled(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text, any length, without start and end. From one thread at a time: others raise "Already borrowed"."""
    with _spelling:
        return tokenizer(text, add_special_tokens=False, verbose=False).input_ids


@dataclass(frozen=True)
class TextEncoders:
    """One (SD) or two (SDXL) CLIP text models with their tokenizers."""

    models: Sequence[Any]
    tokenizers: Sequence[Any]

    @property
    def wide(self) -> bool:
        """Two encoders: penultimate states, no final norm, pooled output."""
        return len(self.models) > 1 or type(self.models[0]).__name__.endswith("WithProjection")

    def tokens(self, prompt: str) -> Float[Tensor, "n d"]:
        """77 tokens for every chunk of 75, encoders side by side.

        Raises CapacityError if the prompt has more than 32 chunks.
        """
        chunks = [self._ids(prompt, t) for t in self.tokenizers]
        most = max(map(len, chunks))
        said = [
            self._run(m, self._padded(ids, t, most), self.wide)[0]
            for m, t, ids in zip(self.models, self.tokenizers, chunks, strict=True)
        ]
        return torch.cat(said, dim=-1).flatten(0, 1)

    def batch(self, prompts: Sequence[str]) -> Float[Tensor, "b 77 d"]:
        """Many short prompts at once, each cut to its first chunk: what training asks for."""
        said = [
            self._run(m, torch.cat([self._padded(self._ids(p, t)[:1], t, 1) for p in prompts]), self.wide)[0]
            for m, t in zip(self.models, self.tokenizers, strict=True)
        ]
        return torch.cat(said, dim=-1)

    def pooled(self, prompt: str) -> Float[Tensor, " e"] | None:
        """The pooled projection of the last encoder for the first chunk; None for SD 1/2."""
        if not self.wide:
            return None
        tokenizer = self.tokenizers[-1]
        return self._run(self.models[-1], self._padded(self._ids(prompt, tokenizer)[:1], tokenizer, 1), True)[1]

    def phrase(self, text: str) -> Float[Tensor, " e"]:
        """What the first encoder says of a few words as a whole, before any projection: its last state at their end."""
        model, tokenizer = self.models[0], self.tokenizers[0]
        chunks = self._ids(text, tokenizer)
        if len(chunks) > 1:
            note(f"{text[:40]!r}: a phrase has {CHUNK} tokens at most, and what comes after them is not heard.")
        ids = self._padded(chunks[:1], tokenizer, 1)
        return model(ids.to(model.device)).pooler_output[0]

    def _ids(self, prompt: str, tokenizer: Any) -> list[list[int]]:
        ids = spelled(tokenizer, words(prompt)) if prompt else []
        with _spelling:
            comma = tokenizer.convert_tokens_to_ids(",</w>")
        chunks: list[list[int]] = []
        while len(ids) > CHUNK:
            cut = next((i + 1 for i in range(CHUNK - 1, CHUNK - 1 - LOOK_BACK, -1) if ids[i] == comma), CHUNK)
            chunks.append(ids[:cut])
            ids = ids[cut:]
        chunks.append(ids)
        if len(chunks) > MOST_CHUNKS:
            raise CapacityError(
                "prompt",
                f"it takes {len(chunks)} chunks of {CHUNK} tokens; the limit is {MOST_CHUNKS}. Say it shorter.",
            )
        return chunks

    @staticmethod
    def _padded(chunks: list[list[int]], tokenizer: Any, n: int) -> Tensor:
        bos, eos, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
        rows = [[bos, *ids, eos] for ids in chunks + [[]] * (n - len(chunks))]
        return torch.tensor([r + [pad] * (CHUNK + 2 - len(r)) for r in rows])

    @staticmethod
    def _run(model: Any, ids: Tensor, wide: bool) -> tuple[Tensor, Tensor | None]:
        out = model(ids.to(model.device), output_hidden_states=wide)
        if not wide:
            return out.last_hidden_state, None
        return out.hidden_states[-2], out.text_embeds[0] if "text_embeds" in out else None

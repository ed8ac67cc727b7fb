"""PowerPaint's task tokens: three words of ten learned vectors each, appended to a CLIP text encoder's table.

What else differs between PowerPaint's generations is written in `Generation`, beside their words. Source: open-mmlab/PowerPaint@5b4c3d5 (v1, v2) and its dev branch @aaed575 (dev1, dev2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.chunks import CHUNK
from infuse.encoders.generations import Generation
from infuse.encoders.reader import padded, spelled
from infuse.encoders.states import states

RUN = 10
"""Learned vectors per task token."""
ROWS = 3 * RUN


@dataclass(frozen=True)
class TaskTexts:
    """A CLIP text encoder whose table ends with the 30 rows of the task tokens."""

    model: Any
    tokenizer: Any
    generation: Generation

    @property
    def first_id(self) -> int:
        return self.model.get_input_embeddings().num_embeddings - ROWS

    @property
    def table(self) -> Float[Tensor, "vocabulary d"]:
        """Token embeddings, task tokens last."""
        return self.model.get_input_embeddings().weight

    def run(self, token: str) -> list[int]:
        """The ten ids of a task token."""
        start = self.first_id + RUN * self.generation.order.index(token)
        return list(range(start, start + RUN))

    def ids(self, text: str, token: str | None = None) -> list[list[int]]:
        """Ids of a description with its task token, in chunks of 75 without start and end.

        Every chunk has a task token of its own: room for it is kept, so that no length of text pushes it out. A task
        token's name inside of the text is read as the token, as in the original.
        """
        room = CHUNK - (RUN if token else 0)
        pieces: list[list[int]] = []
        for piece in re.split(f"({'|'.join(self.generation.order)})", text):
            if piece in self.generation.order:
                pieces.append(self.run(piece))
            elif piece.strip():
                pieces += [[i] for i in spelled(self.tokenizer, piece)]
        chunks: list[list[int]] = [[]]
        for piece in pieces:  # a run is never divided
            if len(chunks[-1]) + len(piece) > room:
                chunks.append([])
            chunks[-1] += piece
        task = self.run(token) if token else []
        return [task + c if self.generation.first else c + task for c in chunks]

    def tokens(self, text: str, token: str | None = None) -> Float[Tensor, "n d"]:
        """(77 k, d): last hidden states after the final norm."""
        rows = padded(chunks := self.ids(text, token), self.tokenizer, len(chunks))
        return states(self.model, rows).last.flatten(0, 1)

    def batch(self, said: Sequence[tuple[str, str | None]]) -> Float[Tensor, "b 77 d"]:
        """Many short (text, task token) pairs at once, each cut to its first chunk: what training asks for."""
        rows = [padded(self.ids(*one)[:1], self.tokenizer, 1) for one in said]
        return states(self.model, torch.cat(rows)).last


def widened(model: Any, rows: Float[Tensor, "30 d"] | None = None, like: int | None = None) -> Any:
    """A copy of a CLIP text model whose table has the task tokens' rows; without `rows`, copies of one token's (`like`).

    The original starts all of them as the token "a".
    """
    from copy import deepcopy

    copy = deepcopy(model)
    table = copy.get_input_embeddings().weight.data
    new = table[like].expand(ROWS, -1) if rows is None else rows.to(table)
    wide = torch.nn.Embedding.from_pretrained(torch.cat([table, new]), freeze=False)
    copy.set_input_embeddings(wide)
    copy.config.vocab_size = len(wide.weight)
    return copy

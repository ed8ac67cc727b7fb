"""A new word learns what it means, and nothing else learns: vectors in the text encoder's table, all around them frozen.

Source: Gal et al. 2022 (textual inversion), sec. 4. Where a word has several vectors, each is a token of its own, one after the
other wherever the word is said.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.kit import Base


class Longer(nn.Module):
    """A table of token vectors with new rows at its end; these alone learn. (tokens) ids to (tokens d)."""

    def __init__(self, table: nn.Embedding, rows: Float[Tensor, "n d"]) -> None:
        super().__init__()
        self.frozen = table.requires_grad_(False)
        self.rows = nn.Parameter(rows.detach().clone())

    @property
    def weight(self) -> Float[Tensor, "tokens d"]:
        return torch.cat([self.frozen.weight, self.rows])

    def forward(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.weight)


def learn_word(base: Base, word: str, like: Sequence[Sequence[str]]) -> tuple[Base, Longer]:
    """The base with a new word, and what of it learns. Each vector begins as the mean of those of the words in one part of `like`.

    Its first text encoder is a copy; tokenizer and table know the word. Each of these words must be one token.
    """
    tokenizer, model = deepcopy(base.texts.tokenizers[0]), deepcopy(base.texts.models[0]).requires_grad_(False)
    table: Any = model.get_input_embeddings()
    ids = [[tokenizer.convert_tokens_to_ids(f"{w}</w>") for w in words] for words in like]
    rows = torch.stack([table.weight[i].mean(0) for i in ids])
    tokenizer.add_tokens(names(word, len(like)))
    longer = Longer(table, rows)
    model.set_input_embeddings(longer)
    texts = replace(
        base.texts, models=[model, *base.texts.models[1:]], tokenizers=[tokenizer, *base.texts.tokenizers[1:]]
    )
    return replace(base, texts=texts), longer


def names(word: str, vectors: int) -> list[str]:
    """What the tokens of a word are called: the word itself, then with numbers from 1 on."""
    return [word, *(f"{word}_{k}" for k in range(1, vectors))]


def save_word(word: str, rows: Float[Tensor, "n d"], path: Path, description: str) -> None:
    """An embedding in half precision as diffusers reads it, `{word: (n d)}`, and its card."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({word: rows.detach().half().contiguous().clone()}, path)
    path.with_name(f"{path.stem}.card.json").write_text(json.dumps({"description": description}, indent=1), "utf-8")

"""A word learns, and nothing else: the rest of the table is untouched, and what is saved is what was learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infuse.encoders.kit import Base
from infuse.tabletop.making.workshop import Workshop
from infuse.training.objectives_diffusion import Captions, Denoise, Drop, freeze
from infuse.training.words import Longer, learn_word, names, save_word
from infuse.weights.library import embedded_root


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("shop")
    (root / "models").mkdir()
    (root / "models" / "base").symlink_to(embedded_root() / "base")
    found = Workshop(root).base()
    freeze(found)
    return found


def test_a_word_begins_as_the_words_it_is_like(base: Base) -> None:
    longer, word = learn_word(base, "<gold>", (("red",), ("blue",)))
    said = longer.texts.batch(["a <gold> <gold>_1 cube", "a large cube"])
    assert torch.allclose(said[0], base.texts.batch(["a red blue cube"])[0], atol=1e-6)
    assert torch.equal(said[1], base.texts.batch(["a large cube"])[0])
    assert names("<gold>", 2) == ["<gold>", "<gold>_1"] and word.rows.shape == (2, 128)


def test_the_base_itself_does_not_know_the_word(base: Base) -> None:
    before = base.texts.models[0].get_input_embeddings()
    longer, word = learn_word(base, "<gold>", (("red", "blue"),))
    assert base.texts.models[0].get_input_embeddings() is before and len(base.texts.tokenizers[0]) == 667
    assert len(longer.texts.tokenizers[0]) == 668
    table = before.weight.clone()
    with torch.no_grad():
        word.rows.add_(1.0)
    assert torch.equal(before.weight, table) and torch.equal(
        longer.texts.models[0].get_input_embeddings().weight[:-1], table
    )


def test_only_its_vectors_learn(base: Base) -> None:
    longer, word = learn_word(base, "<gold>", (("red",), ("blue",)))
    latents = torch.randn(4, 4, 16, 16)
    told = Captions(longer, lambda i, rng: "a <gold> <gold>_1 cube", learn=True)
    objective = Denoise(longer, lambda p: latents[p], 4, [Drop(told, 0.0)], {"word": word}, batch_size=2)
    objective.loss(objective.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))[0].backward()
    assert word.rows.grad is not None and (word.rows.grad != 0).any(dim=1).all()
    modules = (longer.texts.models[0], longer.network.unet)
    assert [p for m in modules for p in m.parameters() if p.grad is not None] == [word.rows]


def test_what_is_saved_is_half_precision_under_the_word(tmp_path: Path) -> None:
    rows = Longer(torch.nn.Embedding(3, 4), torch.arange(8.0).view(2, 4)).rows
    save_word("<gold>", rows, tmp_path / "gold.safetensors", "a word")
    found = load_file(tmp_path / "gold.safetensors")
    assert (
        list(found) == ["<gold>"]
        and found["<gold>"].dtype == torch.float16
        and torch.equal(found["<gold>"].float(), rows)
    )
    assert json.loads((tmp_path / "gold.card.json").read_text()) == {"description": "a word"}

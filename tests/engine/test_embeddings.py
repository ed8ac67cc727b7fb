"""Words that are vectors: found by name on a shelf or given; what is of another family is left out and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tiny
from infuse import InfuseWarning, Recipe, RecipeError
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    shelf = tmp_path / "embeddings"
    shelf.mkdir()
    g = torch.Generator().manual_seed(0)
    save_file({"<mycat>": torch.randn(2, 32, generator=g)}, shelf / "mycat.safetensors")
    save_file({"<otherwise>": torch.randn(1, 24, generator=g)}, shelf / "otherwise.safetensors")
    save_file({"<given>": torch.randn(1, 32, generator=g)}, tmp_path / "given.safetensors")
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    store = ModelStore(dtype="float32", device="cpu")
    store.add("tiny", tiny.base("sd1").base)
    return Engine("tiny", store=store)


def asked(prompt: str, **fields: Any) -> Recipe:
    return Recipe(**{"prompt": prompt, "width": 16, "height": 16, "steps": 1, **fields})


@pytest.mark.slow
def test_a_shelf_has_words_by_the_names_of_their_files(engine: Engine) -> None:
    plain = engine.run(asked("a mycap here")).latents
    for prompt in ("a mycat here", "a MyCat here", "a <mycat> here", "a embedding:mycat here"):
        resolved = engine.check(asked(prompt))
        assert {m for _, m in resolved.wording.embeddings} == {"mycat"}, prompt
        assert not torch.equal(engine.run(asked(prompt)).latents, plain)
    assert torch.equal(engine.run(asked("a mycat here")).latents, engine.run(asked("a <mycat> here")).latents)
    assert "mycat" in engine.run(asked("a mycat here")).weights
    assert not engine.check(asked("a cat here")).wording.embeddings


def test_another_family_is_said(engine: Engine) -> None:
    with pytest.warns(InfuseWarning, match="painted as a plain one"):
        assert not engine.check(asked("otherwise good")).wording.embeddings
    with pytest.raises(RecipeError, match="was trained for") as letter:
        engine.check(asked("otherwise good", embeddings=["otherwise"]))
    assert letter.value.field == "embeddings.0"


@pytest.mark.slow
def test_one_that_is_given_needs_no_shelf(engine: Engine, tmp_path: Path) -> None:
    place = str(tmp_path / "given.safetensors")
    r = asked("a given word", embeddings=[place])
    assert dict(engine.check(r).wording.embeddings) == {"given": place}
    assert not torch.equal(engine.run(r).latents, engine.run(asked("a given word")).latents)


@pytest.mark.slow
def test_each_picture_has_words_of_its_own(engine: Engine, tmp_path: Path) -> None:
    """What was chosen for a picture travels with it, and the picture alone is the same."""
    r = asked("a {red|green|blue|black} cube", count=4, seed=1)
    made = engine.run(r)
    said = [made.record(i).recipe["prompt"] for i in range(4)]
    assert len(set(said)) > 1 and all("{" not in s for s in said)
    for i, prompt in enumerate(said):
        torch.testing.assert_close(
            engine.run(asked(prompt, seed=1 + i)).latents[0], made.latents[i], atol=1e-5, rtol=1e-5
        )

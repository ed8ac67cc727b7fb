"""What a run holds in memory is said: before, by headers; after, by what was there."""

from __future__ import annotations

from pathlib import Path

import disk
import pytest
from PIL import Image

import infuse
import tiny
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.engine.placement import nbytes
from infuse.weights.base import load_vision


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("memory")
    disk.base(root / "base")
    disk.base(root / "other")
    disk.controlnet(root / "lines")
    return root


def test_a_result_says_what_it_was_made_with(world: Path) -> None:
    engine, image = Engine(str(world / "base"), store=ModelStore("float32", "cpu")), Image.new("RGB", (32, 32), "teal")
    plain = engine("a", width=32, height=32, steps=1, seed=1, count=2)
    base = engine.store.base(str(world / "base"))
    assert plain.memory["weights"] == nbytes(base) and plain.memory["encodings"] > 0
    lines = infuse.ControlNet(model=str(world / "lines"), image=image)
    made = engine("a", lines, width=32, height=32, steps=1, seed=1)
    assert made.memory["weights"] == engine.store.held > nbytes(base)
    assert made.memory["encodings"] > plain.memory["encodings"] and "constants" in made.memory
    assert "memory" not in str(made.record().resolved), "it depends on what ran beside it: no record has it"


def test_a_check_counts_image_encoders_beside_the_base(world: Path) -> None:
    """The adapter sees through another's image encoder, which is loaded once for all who name it."""
    engine = Engine("mine", store=ModelStore("float32", "cpu"))
    engine.store.add("mine", tiny.base("sd1").base)
    engine.store.add("look", tiny.adapter("sd1", "plain", 5))
    image, eye = Image.new("RGB", (32, 32), "teal"), str(world / "other")

    def memory(*folders: str | None) -> int:
        adapters = [infuse.IPAdapter(model="look", image=image, image_encoder=f) for f in folders]
        return engine.check(infuse.Recipe(prompt="a", width=32, height=32, conditions=adapters)).memory

    own = nbytes(load_vision(world / "other" / "image_encoder")[0])
    assert memory(eye) - memory(None) == memory(eye, eye) - memory(None, None) == own

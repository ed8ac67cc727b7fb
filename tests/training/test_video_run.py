"""Training on a folder of one's own: complaints name their line, all see the same stretch, and both stages run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import disk
import numpy as np
import pytest
import torch
from PIL import Image

import tiny
from infuse import Recipe, RecipeError, Text
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.training.video_folder import ClipFolder
from infuse.training.video_models import CHANNELS
from infuse.training.video_run import PLAN, Run, train

FRAMES = 3


def films(root: Path, *lines: dict[str, Any] | str) -> Path:
    """Two clips as folders of frames, a film of depths, one that is too short, one picture."""
    for name, count in (("a", 6), ("b", 4), ("depth", 6), ("short", 2)):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            disk.picture(root / name / f"{k}.png", (40, 36), seed=k)
    Image.new("RGB", (40, 36)).save(root / "one.png")
    (root / "metadata.jsonl").write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return root


GOOD = {"file_name": "a", "text": "a thing moves", "depth": "depth"}
PLAIN = {"file_name": "b", "text": "another"}


@pytest.mark.parametrize(("bad", "place", "said"), [
    ("{", "metadata.jsonl:2", "not JSON"),
    ({"text": "x"}, "metadata.jsonl:2.file_name", "required"),
    ({"file_name": "c"}, "metadata.jsonl:2.file_name", "no c in"),
    ({"file_name": "short"}, "metadata.jsonl:2.file_name", "2 frames"),
    ({"file_name": "one.png"}, "metadata.jsonl:2.file_name", "one picture"),
    ({"file_name": "b", "depth": "depth"}, "metadata.jsonl:2.depth", "lasts"),
    ({"file_name": "b", "mask": "m"}, "metadata.jsonl:2.mask", "no m in"),
    ({"file_name": "b", "speed": 3}, "metadata.jsonl:2.speed", "no such field"),
])  # fmt: skip
def test_every_complaint_names_its_line(tmp_path: Path, bad: Any, place: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said) as letter:
        ClipFolder(films(tmp_path, GOOD, bad), FRAMES, 32)
    assert str(letter.value).startswith(place)


@pytest.mark.slow
def test_a_folder_shows_the_same_stretch_to_all(tmp_path: Path) -> None:
    folder = ClipFolder(films(tmp_path, GOOD, PLAIN), FRAMES, 32)
    folder.base = tiny.base("sd1").base
    assert folder.teaches() == tuple(CHANNELS)
    rng = np.random.default_rng(0)
    for pick in range(4):
        first = folder.seen("local_image", pick, None, rng)
        depth = folder.seen("depth", pick, None, rng)
        assert first is not None and first.shape == (3, 1, 48, 48)
        assert (depth is None) == (pick % 2 == 1)
        if depth is not None:  # the film of depths has the clip's own frames: grey of the same picture
            grey = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * first[:, 0]).sum(0)
            assert float((depth[0, 0] / 2 - grey).abs().mean()) < 0.02
        masked = folder.seen("masked", pick, None, rng)
        assert masked is not None and masked.shape == (4, FRAMES, 48, 48) and set(masked[3].unique().tolist()) <= {0, 1}
    assert folder.latents(np.array([0, 1])).shape == (2, 4, FRAMES, 16, 16)


@pytest.mark.slow
def test_two_stages_on_a_folder_of_ones_own(tmp_path: Path) -> None:
    pytest.importorskip("av")
    data, plan = films(tmp_path / "data", GOOD, PLAIN), replace(PLAN, steps=2, warmup=0)
    store = ModelStore(dtype=torch.float32, device="cpu")
    store.add("still", tiny.base("sd1").base)
    with pytest.raises(RecipeError, match="Train stage 1"):
        train(Run("still", str(data), stage=2, frames=FRAMES, size=32), tmp_path / "x", plan, store)
    assert train(Run("still", str(data), frames=FRAMES, size=32), tmp_path / "one", plan, store)
    second = Run(str(tmp_path / "one"), str(data), stage=2, learn="temporal", size=32)
    assert train(second, tmp_path / "two", plan)
    with pytest.raises(RecipeError, match="size"):
        train(replace(second, size=36), tmp_path / "two", plan)
    engine = Engine(str(tmp_path / "two"), dtype=torch.float32, device="cpu")
    asked = Recipe(
        model=str(tmp_path / "two"),
        prompt="a thing",
        frames=FRAMES,
        width=32,
        height=32,
        steps=2,
        conditions=(Text(prompt="moves"),),
    )
    assert len(engine.run(asked).frames[0]) == FRAMES
    assert engine.store.base(str(tmp_path / "two")).spec.compositions == tuple(CHANNELS)

"""PowerPaint on a folder of one's own: what is wrong with it is said by line, and what is trained is loaded and painted with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import disk
import numpy as np
import pytest
import torch
from PIL import Image

import infuse
from infuse import PowerPaint, Recipe, RecipeError
from infuse.engine.model_store import ModelStore
from infuse.training.folder import Folder
from infuse.training.powerpaint_folder import Crops
from infuse.training.powerpaint_run import PLAN, Run, train
from infuse.training.trainer import TrainConfig

WIDE = (48, 40)


def folder(root: Path, *lines: dict[str, Any] | str) -> Path:
    """Three pictures, a mask, a mask of another size, a file that is none."""
    root.mkdir(exist_ok=True)
    for i in range(3):
        disk.picture(root / f"{i}.png", WIDE, seed=i)
    disk.mask(root / "mask.png", WIDE)
    disk.mask(root / "small.png", (20, 20))
    disk.picture(root / "tiny.png", (20, 50))
    Image.new("L", WIDE).save(root / "black.png")
    (root / "text.png").write_text("not a picture")
    if lines:
        text = "\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines)
        (root / "metadata.jsonl").write_text(text)
    return root


GOOD = {"file_name": "0.png", "text": "a room", "objects": [{"mask": "mask.png", "text": "a kettle"}]}
BOXED = {"file_name": "1.png", "text": "a yard", "objects": [{"box": [4, 6, 30, 38], "text": "a dog"}]}
PLAIN = {"file_name": "2.png", "text": "a lake"}


@pytest.mark.parametrize(("bad", "place", "said"), [
    ("{", "metadata.jsonl:2", "not JSON"),
    ("[1]", "metadata.jsonl:2", "no object"),
    ({"text": "x"}, "metadata.jsonl:2.file_name", "required"),
    ({"file_name": "0.png", "caption": "x"}, "metadata.jsonl:2.caption", "no such field"),
    ({"file_name": "9.png"}, "metadata.jsonl:2.file_name", "no file 9.png"),
    ({"file_name": "text.png"}, "metadata.jsonl:2.file_name", "cannot be read"),
    ({"file_name": "tiny.png"}, "metadata.jsonl:2.file_name", "20 x 50 px"),
    ({"file_name": "0.png", "objects": [{"text": "x"}]}, "metadata.jsonl:2.objects.0", "mask or a box"),
    ({"file_name": "0.png", "objects": [{"mask": "m.png"}]}, "metadata.jsonl:2.objects.0.mask", "no file m.png"),
    ({"file_name": "0.png", "objects": [{"mask": "small.png"}]}, "metadata.jsonl:2.objects.0.mask", "20 x 20 px"),
    ({"file_name": "0.png", "objects": [{"box": [0, 0, 60, 9]}]}, "metadata.jsonl:2.objects.0.box", "[left, top"),
])  # fmt: skip
def test_every_complaint_names_its_line(tmp_path: Path, bad: Any, place: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        Folder(folder(tmp_path / "data", GOOD, bad), 32)
    assert error.value.field == place and said in error.value.message


def test_a_folder_without_lines(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no metadata\.jsonl"):
        Folder(folder(tmp_path / "data"), 32)
    with pytest.raises(RecipeError, match="no lines"):
        Folder(folder(tmp_path / "data", ""), 32)


@pytest.mark.parametrize(("lines", "lessons", "place", "said"), [
    ((PLAIN, BOXED), ("shape",), "metadata.jsonl:2", "masks"),
    ((PLAIN,), ("text",), "metadata.jsonl:1", "no line has objects"),
    ((GOOD, PLAIN), ("text", "shape"), "metadata.jsonl:2", "nothing to learn"),
])  # fmt: skip
def test_a_task_without_its_data(tmp_path: Path, lines: Any, lessons: Any, place: str, said: str) -> None:
    with pytest.raises(RecipeError) as error:
        Crops(Folder(folder(tmp_path / "data", *lines), 32), None, lessons)
    assert error.value.field == place and said in error.value.message


def test_crops_are_what_they_say(tmp_path: Path) -> None:
    data = Folder(folder(tmp_path / "data", GOOD, BOXED, PLAIN), 32)
    crops = Crops(data, None)
    assert crops.lessons == ("text", "shape", "removal", "outpaint", "picture")
    assert Crops(Folder(folder(tmp_path / "plain", PLAIN), 32), None).lessons == ("removal", "outpaint", "picture")
    tasks = set()
    for pick in range(120):
        example = crops.example(pick, np.random.default_rng(pick))
        tasks.add(example.task)
        assert example.picture.shape == (32, 32, 3) and example.hole.shape == (32, 32) and example.hole.any()
        assert np.array_equal(example.picture, crops._crop(pick).picture), "a pick always means the same crop"
        assert 0 < example.share <= 1 and (example.share == 1 or example.task == "shape")
        assert example.task != "shape" or pick % 3 == 0, "only the first line has a mask"
    assert tasks == {"text", "shape", "removal", "outpaint", None}


def test_an_empty_mask_is_found_when_it_is_read(tmp_path: Path) -> None:
    line = {"file_name": "0.png", "objects": [{"mask": "black.png"}]}
    crops = Crops(Folder(folder(tmp_path / "data", PLAIN, line), 32), None, ("text", "removal"))
    with pytest.raises(RecipeError, match="no white pixel") as error:
        for pick in range(1, 40, 2):
            crops.crop(pick)
    assert error.value.field == "metadata.jsonl:2"


def recipe(base: Path, **fields: Any) -> Recipe:
    picture, mask = np.full((32, 32, 3), 90, np.uint8), np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    return Recipe(
        model=str(base), prompt="a dog", steps=2, conditions=(PowerPaint(image=picture, mask=mask, **fields),)
    )


SHORT = TrainConfig(2, lr=1e-4, warmup=1, schedule="constant", save_every=1)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "learn"), [(4, "all"), (9, "tokens")])
def test_a_first_generation_of_ones_own(tmp_path: Path, channels: int, learn: Any) -> None:
    """Trained, interrupted and resumed, saved, loaded by its path, painted with."""
    base = disk.base(tmp_path / "base", in_channels=channels, image_encoder=False)
    data, out = folder(tmp_path / "data", GOOD, BOXED, PLAIN), tmp_path / "mine"
    run = Run(str(base), str(data), "v1", learn, size=32, batch_size=2)
    assert not train(
        run, out, TrainConfig(**{**vars(SHORT), "max_minutes": 0}), ModelStore(dtype=torch.float32, device="cpu")
    )
    assert (out / "checkpoints" / "checkpoint-00000001").is_dir()
    assert train(run, out, SHORT, ModelStore(dtype=torch.float32, device="cpu"))
    engine = infuse.load(str(out), device="cpu", dtype=torch.float32)
    image = engine.run(recipe(out, task="text")).image
    assert image.size == (32, 32)
    with pytest.raises(RecipeError, match="learn"):
        train(Run(str(base), str(data), "v1", "tokens" if learn == "all" else "all", size=32, batch_size=2), out, SHORT)


@pytest.mark.slow
def test_a_second_generation_of_ones_own(tmp_path: Path) -> None:
    base = disk.base(tmp_path / "base", image_encoder=False)
    data, out = folder(tmp_path / "data", GOOD, PLAIN), tmp_path / "mine"
    assert train(
        Run(str(base), str(data), "v2", size=32, batch_size=2),
        out,
        SHORT,
        ModelStore(dtype=torch.float32, device="cpu"),
    )
    engine = infuse.load(str(base), device="cpu", dtype=torch.float32)
    assert engine.run(recipe(base, task="shape", fit=0.5, model=str(out))).image.size == (32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "fields", "where"), [
    (4, {"learn": "tokens"}, "learn"), (9, {"generation": "v2"}, "model"), (4, {"size": 30}, "size"), (5, {}, "model"),
])  # fmt: skip
def test_what_does_not_fit_is_refused_at_once(
    tmp_path: Path, channels: int, fields: dict[str, Any], where: str
) -> None:
    base = disk.base(tmp_path / "base", in_channels=channels, image_encoder=False)
    with pytest.raises(RecipeError) as error:
        train(Run(str(base), str(tmp_path / "nowhere"), **{"size": 32, **fields}), tmp_path / "out")
    assert error.value.field == where and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from infuse.cli.app import app

    base, data = disk.base(tmp_path / "base", image_encoder=False), folder(tmp_path / "data", GOOD)
    said = [
        "train",
        "powerpaint",
        "--model",
        str(base),
        "--data",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--size",
        "32",
    ]
    wrong = CliRunner().invoke(app, [*said, "--task", "dance"])
    assert wrong.exit_code == 2 and "Choose from: text, shape" in wrong.stderr
    done = CliRunner().invoke(app, [*said, "--steps", "1", "--batch-size", "1", "--device", "cpu", "--task", "shape"])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == str(tmp_path / "out") and (tmp_path / "out" / "unet").is_dir()
    assert PLAN.lr == 1e-5 and PLAN.optimizer == "adamw", "the paper's"

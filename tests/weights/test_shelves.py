"""The folders of other programs are read as they lie, and every name of a listing is found again."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infuse.cli.app import app
from infuse.errors import WeightsError
from infuse.weights.library import Library

from . import zoo, zoo_more
from .test_identify_zoo import written

LINES = zoo.CASES["T2I full, original"], zoo_more.CASES["LoRA diffusers, processors"], zoo.CASES["words in one table"]
T2I, LORA, WORDS = (zoo.shapes(case.make()) for case in LINES)
VAE = zoo.shapes(zoo_more.CASES["VAE, its decoder only"].make())
CONTROL = zoo.shapes(zoo.CASES["ControlNet for SD 1.5, ldm"].make())


def put(path: Path, shapes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return written(path.parent, shapes, "F16", path.name)


def listed(root: Path, *more: Path) -> dict[str, dict[str, Any]]:
    """What `infuse models --json` says of some folders, without what comes with infuse."""
    result = CliRunner().invoke(app, ["models", "--json", str(root), *map(str, more)])
    assert result.exit_code == 0, result.output
    found = {one["name"]: one for one in json.loads(result.stdout)}
    return {n: one for n, one in found.items() if n not in Library([]).embedded}


def again(found: dict[str, dict[str, Any]], *roots: Path) -> None:
    library = Library(roots, offline=True)
    for name, one in found.items():
        assert str(library.find(name).path) == one["path"]


def webui(root: Path) -> Path:
    put(root / "models" / "Lora" / "styles" / "ink.safetensors", LORA)
    put(root / "models" / "ControlNet" / "lines.safetensors", CONTROL)
    put(root / "models" / "ControlNet" / "sketch.safetensors", T2I)
    put(root / "models" / "VAE" / "clear.safetensors", VAE)
    put(root / "embeddings" / "cat.safetensors", WORDS)
    put(root / "extensions" / "sd-webui-controlnet" / "models" / "old.safetensors", T2I)
    put(root / "outputs" / "no.safetensors", WORDS)
    put(root / "venv" / "lib" / "no.safetensors", WORDS)
    (root / "config.json").write_text("{}")
    return root


@pytest.mark.slow
def test_the_webui(tmp_path: Path) -> None:
    root = webui(tmp_path / "webui")
    found = listed(root)
    assert {n: one["kind"] for n, one in found.items()} == {
        "styles/ink": "lora", "lines": "controlnet", "sketch": "t2i_adapter", "clear": "vae", "cat": "textual_inversion", "old": "t2i_adapter",
    }  # fmt: skip
    assert (
        found["styles/ink"]["family"] == "sd1"
        and found["lines"]["yaml"] == "conditions:\n- {kind: controlnet, model: lines, image: map.png}\n"
    )
    again(found, root)
    inside = listed(root / "models")  # the models folder alone is a root as well
    assert set(inside) == {"styles/ink", "lines", "sketch", "clear"}


@pytest.mark.slow
def test_comfyui_and_the_paths_it_points_to(tmp_path: Path) -> None:
    other, root = webui(tmp_path / "webui"), tmp_path / "ComfyUI"
    put(root / "models" / "checkpoints" / "a" / "b" / "c.safetensors", CONTROL)
    put(root / "models" / "vae_approx" / "taesd_decoder.safetensors", zoo_more.bare("decoder"))
    put(root / "models" / "style_models" / "style.safetensors", zoo.style())
    put(root / "models" / "ipadapter" / "x.safetensors", zoo.shapes(zoo.CASES["IP-Adapter: SD 1.5"].make()))
    put(root / "models" / "custom_nodes" / "no.safetensors", WORDS)
    (root / "extra_model_paths.yaml").write_text(
        "a111:\n    base_path: ../webui/\n    loras: |\n        models/Lora\n        models/LyCORIS\n    controlnet: models/ControlNet\n"
        f"mine:\n    vae: {other / 'models' / 'VAE'}\nnothing:\n"
    )
    found = listed(root)
    assert {n: one["kind"] for n, one in found.items()} == {
        "a/b/c": "controlnet", "taesd_decoder": "taesd", "style": "t2i_style", "x": "ip_adapter",
        "styles/ink": "lora", "lines": "controlnet", "sketch": "t2i_adapter", "clear": "vae",
    }  # fmt: skip
    again(found, root)
    closed = Library([root], offline=True, paths=False)  # the owner of a root says where it leads, strangers do not
    assert closed.find("lines").path.is_file()
    for name in (
        "../../embeddings/cat",
        "../lines/../../../embeddings/cat",
        str(other / "embeddings" / "cat.safetensors"),
    ):
        with pytest.raises(WeightsError, match="was not found"):
            closed.find(name)
    (root / "extra_model_paths.yaml").write_text("- : {broken")
    assert set(listed(root)) == {"a/b/c", "taesd_decoder", "style", "x"}


def test_invokeai_has_names_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "invokeai"
    put(root / "models" / "1f0e-key" / "file.safetensors", T2I)
    put(root / "models" / "sd-1" / "lora" / "plain.safetensors", LORA)
    put(tmp_path / "elsewhere" / "far.safetensors", CONTROL)
    (root / "databases").mkdir()
    with sqlite3.connect(root / "databases" / "invokeai.db") as base:
        base.execute("CREATE TABLE models (id TEXT PRIMARY KEY, config TEXT NOT NULL)")
        for key, name, path in (("1f0e-key", "Sketches, mine", "1f0e-key/file.safetensors"), ("b", "broken", None)):
            base.execute(
                "INSERT INTO models VALUES (?, ?)",
                (key, json.dumps({"key": key, "name": name, "path": path} if path else {})),
            )
    base.close()
    found = listed(root)
    assert {n: one["kind"] for n, one in found.items()} == {"Sketches, mine": "t2i_adapter", "sd-1/lora/plain": "lora"}
    again(found, root)


def test_one_name_on_two_shelves(tmp_path: Path) -> None:
    for shelf, shapes in (("loras", LORA), ("controlnet", CONTROL)):
        put(tmp_path / "models" / shelf / "edges_.safetensors", shapes)
    found = listed(tmp_path)
    assert set(found) == {"models/loras/edges_.safetensors", "models/controlnet/edges_.safetensors"}
    again(found, tmp_path)
    with pytest.raises(WeightsError, match=r"is the name of 2 models: .*controlnet.*loras.*Give the path") as letter:
        Library([tmp_path], offline=True).find("edges_", "conditions.0.model")
    assert letter.value.field == "conditions.0.model"


@pytest.mark.slow
def test_a_folder_of_ones_own_in_any_order(tmp_path: Path) -> None:
    put(tmp_path / "mine.safetensors", CONTROL)
    put(tmp_path / "sd15" / "adapters" / "one.safetensors", T2I)
    put(tmp_path / "sd15" / "adapters" / "two.safetensors", LORA)
    put(tmp_path / ".hidden" / "no.safetensors", WORDS)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    found = listed(tmp_path)
    assert set(found) == {"mine", "sd15/adapters/one", "sd15/adapters/two", "broken"}
    assert "error" in found.pop("broken")
    again(found, tmp_path)
    result = CliRunner().invoke(app, ["models", str(tmp_path)])
    assert "cannot be used" in next(line for line in result.stdout.splitlines() if line.startswith("broken "))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["models", str(tmp_path / "none")])
    assert result.exit_code == 2 and "there is no folder" in result.stderr

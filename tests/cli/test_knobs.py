"""A VAE, a text encoder and a scheduler's knobs on the command line, and in recipes of strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import tiny
from infuse import Recipe, WeightsError
from infuse.cli.app import app
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.fixture
def parts(world: Path) -> Path:
    if not (world / "parts").exists():
        tiny.vae().save_pretrained(world / "parts" / "vae")
        tiny.text_encoder(32, False, 9).save_pretrained(world / "parts" / "text")
    return world / "parts"


def test_check_says_them(parts: Path) -> None:
    shown = call("check", "x", "--model", "./base", "--vae", "./parts/vae", "--text-encoder", "./parts/text", "--scheduler", "Euler",
                 "--set", "eta=null", "--set", "scheduler_options.sigmas=[9, 3, 0]")  # fmt: skip
    assert shown.exit_code == 0, shown.output
    lines = {line.split()[0]: line.split(maxsplit=1)[1] for line in shown.stdout.splitlines() if line.strip()}
    assert lines["vae"] == "./parts/vae" and lines["text"] == "through ./parts/text" and lines["steps"] == "2"
    assert lines["scheduler"] == "Euler (EulerDiscreteScheduler), sigmas [9.0, 3.0, 0.0]"


def test_letters_name_the_option(parts: Path) -> None:
    for words, said in (
        (("--vae", "./parts/text"), "--vae: "), (("--text-encoder", "./parts/vae"), "--text-encoder: "),
        (("--eta", "0.5"), "--eta: it is a knob of the scheduler"),
        (("--scheduler", "Euler a", "--set", "scheduler_options.eta=0.5"), "--set scheduler_options.eta: Euler a"),
    ):  # fmt: skip
        shown = call("check", "x", "--model", "./base", *words)
        assert shown.exit_code == 2 and f"error: {said}" in shown.output, shown.output


@pytest.mark.slow
def test_a_picture_keeps_what_made_it(parts: Path, tmp_path: Path) -> None:
    made = call("run", "x", "--model", "./base", "--vae", "./parts/vae", "--steps", "2", "--scheduler", "DDIM", "--set",
                "scheduler_options.eta=0.5", "-o", str(tmp_path / "a.png"))  # fmt: skip
    assert made.exit_code == 0, made.output
    again = call("run", str(tmp_path / "a.png"), "--trust", "-o", str(tmp_path / "b.png"))
    assert again.exit_code == 0 and (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_a_recipe_s_paths_begin_where_it_lies(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.json").write_text(json.dumps({"model": "./kept", "vae": "./kept_vae", "prompt": "x"}))
    (tmp_path / "kept").symlink_to(parts.parent / "base")
    (tmp_path / "kept_vae").symlink_to(parts / "vae")
    monkeypatch.chdir(parts)
    shown = call("check", str(tmp_path / "r.json"))
    assert shown.exit_code == 0, shown.output
    shown = call("check", str(tmp_path / "r.json"), "--vae", "vae")
    assert shown.exit_code == 0, shown.output


def test_a_stranger_may_not_name_any_file(parts: Path) -> None:
    for field in ("vae", "text_encoder"):
        recipe = Recipe.load({"prompt": "x", field: str(parts / "vae")}, trust=False)
        with pytest.raises(WeightsError, match="none of the models that this recipe may use") as letter:
            Engine(str(parts.parent / "base"), store=ModelStore(dtype="float32", device="cpu")).check(recipe)
        assert letter.value.field == field

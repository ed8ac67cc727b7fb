"""What the command line promises: options win, letters and exit codes, and a picture runs again to the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import filming
import pytest
from typer.testing import CliRunner

from infuse import Recipe
from infuse.cli.app import app
from infuse.cli.recipe import Asked, assign, weighed
from infuse.errors import RecipeError


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow  # quick: laws/test_ports_laws.py has a picture run again, test_check_shows_routes the command line
def test_everything_in_one_call_and_the_picture_runs_again_to_the_same_bytes(world: Path) -> None:
    first = call("run", "a red cube", "--model", "./base", "--steps", "3", "--seed", "5", "--control", "./edges=a.png@0.7",
                 "--inpaint", "a.png", "mask.png", "--ip", "b@2.png@0.4", "--set", "conditions.2.model=./ip-adapter.safetensors",
                 "--count", "2", "-o", "made/x.png")  # fmt: skip
    assert first.exit_code == 0, first.output
    assert first.stdout.split() == ["made/x-0.png", "made/x-1.png"]
    recipe = Recipe.load("made/x-1.png")
    assert [c.kind for c in recipe.conditions] == ["inpaint", "controlnet", "ip_adapter"]
    assert [c.weight for c in recipe.conditions] == [1, 0.7, 0.4]
    assert (recipe.seed, recipe.count, recipe.steps) == (6, 1, 3)
    again = call("run", "made/x-1.png", "--trust", "-o", "again.png")
    assert again.exit_code == 0 and "warning" not in again.stderr
    assert Path("again.png").read_bytes() == Path("made/x-1.png").read_bytes()
    other = call("run", "made/x-1.png", "--trust", "--seed", "7", "-o", "other.png")
    assert other.exit_code == 0 and Recipe.load("other.png").seed == 7
    assert f"recipe {Recipe.load('other.png').digest}" in other.stderr


@pytest.mark.slow
def test_a_replay_with_other_weights_says_whose(world: Path) -> None:
    assert call("run", "x", "--model", "./base", "--steps", "1", "-o", "before.png").exit_code == 0
    config = Path("base/vae/config.json")
    kept = config.read_text()
    try:
        config.write_text(kept + "\n")
        again = call("run", "before.png", "--trust", "-o", "after.png")
    finally:
        config.write_text(kept)
    assert again.exit_code == 0
    assert "warning: the weights of './base' are not those that made before.png" in again.stderr


def test_check_shows_routes_and_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infuse.weights.base.load_base", None)
    Path("r.yaml").write_text(
        "model: ./base\nprompt: x\nsteps: 4\nconditions:\n- {kind: controlnet, model: ./edges, image: a.png, end: 0.5}\n"
    )
    shown = call("check", "r.yaml")
    assert shown.exit_code == 0, shown.output
    for words in (
        "conditions.0",
        "residuals",
        "32 x 32 px",
        "4 network calls, 8 rows, 4 rows of branch networks",
        Recipe.load("r.yaml").digest,
    ):
        assert words in shown.stdout
    assert call("run", "r.yaml", "--check").stdout == shown.stdout


def test_a_recipe_s_paths_begin_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: Path) -> None:
    """S8: models as pictures, whatever the working folder is; then INFUSE_MODELS."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.png").symlink_to(world / "a.png")
    (tmp_path / "recipes" / "kept").symlink_to(world / "base")
    monkeypatch.chdir(tmp_path)
    said = "model: {}\nprompt: x\nconditions:\n- {{kind: img2img, image: a.png}}\n"
    Path("recipes/r.yaml").write_text(said.format("./kept"))
    shown = call("check", "recipes/r.yaml")
    assert shown.exit_code == 0 and "32 x 32 px" in shown.stdout, shown.output
    Path("recipes/r.yaml").write_text(said.format("elsewhere/base"))
    assert call("check", "recipes/r.yaml").exit_code == 2
    (tmp_path / "models" / "elsewhere").mkdir(parents=True)
    (tmp_path / "models" / "elsewhere" / "base").symlink_to(world / "base")
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path / "models"))
    shown = call("check", "recipes/r.yaml")
    assert shown.exit_code == 0, shown.output


def test_a_film_is_a_hint_on_the_command_line(tmp_path: Path) -> None:
    """U19."""
    pytest.importorskip("av", reason="pip install 'infuse[video]'")
    clip = filming.video(tmp_path / "clip.mp4", filming.drifting(8))
    shown = call("check", "x", "--model", "tabletop-video", "--control", f"edges={clip}")
    assert shown.exit_code == 0 and "conditions.0" in shown.stdout, shown.output


def test_a_photo_for_a_controlnet_that_nobody_knows(world: Path, tmp_path: Path) -> None:
    """U3: told by the name it was released under, or warned of with what to do."""
    for name, warned in (("mynet", True), ("mycanny", False)):
        (tmp_path / name).symlink_to(world / "edges")
        shown = call("check", "x", "--model", "./base", "--control", f"{tmp_path / name}=a.png")
        assert shown.exit_code == 0, shown.output
        assert ("conditions.0.annotator: nothing says what maps" in " ".join(shown.output.split())) == warned


def test_options_win_over_the_file() -> None:
    Path("r.yaml").write_text("model: ./base\nprompt: x\nsteps: 4\n")
    recipe = Asked(
        "r.yaml",
        {"steps": 9, "seed": None},
        sets=["guidance={0: 7, 1: 1}", "conditions.0.kind=text", "conditions.0.prompt=5 o'clock"],
    ).recipe()
    assert (recipe.steps, recipe.prompt, recipe.guidance) == (9, "x", {0: 7, 1: 1})
    assert recipe.conditions[0].model_dump()["prompt"] == "5 o'clock"


def test_a_file_is_taken_by_its_whole_name_first() -> None:
    assert weighed("b@2.png") == ("b@2.png", None)
    assert weighed("b@2.png@0.5") == ("b@2.png", 0.5)
    assert weighed("data:image/png;base64,xx@1") == ("data:image/png;base64,xx", 1.0)
    assert weighed("me@home.png") == ("me@home.png", None)
    assert weighed(f"{'x' * 5000}@1") == ("x" * 5000, 1.0) and weighed("~nosuchuser/a.png@1") == (
        "~nosuchuser/a.png",
        1.0,
    )


def test_a_long_prompt_is_no_file() -> None:
    assert Asked("a red cube " * 100).recipe().prompt == "a red cube " * 100


@pytest.mark.parametrize(("assignment", "words"), [
    ("steps", "not of the form"), ("=5", "not of the form"), ("conditions.2.weight=1", "0 entries"), ("prompt.x=1", "has no fields"),
    ("steps={", "not YAML"),
])  # fmt: skip
def test_what_set_cannot_do(assignment: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        assign({"prompt": "x", "conditions": []}, assignment)


@pytest.mark.parametrize("words", [
    ("run", "x", "--model", "./nowhere"), ("run", "missing.yaml"), ("run", "x", "--model", "./base", "--steps", "0"),
    ("run", "x", "--steps", "many"), ("run", "x", "--nonsense"), ("run",), ("frobnicate",), ("run", "a.png"),
    ("run", "x", "--model", "./base", "-o", "x.bmp"), ("run", "x", "--control", "edges"), ("run", "x", "--set", "steps"),
    ("run", "x", "--model", "./base", "--init", "missing.png"), ("check", "x", "--model", "./edges"),
], ids=" ".join)  # fmt: skip
def test_whatever_cannot_be_done_is_a_letter_and_exit_code_2(words: tuple[str, ...]) -> None:
    result = call(*words)
    assert result.exit_code == 2 and isinstance(result.exception, SystemExit)
    assert result.stderr.strip() and "Traceback" not in result.stderr and not result.stdout


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infuse.cli.app.make", interrupt)
    result = call("run", "x")
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_schema_and_version() -> None:
    assert set(json.loads(call("schema").stdout)["properties"]) == set(Recipe.model_fields)
    assert call("--version").stdout.strip() == __import__("infuse").__version__


def test_models_tells_what_files_are(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in (("lines", "edges"), ("look.safetensors", "ip-adapter.safetensors")):
        (tmp_path / name).symlink_to(world / source)
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    shown = {line.split()[0]: line for line in call("models").stdout.splitlines()}
    assert "a ControlNet" in shown["lines"] and "an IP-Adapter (plain)" in shown["look"]
    assert "a base model" in shown["tabletop"]


@pytest.mark.slow
def test_the_installed_command_runs(world: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infuse.cli.app", "run", "x", "--model", "./base", "--steps", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_file()
    assert [line.split()[0] for line in done.stderr.strip().splitlines()] == ["recipe"]

"""Options under others' names, letters that name the option as it was typed, warnings, and pictures saved as they are done."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from infuse import Recipe
from infuse.cli.app import app
from infuse.cli.recipe import Asked, Machine
from infuse.engine.engine import Engine

TINY = ("--model", "./base", "--steps", "2")


def call(*words: str) -> Any:
    return CliRunner().invoke(app, list(words))


@pytest.mark.slow
def test_run_and_check_take_the_same_options() -> None:
    from typer.main import get_command

    commands: Any = get_command(app)
    options = [{o for p in commands.commands[name].params for o in p.opts} for name in ("run", "check")]
    assert options[0] - options[1] == {"--check"} and not options[1] - options[0]
    for option in ("--negative-prompt", "--negative", "--sampler", "--cfg-scale", "--num-inference-steps", "-n", "--device", "--dtype",
                   "--offline", "--trust", "--memory", "--record", "--inputs"):  # fmt: skip
        assert option in options[1]


def test_others_names_mean_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Recipe] = []
    monkeypatch.setattr("infuse.cli.app.make", lambda asked: seen.append(asked.recipe()) or [])
    ours = ("run", "x", "--negative-prompt", "n", "--guidance", "4", "--steps", "5", "--scheduler", "DPM++ 2M Karras", "--count", "3",
            "--width", "64", "--height", "32")  # fmt: skip
    theirs = ("run", "x", "--negative", "n", "--cfg-scale", "4", "--num-inference-steps", "5", "--sampler", "DPM++ 2M", "--scheduler",
              "Karras", "-n", "3", "--size", "64x32")  # fmt: skip
    for words in (ours, theirs):
        assert call(*words).exit_code == 0
    assert seen[0] == seen[1]


def test_options_win_over_the_file_whatever_it_calls_them() -> None:
    Path("r.yaml").write_text("prompt: x\ncfg_scale: 7\nsampler: Euler a\nwidth: 64\nheight: 64\nseed: [3, 5, 8]\n")
    recipe = Asked("r.yaml", {"guidance": 4, "sampler": "DDIM", "size": "32x16", "seed": "9"}).recipe()
    assert (recipe.guidance, recipe.scheduler, recipe.width, recipe.height, recipe.seeds) == (4, "DDIM", 32, 16, (9,))
    assert Asked("r.yaml", {"seed": "1,2"}).recipe().seeds == (1, 2)
    assert Asked("r.yaml").recipe().seeds == (3, 5, 8)


@pytest.mark.parametrize(("words", "begins"), [
    (("--num-inference-steps", "0"), "error: --num-inference-steps: "), (("-n", "0"), "error: -n: "), (("--cfg-scale", "nan"), "error: --cfg-scale: "),
    (("--sampler", "Euller"), "error: --sampler: "), (("--seed", "x"), "error: --seed: "), (("--dtype", "float12"), "error: --dtype: "),
    (("--device", "nope"), "error: --device: "), (("--memory", "much"), "error: --memory: "), (("--set", "steps=0"), "error: --set steps: "),
    (("--control", "./edges=missing.png"), "error: --control ./edges=missing.png, image: "), (("--init", "a.png@7"), "error: --init a.png@7, strength: "),
    (("--ip", "./gone.safetensors=a.png"), "error: --ip ./gone.safetensors=a.png, model: "), (("--strength", "0.5"), "error: --strength: "),
    (("--clip-skip", "2"), "error: --clip-skip: "), (("--vae", "x"), "error: --vae: "), (("--lora", "x"), "error: --lora: "),
    (("--stepps", "3"), "error: --stepps: there is no such option. Did you mean --steps?"), (("-o", "x.bmp"), "error: -o: "),
    (("--size", "big"), "error: --size: "), (("--width", "3"), "error: --width: "),
], ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")  # fmt: skip
def test_letters_name_the_option_as_it_was_typed(words: tuple[str, ...], begins: str) -> None:
    for command in ("run", "check"):
        result = call(command, "x", "--model", "./base", *words)
        assert result.exit_code == 2 and result.stderr.startswith(begins), result.stderr


def test_a_files_own_fields_keep_their_names() -> None:
    Path("bad.yaml").write_text("prompt: x\nsteps: 0\n")
    assert call("run", "bad.yaml", "--guidance", "3").stderr.startswith("error: steps: ")


def test_warnings_are_said_once(recwarn: pytest.WarningsRecorder) -> None:
    made = call("run", "(red)1.3 cube", *TINY, "--negative", "blue", "--guidance", "1", "-n", "2", "-o", "warned.png")
    assert made.exit_code == 0, made.output
    assert made.stderr.count("warning: negative_prompt: it changes nothing") == 1
    assert made.stderr.count("is words with a weight") == 1
    assert not [w for w in recwarn.list if "negative" in str(w.message)], "they are for people, not for Python"
    checked = call("check", "(red)1.3 cube", *TINY, "--negative", "blue", "--guidance", "1")
    assert checked.stdout.count("it changes nothing") == 1


@pytest.mark.slow
def test_a_random_seed_is_told_and_runs_again() -> None:
    made = call("run", "x", *TINY, "--seed", "random", "-o", "one.png")
    assert made.exit_code == 0, made.output
    seed = Recipe.load("one.png").seed
    assert isinstance(seed, int) and f"seed {seed}" in made.stderr.splitlines()
    assert call("run", "one.png", "--trust", "-o", "two.png").exit_code == 0
    assert Path("two.png").read_bytes() == Path("one.png").read_bytes()


@pytest.mark.slow
def test_listed_seeds_are_one_picture_each() -> None:
    made = call("run", "x", *TINY, "--seed", "3,9", "-o", "l.png")
    assert made.exit_code == 0, made.output
    assert made.stdout.split() == ["l-0.png", "l-1.png"]
    assert [Recipe.load(p).seed for p in made.stdout.split()] == [3, 9]
    assert call("run", "x", *TINY, "--seed", "9", "-o", "m.png").exit_code == 0
    assert Path("m.png").read_bytes() == Path("l-1.png").read_bytes()


@pytest.mark.slow
def test_each_picture_is_saved_when_it_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the third of five: two are there, and it is said how to go on."""
    made = Engine.run_all

    def twice(self: Engine, *recipes: Any, **more: Any) -> Any:
        if recipes[0].asked.seed == 7:
            assert Path("c-0.png").is_file() and Path("c-1.png").is_file()
            raise KeyboardInterrupt
        return made(self, *recipes, **more)

    monkeypatch.setattr(Engine, "run_all", twice)
    result = call("run", "x", *TINY, "--seed", "5", "--count", "5", "-o", "c.png")
    assert result.exit_code == 130
    assert result.stdout.split() == ["c-0.png", "c-1.png"] and not Path("c-2.png").exists()
    assert (
        "interrupted: 2 of 5 are done. For the rest run the same with --seed 7 --count 3 -o rest.png" in result.stderr
    )
    assert Recipe.load("c-1.png").seed == 6
    assert not [p for p in Path(".").iterdir() if "part" in p.name or "tmp" in p.name], "nothing is half-written"


@pytest.mark.slow
def test_offline_and_dtype_reach_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.engine.model_store import ModelStore

    store = ModelStore(**vars(Machine(device="cpu", dtype="bf16", memory="1GB", offline=True)))
    assert (store.library.offline, store.dtype_name, store.device_name) == (True, "bfloat16", "cpu")
    shown = call("check", "x", *TINY, "--dtype", "bf16", "--offline")
    assert "bfloat16 on cpu" in shown.stdout
    monkeypatch.delenv("HF_HUB_OFFLINE")
    nowhere = call("check", "x", "--model", "nobody-here/nothing", "--offline")
    assert nowhere.exit_code == 2 and "offline" in nowhere.stderr


@pytest.mark.slow
def test_what_a_file_says_of_itself() -> None:
    for kind in ("full", "none"):
        assert call("run", "x", *TINY, "--record", kind, "-o", f"{kind}.png").exit_code == 0
    shown = call("show", "full.png")
    assert shown.exit_code == 0 and "prompt: x" in shown.stdout and "resolved:" in shown.stdout
    assert call("show", "none.png").exit_code == 2
    assert call("run", "x", *TINY, "--record", "half").exit_code == 2


@pytest.mark.slow
def test_a_strangers_picture_beside_ones_own(world: Path) -> None:
    """Options are one's own: they may name files, whoever made the picture that is run again."""
    assert call("run", "x", *TINY, "-o", "stranger.png").exit_code == 0
    recipe = Asked("stranger.png", {"steps": 3}, init="a.png@0.5", control=("./edges=a.png",)).recipe()
    assert [c.kind for c in recipe.conditions] == ["img2img", "controlnet"] and recipe.steps == 3
    assert not recipe._reading.trusting
    trusted = Asked("stranger.png", trust=True).recipe()
    assert trusted._reading.trusting


def test_two_spellings_of_one_option_are_a_letter() -> None:
    """Of two pictures by three one would be dropped in silence."""
    for words in (("--cfg", "3", "--guidance", "4"), ("--batch-size", "2", "-n", "3")):
        refused = call("check", "x", *TINY, *words)
        assert refused.exit_code == 2 and f"{words[2]}: it means the same as {words[0]}" in refused.stderr
    assert call("check", "x", *TINY, "--set", "steps=2", "--set", "count=2").exit_code == 0
    assert call("check", "x", *TINY, "--init", "a.png", "--init-image", "a.png").exit_code == 2
    twice = (f"{option}=./ip-adapter.safetensors=a.png" for option in ("--ip", "--ip-adapter"))
    assert call("check", "x", *TINY, *twice).exit_code == 0


def test_a_picture_has_no_frame_rate() -> None:
    refused = call("check", "x", *TINY, "--fps", "5")
    assert refused.exit_code == 2 and "--fps: a picture has no frame rate" in refused.stderr


def test_check_names_the_sampler_as_people_do() -> None:
    shown = call("check", "x", *TINY, "--sampler", "dpmpp_2m", "--scheduler", "karras").stdout
    assert "DPM++ 2M Karras (DPMSolverMultistepScheduler)" in shown
    assert "DDIM (DDIMScheduler)" in call("check", "x", *TINY, "--scheduler", "ddim").stdout


def test_check_says_how_long_it_takes() -> None:
    shown = call("check", "x", *TINY, "--seed", "4")
    assert "time " in shown.stdout and "estimate" in shown.stdout and "peak" in shown.stdout


def test_the_schema_has_our_names_only() -> None:
    assert set(json.loads(call("schema").stdout)["properties"]) == set(Recipe.model_fields)


@pytest.mark.slow
def test_ctrl_c_in_the_middle_of_sixty(world: Path) -> None:
    """The real signal: those that are done stay, whole; exit code 130; and it is said how to go on."""
    words = [
        sys.executable,
        "-m",
        "infuse.cli",
        "run",
        "x",
        "--model",
        "./base",
        "--steps",
        "20",
        "--count",
        "60",
        "-o",
        "sixty/s.png",
    ]
    listening = functools.partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # jobs in the background have it ignored
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listening
    ) as running:
        assert running.stdout is not None and running.stderr is not None
        first = [running.stdout.readline().strip() for _ in range(2)]  # printed at once, before the others are made
        running.send_signal(signal.SIGINT)
        rest, said = running.stdout.read().split(), running.stderr.read()
    assert running.returncode == 130, said
    done = [*first, *rest]
    assert first == ["sixty/s-0.png", "sixty/s-1.png"] and 2 <= len(done) < 60
    assert sorted(p.name for p in Path("sixty").iterdir()) == sorted(Path(p).name for p in done), "nothing half-written"
    assert [Recipe.load(p).seed for p in done] == list(range(len(done)))
    assert f"--seed {len(done)} --count {60 - len(done)}" in said and "Traceback" not in said

"""A recipe that came out of a stranger's picture reads nothing but what it carries, and fetches nothing; its letter is the same
whether what it names exists or not."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infuse.engine.engine import Engine
from infuse.errors import InfuseError
from infuse.media.reading import STRICT
from infuse.recipe import Recipe

SEEN: list[tuple[str, str]] = []
WATCHING: list[bool] = []


def hook(event: str, args: tuple[Any, ...]) -> None:
    if WATCHING and event in (
        "open",
        "os.listdir",
        "os.scandir",
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
    ):
        SEEN.append((event, str(args[0] if event != "socket.connect" else args[1])))


sys.addaudithook(hook)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home with pictures and models that are nobody's affair; the working folder lies in it."""
    home = tmp_path / "home"
    (home / "desk" / "frames").mkdir(parents=True)
    for place in (home / "private.png", home / "desk" / "here.png", home / "desk" / "frames" / "0.png"):
        Image.new("RGB", (32, 32), "red").save(place)
    for place in (home / "secret.safetensors", home / "desk" / "own.safetensors"):
        place.write_bytes(b"x" * 100)
    (home / "owner" / "name").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "cache"))
    monkeypatch.delenv("INFUSE_MODELS", raising=False)
    monkeypatch.chdir(home / "desk")
    yield home


def strange(at: Path, recipe: dict[str, Any], version: int = 1) -> Path:
    info = PngInfo()
    info.add_itxt("infuse", json.dumps({"version": version, "recipe": recipe, "inputs": {}, "weights": {}}))
    Image.new("RGB", (16, 16)).save(at / "stranger.png", pnginfo=info)
    return at / "stranger.png"


def image(path: str) -> dict[str, Any]:
    return {"prompt": "x", "conditions": [{"kind": "img2img", "image": path}]}


NAMED: dict[str, dict[str, Any]] = {
    "an absolute path": image("{home}/private.png"),
    "one that is absent": image("{home}/absent.png"),
    "the home": image("~/private.png"),
    "a folder up": image("../private.png"),
    "beside it": image("here.png"),
    "an address": image("https://example.org/private.png"),
    "a file address": image("file://{home}/private.png"),
    "another computer": image("\\\\host\\share\\private.png"),
    "a mask": {"prompt": "x", "conditions": [{"kind": "text", "prompt": "y", "mask": "{home}/private.png"}]},
    "a reference": {"prompt": "x", "conditions": [{"kind": "ip_adapter", "image": ["{home}/private.png"]}]},
    "a film": {"model": "tabletop-video", "conditions": [{"kind": "video_to_video", "film": "{home}/desk/frames"}]},
    "a film's mask": {"model": "tabletop-video", "conditions": [
        {"kind": "masked_video", "film": "data:image/png;base64,", "mask": {"source": "frames"}}]},
    "a hash": image("sha256:" + 64 * "0"),
    "a model": {"model": "{home}/secret.safetensors"},
    "a model that is absent": {"model": "{home}/nothing.safetensors"},
    "a model beside it": {"model": "own.safetensors"},
    "a model up": {"model": "../secret.safetensors"},
    "a model at home": {"model": "~/secret.safetensors"},
    "a model of the Hub": {"model": "owner/name"},
    "a model of the Hub at a revision": {"model": "owner/name@main"},
    "a ControlNet": {"conditions": [{"kind": "controlnet", "model": "{home}/secret.safetensors", "image": "{png}"}]},
    "a LoRA": {"conditions": [{"kind": "lora", "model": "{home}/secret.safetensors"}]},
    "a LoRA in the prompt": {"prompt": "a cat <lora:{home}/secret.safetensors:1>"},
    "a LoRA up": {"prompt": "<lora:../secret.safetensors:1>"},
    "a LoRA beside it": {"prompt": "<lora:own.safetensors:1>"},
    "a LoRA at home": {"prompt": "<lora:~/secret.safetensors:0.5> AND b"},
    "a LoRA of the machine": {"prompt": "<lora:/etc/passwd:1>"},
    "a LoRA of the Hub": {"prompt": "<lora:owner/name:1>"},
    "a LoRA in compel": {"prompt": "a cat withLora(own, 1)", "syntax": "compel"},
    "a LoRA chosen": {"prompt": "{{home}/x|<lora:../secret.safetensors:1>|<lora:../secret.safetensors:0.5>|<lora:../secret.safetensors:2>}", "seed": 1},
    "an embedding": {"prompt": "secret", "embeddings": ["{home}/secret.safetensors"]},
    "an embedding up": {"prompt": "x", "embeddings": ["../../secret.safetensors"]},
    "a VAE": {"vae": "{home}/secret.safetensors"},
    "a VAE up": {"vae": "../secret.safetensors"},
    "a text encoder": {"text_encoder": "{home}/secret.safetensors"},
    "a region": {"prompt": "x", "conditions": [{"kind": "regions", "regions": [{"prompt": "y", "mask": "{home}/private.png"}]}]},
    "an image encoder": {"conditions": [{"kind": "ip_adapter", "image": "{png}", "image_encoder": "owner/name"}]},
}  # fmt: skip


def filled(value: Any, home: Path) -> Any:
    import base64

    if isinstance(value, dict):
        return {k: filled(v, home) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, home) for v in value]
    if value == "{png}":
        return "data:image/png;base64," + base64.b64encode((home / "private.png").read_bytes()).decode()
    return value.replace("{home}", str(home)) if isinstance(value, str) else value


def refused(path: Path) -> tuple[InfuseError, list[tuple[str, str]]]:
    """The letter that ends it, and what was opened or asked for on the way."""
    engine = Engine()
    engine.check(Recipe(prompt="warm up"))
    SEEN.clear()
    WATCHING.append(True)
    try:
        with pytest.raises(InfuseError) as caught:
            engine.check(Recipe.load(path))
    finally:
        WATCHING.clear()
    return caught.value, list(SEEN)


@pytest.mark.parametrize("case", NAMED)
def test_nothing_is_read_and_nothing_fetched(case: str, private: Path, tmp_path: Path) -> None:
    path = strange(tmp_path, filled(NAMED[case], private))
    error, opened = refused(path)
    own = (str(path), sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    foreign = [seen for seen in opened if not seen[1].startswith(own)]
    assert not [seen for seen in opened if str(private) in seen[1]], (error, opened)
    assert not foreign, (str(error), foreign)
    assert "\n" not in str(error) and len(str(error)) < 800


@pytest.mark.slow
@pytest.mark.parametrize(
    ("there", "absent"), [("{home}/private.png", "{home}/absent.png"), ("../private.png", "../absent.png")]
)
def test_letters_do_not_tell_what_exists(there: str, absent: str, private: Path, tmp_path: Path) -> None:
    said = [str(refused(strange(tmp_path, filled(image(name), private)))[0]) for name in (there, absent)]
    assert said[0].replace("private", "absent") == said[1]
    asked: tuple[Callable[[str], dict[str, Any]], ...] = (
        lambda m: {"model": m},
        lambda m: {"vae": m},
        lambda m: {"text_encoder": m},
        lambda m: {"embeddings": [m]},
        lambda m: {"prompt": f"<lora:{m}:1>"},
    )
    for of in asked:
        models = [
            str(refused(strange(tmp_path, filled(of(m), private)))[0])
            for m in ("{home}/secret.safetensors", "{home}/absent.safetensors")
        ]
        assert models[0].replace("secret", "absent") == models[1]


@pytest.mark.parametrize(
    "words",
    [
        "__../private__ __{home}/private__",
        "__/etc/passwd__",
        "{__../secret__|__*__}",
        "secret <secret> embedding:../secret",
    ],
)
def test_words_open_nothing(words: str, private: Path, tmp_path: Path) -> None:
    """What could be read as a file is painted, and said."""
    (private / "private.txt").write_text("red\n")
    path = strange(tmp_path, {"prompt": words.replace("{home}", str(private)), "styles": []})
    engine = Engine()
    engine.check(Recipe(prompt="warm up"))
    SEEN.clear()
    WATCHING.append(True)
    try:
        with warnings.catch_warnings(record=True):
            warnings.simplefilter("always")
            engine.check(Recipe.load(path))
    finally:
        WATCHING.clear()
    assert not [seen for seen in SEEN if str(private) in seen[1] or seen[1].startswith("/etc")], SEEN


def test_whoever_trusts_it_may_run_it(private: Path, tmp_path: Path) -> None:
    path = strange(tmp_path, image(str(private / "private.png")))
    assert Engine().check(Recipe.load(path, trust=True)).size == (32, 32)


def test_what_the_user_types_himself_may_be_read(private: Path, tmp_path: Path) -> None:
    """Beside a stranger's recipe: one's own pictures and models. This one is no model, so the letter is about what is in it."""
    from typer.testing import CliRunner

    from infuse.cli.app import app

    path = strange(tmp_path, {"prompt": "x"})
    typed = ["--model", str(private / "secret.safetensors"), "--init", str(private / "private.png")]
    done = CliRunner().invoke(app, ["check", str(path), *typed])
    assert done.exit_code == 2 and "none of the models" not in done.output and "may not read" not in done.output
    done = CliRunner().invoke(app, ["check", str(path), *typed[2:]])
    assert done.exit_code == 0 and "32 x 32 px" in done.output


def test_a_name_in_the_folder_of_models_is_everybody_s(
    private: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFUSE_MODELS", str(private / "desk"))
    error, opened = refused(strange(tmp_path, {"model": "own.safetensors"}))
    assert "none of the models" not in str(error) and [o for o in opened if "own.safetensors" in o[1]]


def test_a_server_uses_the_same_policy() -> None:
    with pytest.raises(InfuseError, match="may not read files"):
        Recipe.load(image("a.png"), reading=STRICT)


def test_the_command_line(private: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from infuse.cli.app import app

    path = strange(tmp_path, image(str(private / "private.png")))
    done = CliRunner().invoke(app, ["check", str(path)])
    assert done.exit_code == 2 and "may not read files by itself" in done.output
    trusted = CliRunner().invoke(app, ["check", str(path), "--trust"])
    assert trusted.exit_code == 0 and "32 x 32 px" in trusted.output

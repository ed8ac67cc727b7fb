"""A prompt is a prompt, a file is a file, and what may be both is asked about (cases U4, U12)."""

from __future__ import annotations

from pathlib import Path

import disk
import pytest

from infuse.cli.recipe import Asked
from infuse.cli.words import assign, is_file, named_picture, weighed
from infuse.errors import RecipeError


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    disk.picture(tmp_path / "a.png", seed=1)
    (tmp_path / "cats").mkdir()
    disk.picture(tmp_path / "cats" / "1.png", seed=2)
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "sunset").write_text("words")
    (tmp_path / "r.yaml").write_text("prompt: x\n")


@pytest.mark.parametrize("words", [
    "", "  ", "cats", "sunset", "a red cube", "a cat. A dog", "missing.txt", "a/b testing", "x" * 5000, "\0", "16:9", "~nosuchuser",
])  # fmt: skip
def test_words_are_a_prompt(words: str) -> None:
    """`infuse run ""` in a folder of pictures ran one of them; so did the name of a folder or a file."""
    assert not is_file(words)
    assert Asked(words).recipe().prompt == words


@pytest.mark.parametrize("name", ["r.yaml", "a.png", "cats/", "./r.yaml"])
def test_by_its_ending_it_is_a_file(name: str) -> None:
    assert is_file(name)


@pytest.mark.parametrize(("name", "words"), [
    ("prompts.txt", ("is a file here", "--prompt 'prompts.txt'", "$(cat prompts.txt)")), ("./sunset", ("is a file here",)),
    ("./cats", ("./cats/", "--prompt")), ("missing.yaml", ("no recipe file", "--prompt 'missing.yaml'")),
    ("missing.png", ("no picture", "--prompt")), ("dogs/", ("no folder", "--prompt")),
])  # fmt: skip
def test_what_may_be_both_is_asked_about(name: str, words: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as letter:
        Asked(name).recipe()
    assert all(w in letter.value.message for w in words), letter.value


def test_a_prompt_whatever_it_looks_like() -> None:
    assert Asked(None, {"prompt": "prompts.txt"}).recipe().prompt == "prompts.txt"
    assert Asked("r.yaml", {"prompt": "y"}).recipe().prompt == "y"
    with pytest.raises(RecipeError, match="nothing says what to make"):
        Asked(None).recipe()
    with pytest.raises(RecipeError, match="a prompt, too"):
        Asked("x", {"prompt": "y"}).recipe()


def test_a_clip_of_ours_in_a_folder_is_asked_about(tmp_path: Path) -> None:
    from PIL import Image

    from infuse.media.film_writer import write_film
    from infuse.media.metadata import Record

    record = Record(recipe={"prompt": "x"}, inputs={}, weights={})
    write_film([Image.new("RGB", (16, 16))] * 2, tmp_path / "clip", record)
    with pytest.raises(RecipeError, match="clip/ with a slash"):
        is_file("clip")
    assert is_file("clip/")


@pytest.mark.parametrize(("text", "name", "picture", "weight"), [
    ("edges=a.png@0.8", "edges", "a.png", 0.8), ("look.png", "", "look.png", None), ("a.png@0.5", "", "a.png", 0.5),
    ("x.safetensors=a.png@0.6", "x.safetensors", "a.png", 0.6), ("a=b.png", "", "a=b.png", None), ("a=b.png@2", "", "a=b.png", 2.0),
    ("run=3/x.ckpt=a.png", "run=3/x.ckpt", "a.png", None), ("edges=a=b.png", "edges", "a=b.png", None),
    ("edges=me@home.png", "edges", "me@home.png", None), ("data:image/png;base64,xx==", "", "data:image/png;base64,xx==", None),
    ("edges=data:image/png;base64,xx==@1", "edges", "data:image/png;base64,xx==", 1.0), ("n=gone.png", "n", "gone.png", None),
])  # fmt: skip
def test_name_picture_and_weight(tmp_path: Path, text: str, name: str, picture: str, weight: float | None) -> None:
    """One spelling for --control and --ip; = and @ inside of names keep working."""
    for file in ("a=b.png", "me@home.png"):
        disk.picture(tmp_path / file, seed=1)
    found, rest = named_picture(text)
    assert (found, *weighed(rest)) == (name, picture, weight)


def test_an_adapter_by_its_file() -> None:
    (one,) = Asked("x", ip=("ip=1.safetensors=a.png@0.6",)).conditions()
    assert one == {"kind": "ip_adapter", "model": "ip=1.safetensors", "image": "a.png", "weight": 0.6}


def test_a_field_that_is_set_takes_the_place_of_the_one_that_is_there() -> None:
    data = {"guidance": 7, "conditions": [{"kind": "controlnet", "weight": 1}]}
    assign(data, "cfg_scale=5")
    assign(data, "conditions.0.controlnet_conditioning_scale=0.5")
    assert data == {"guidance": 5, "conditions": [{"kind": "controlnet", "weight": 0.5}]}

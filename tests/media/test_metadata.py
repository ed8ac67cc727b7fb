"""What a file says about its making: it is found from any folder, it tells what has changed, and a place where it cannot
be written is known before the work."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from infuse import Film, Recipe
from infuse.conditions import DepthVideo, Img2Img
from infuse.engine import carried
from infuse.engine.result import Result
from infuse.errors import InfuseWarning, RecipeError
from infuse.media import metadata
from infuse.media.film_writer import read_record_of, shown_at, writable, write_film
from infuse.media.metadata import Record, reachable, read_record
from infuse.media.picture_writer import writable_picture

FRAMES = filming.drifting(4, size=(32, 24))
RECORD = Record({"prompt": "a red cube"}, {}, {})


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(*said: Any) -> Result:
    return Result((FRAMES[0],), Recipe(conditions=said), None, {}, (tuple(FRAMES),))


# Paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["recipe.yaml", "sub/recipe.json", "link/recipe.yaml"])
def test_what_is_dumped_is_found_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    filming.folder(Path("depths"), FRAMES)
    FRAMES[0].save("a.png")
    Path("sub").mkdir()
    (tmp_path / "far" / "away").mkdir(parents=True)
    Path("link").symlink_to(tmp_path / "far" / "away", target_is_directory=True)
    absolute, data = str(tmp_path / "a.png"), Film.of(FRAMES[:1]).source
    asked = Recipe(
        conditions=[
            DepthVideo(film={"source": "depths", "fps": 4}),
            *(Img2Img(image=i) for i in ("a.png", absolute)),
            DepthVideo(film=data),
        ]
    )
    said = asked.dump(name)
    assert Recipe(**said) == asked, "what is returned is seen from here"
    for folder, path in ((".", name), ("sub", f"../{name}"), ("sub", str(tmp_path / name))):
        monkeypatch.chdir(tmp_path / folder)
        again = Recipe.load(path)
        assert again.digest == asked.digest
        assert [c.image.source for c in again.conditions[2:3]] == [absolute]  # type: ignore[union-attr]


def test_what_is_too_large_to_travel_is_named_by_its_hash_and_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carried, "LARGEST", 10)
    filming.folder(Path("depths"), FRAMES)
    FRAMES[0].save("one.gif")
    asked = [DepthVideo(film="one.gif"), Img2Img(image="depths/0.png")]
    with pytest.warns(InfuseWarning, match=r"conditions\.\d\.(film|image): .* is too large to travel") as said:
        (path,) = result(*asked).save("made/clip.gif")
    assert len(said) == 2
    again = Recipe.load(path)
    film, picture = (c.film if i == 0 else c.image for i, c in enumerate(again.conditions))  # type: ignore[union-attr]
    assert film.source == "sha256:" + hashlib.sha256(Path("one.gif").read_bytes()).hexdigest()
    assert read_record_of(path)["inputs"]["conditions.0.film"]["name"] == "one.gif"
    with pytest.raises(RecipeError, match="--inputs"):
        _ = picture.content
    Path("kept").mkdir()
    Path("one.gif").rename("kept/another name.gif")
    found = Recipe.load(path, inputs=["kept", "depths"])
    assert found.digest == Recipe(conditions=[DepthVideo(film="kept/another name.gif"), asked[1]]).digest
    assert len(found.conditions[0].film.frames(1)) == 1  # type: ignore[union-attr]


def test_a_film_of_an_old_record_that_has_changed_is_said(tmp_path: Path) -> None:
    FRAMES[0].save("one.gif")
    then = hashlib.sha256(Path("one.gif").read_bytes()).hexdigest()
    said = {"conditions": [{"kind": "depth_video", "film": str(tmp_path / "one.gif")}]}
    old = {"version": 1, "recipe": said, "inputs": {"conditions.0.film": then}, "weights": {}}
    info = PngInfo()
    info.add_itxt("infuse", json.dumps(old), zip=True)
    FRAMES[0].save("old.png", pnginfo=info)
    assert Recipe.load("old.png", trust=True).notes == ()
    FRAMES[3].save("one.gif")
    with pytest.warns(InfuseWarning, match=r"^conditions\.0\.film: .*is not what made old\.png.*put it back"):
        Recipe.load("old.png", trust=True)
    with pytest.raises(RecipeError, match="not carried along"):
        Recipe.load("old.png")


# Folders of frames ------------------------------------------------------------------------------------------------


def test_the_first_frame_carries_the_recipe_and_the_others_say_where_it_is() -> None:
    long = Record({"prompt": "".join(map(chr, np.random.default_rng(0).integers(32, 127, 50_000)))}, {}, {})
    write_film(FRAMES, "clip", long)
    assert read_record(Path("clip/0000.png"))["recipe"] == long.recipe == read_record_of("clip")["recipe"]
    sizes = [Path(f"clip/{i:04}.png").stat().st_size for i in range(4)]
    assert sizes[0] > 30_000 > 10_000 > max(sizes[1:])
    with pytest.raises(RecipeError, match=r"one frame of several; their recipe is in 0000\.png.*or the folder"):
        read_record(Path("clip/0002.png"))


@pytest.mark.parametrize("text", ['"a"', "[]", "{}", '{"recipe": 3}', '{"recipe": {}, "fps": "x"}', '{"recipe": {}, "inputs": 1}', "{",
                                  '{"recipe": {}, "inputs": {"a": {}}}', '{"recipe": {"seed": NaN}}'])  # fmt: skip
def test_a_damaged_record_is_a_letter(text: str) -> None:
    with pytest.raises(RecipeError, match=r"the recipe in a\.png is damaged"):
        metadata.parsed(text, Path("a.png"))


# Places -----------------------------------------------------------------------------------------------------------

NOWHERE = {
    "a file for a folder": ("file.mp4/b.{}", "is a file, not a folder"),
    "deep in a file": ("file.mp4/b/c.{}", "is a file, not a folder"),
    "no place for files": ("/proc/x/a.{}", "cannot be written"),
}


@pytest.mark.parametrize("case", NOWHERE)
@pytest.mark.parametrize("suffix", ["png", "jpg", "mp4", "gif"])
def test_a_place_that_cannot_be_is_known_before_the_work(case: str, suffix: str) -> None:
    if suffix == "mp4":
        pytest.importorskip("av")
    Path("file.mp4").write_bytes(b"x")
    path, words = NOWHERE[case]
    to = Path(path.format(suffix))
    with pytest.raises(RecipeError, match=words) as caught:
        (writable_picture if suffix in ("png", "jpg") else writable)(to)
    assert "Choose a folder" in caught.value.message
    made = result() if suffix not in ("png", "jpg") else Result((FRAMES[0],), Recipe(), None)
    with pytest.raises(RecipeError, match="cannot be written"):
        made.save(to)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    for mode in (0o500, 0o000):
        (tmp_path / f"{mode}").mkdir(mode=mode)
        for ask, name in ((reachable, "a.png"), (writable, "b/c.gif")):
            with pytest.raises(RecipeError, match="Permission denied"):
                ask(tmp_path / f"{mode}" / name)


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    for name in ("new/a.gif", "a.gif", "frames"):
        writable(tmp_path / name)
    assert not list(tmp_path.iterdir())
    Path("a.gif").write_bytes(b"kept")
    writable("a.gif")
    assert Path("a.gif").read_bytes() == b"kept"
    Path("frames").write_bytes(b"x")
    with pytest.raises(RecipeError, match="frames is a file"):
        writable("frames")


@pytest.mark.parametrize("name", ["a.gif", "a.mp4", "frames", "a.png"])
def test_what_fails_while_it_is_written_is_a_letter(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The place vanishes, or the disk is full, after all has been checked."""
    Path("x").write_bytes(b"x")
    monkeypatch.setattr(metadata, "reachable", lambda path: None)
    monkeypatch.setattr("infuse.media.film_writer.reachable", lambda path: None)
    made = result() if name != "a.png" else Result((FRAMES[0],), Recipe(), None)
    with pytest.raises(RecipeError, match=r"cannot be written \("):
        made.save(f"x/{name}")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    if name != "a.mp4":
        with pytest.raises(RecipeError, match=r"cannot be written \(No space left on device\)"):
            made.save(name)


# Rates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "frames"])
def test_a_film_s_rate_is_in_its_record(name: str) -> None:
    if name == "a.mp4":
        pytest.importorskip("av")
    write_film(FRAMES, name, RECORD, 25)
    assert read_record_of(name) == {"version": 2, "recipe": RECORD.recipe, "inputs": {}, "weights": {}, "fps": 25}
    assert "fps" not in RECORD.text()


@pytest.mark.parametrize("fps", [0, -1, 0.019, 1001, float("nan"), float("inf")])
def test_a_rate_that_films_cannot_say_is_refused(fps: float) -> None:
    for ask, field in (
        (lambda: write_film(FRAMES, "a.gif", fps=fps), "fps"),
        (lambda: shown_at(fps, "--fps"), "--fps"),
    ):
        with pytest.raises(RecipeError, match=r"Choose 0\.02 to 1000") as caught:
            ask()
        assert caught.value.field == field
    assert not Path("a.gif").exists()


def test_the_slowest_and_the_fastest_are_what_they_say() -> None:
    pytest.importorskip("av")
    for name in ("a.gif", "a.webp", "a.mp4"):
        assert write_film(FRAMES, name, fps=0.02) == ()
        assert Film.of(name).reader.rate == pytest.approx(0.02)
    (faster, _) = write_film(FRAMES, "b.gif", fps=200)
    assert "plays at 100, not at 200" in faster and Film.of("b.gif").reader.rate == pytest.approx(100)
    assert not any("plays at" in n for n in write_film(FRAMES, "b.gif", fps=100))


def test_a_very_long_still_is_a_letter_and_no_crash() -> None:
    with pytest.raises(RecipeError, match=r"a\.gif cannot be written"):
        write_film([FRAMES[0]] * 14, "a.gif", fps=0.02)

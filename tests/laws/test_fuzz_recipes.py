"""Recipes of strangers: whatever a file, a mapping or Python's objects say, a check ends in a report or a letter, soon and in
little memory. Seeds are kept.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import broken_films
import numpy as np
import pytest
import torch
import yaml
from bending import MODES, bent, clip, odd_things, plain_things, png, uri
from PIL import Image
from some import some
from watched import watched

import mix
import tiny
from infuse import BrushNet, Film, Inpaint, MaskedVideo, Motion, PowerPaint, Recipe, Text, VideoToVideo
from infuse.conditions import DepthVideo, SingleImage, SingleSketch, Size, SketchVideo, StyleImage
from infuse.engine.engine import Engine
from infuse.errors import CapacityError, InfuseError, RecipeError

COMMON = {"prompt": "x", "width": 16, "height": 16, "steps": 4}


@cache
def engines() -> dict[str, Engine]:
    """One that makes pictures, one with nine channels and task tokens, one that makes clips."""
    modules = {"canny": tiny.controlnet("sd1", 7), "face": tiny.adapter("sd1", "plain", 9), "style": tiny.adapter("sd1", "plus", 10),
               "depth": tiny.controlnet("sd1", 8), "brush": tiny.brushnet(generation="v2")}  # fmt: skip
    return {
        "picture": tiny.engine(tiny.base("sd1"), modules),
        "hole": tiny.engine(tiny.powerpaint1(), modules),
        "film": tiny.engine(tiny.videocomposer()),
    }


@cache
def sound() -> list[tuple[str, dict[str, Any]]]:
    """(engine, recipe as plain data), of every condition and every form of film."""
    picture, hole = cast(Any, mix.picture(1, 16)), cast(Any, mix.half(16))
    stills = [r.dump() for r in mix.recipes()]
    stills += [Recipe(**COMMON, conditions=[c]).dump() for c in (
        Text(prompt="a sphere", weight={0: 1.2, 1: 0.2}, mask=hole), Size(original=(512, 512), crop=(3, 4)),
        BrushNet(model="brush", image=picture, mask=hole), PowerPaint(model="brush", image=picture, mask=hole, task="removal"))]  # fmt: skip
    holes = [Recipe(**COMMON, conditions=[c]).dump() for c in (
        Inpaint(image=picture, mask=hole), PowerPaint(image=picture, mask=hole, task="shape", fit=0.7))]  # fmt: skip
    films = [Recipe(**COMMON, frames=4, conditions=[c]).dump() for c in (
        DepthVideo(film=clip()), SketchVideo(film=clip(), annotator="canny"), SingleSketch(image=picture), SingleImage(image=picture),
        Motion(film=clip(), source="flow"), Motion(film=clip()), Motion(drawn=[{"from": [0.2, 0.3], "to": [0.9, 0.6]}], camera={"pan": [0.1, 0.0]}),
        MaskedVideo(film=clip(), mask=hole), StyleImage(image=picture), VideoToVideo(film=clip(), strength=0.5))]  # fmt: skip
    return [("picture", r) for r in stills] + [("hole", r) for r in holes] + [("film", r) for r in films]


def checked(engine: Engine, made: Callable[[], Recipe]) -> int:
    """1 if there is a report, 0 if there is a letter."""
    try:
        engine.check(made())
    except InfuseError as letter:
        assert 10 < len(letter.message) < 3000 and len(letter.field) < 3000, letter
        return 0
    return 1


def text_of(recipe: dict[str, Any], chance: random.Random, kind: str) -> bytes:
    """A file of a bent recipe, with some of its bytes changed."""
    said = bent(recipe, chance, plain_things())
    try:
        text = (
            json.dumps(said)
            if kind == "json"
            else yaml.dump(said, Dumper=yaml.CSafeDumper, allow_unicode=True, sort_keys=False)
        )
    except (ValueError, yaml.YAMLError):  # half a surrogate is no text
        text = json.dumps(recipe)
    out = bytearray(text.encode("utf-8", "replace"))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        at = chance.randrange(len(out) or 1)
        piece = chance.choice((b"", b"&a ", b"*a", b"- ", b": ", b"{", b"[" * 50, b"!!python/object:os.system ", b"\t", b"\0", b"\xff", b"<<: ", b"? ", b"\n", b"\xef\xbb\xbf", b"!!binary ", b"9" * 30))  # fmt: skip
        out[at : at + chance.randrange(0, 4)] = piece
    return bytes(out)


def tried(form: str, count: int, seed: int) -> tuple[int, int]:
    """(reports, letters) of so many recipes of this form: dictionary, python, yaml, json."""
    came = 0
    for n in range(count):
        chance = random.Random(f"{seed} {form} {n}")
        kind, recipe = sound()[n % len(sound())]
        engine = engines()[kind]
        if form in ("yaml", "json"):
            path = Path(f"bent.{form}")
            path.write_bytes(text_of(recipe, chance, form))
            made = lambda path=path: Recipe.load(path)  # noqa: E731
        else:
            data = bent(recipe, chance, plain_things() + (odd_things() if form == "python" else []))
            made = (lambda data=data: Recipe(**data)) if form == "python" else (lambda data=data: Recipe.load(data))
        with watched(f"{form}, input {n} of seed {seed}"):
            came += checked(engine, made)
    return came, count - came


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


FORMS = ("dictionary", "python", "yaml", "json")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_bent_recipes_are_reports_or_letters(form: str) -> None:
    came, letters = tried(form, 30, 1)
    assert came > 0 and letters > 10


@pytest.mark.slow
@pytest.mark.parametrize(("form", "count"), [("dictionary", 3000), ("python", 4000), ("yaml", 1000), ("json", 2000)])
def test_ten_thousand_bent_recipes_are_reports_or_letters(form: str, count: int) -> None:
    came, letters = tried(form, count, 2)
    assert came > count // 50 and letters > count // 5


# Films in recipes ---------------------------------------------------------------------------------------------------

FILMED: dict[str, Callable[[Any], tuple[str, dict[str, Any]]]] = {
    "depth_video": lambda f: ("film", {"film": f}),
    "sketch_video": lambda f: ("film", {"film": f, "annotator": "canny"}),
    "motion": lambda f: ("film", {"film": f}),
    "masked_video": lambda f: ("film", {"film": f, "mask": mix.half(16)}),
    "masked_video by a film": lambda f: ("film", {"film": clip(), "mask": f}),
    "video_to_video": lambda f: ("film", {"film": f, "strength": 0.5}),
    "single_image": lambda f: ("film", {"image": f}),
    "style_image": lambda f: ("film", {"image": f}),
    "controlnet": lambda f: ("picture", {"image": f, "model": "canny"}),
    "img2img": lambda f: ("picture", {"image": f}),
    "inpaint": lambda f: ("picture", {"image": mix.picture(1, 16), "mask": f}),
    "ip_adapter": lambda f: ("picture", {"image": f, "model": "face"}),
}


def filmed(kind: str, count: int, seed: int, at: Path) -> tuple[int, int]:
    """(reports, letters) of a condition that is given so many broken films."""
    (at / "folder").mkdir(exist_ok=True)
    for i, frame in enumerate(broken_films.FRAMES):
        frame.save(at / "folder" / f"{i}.png")
    films = {f: broken_films.whole(f, at) for f in broken_films.FORMS}
    came = 0
    for n in range(count):
        chance = random.Random(f"{seed} {kind} {n}")
        form = broken_films.FORMS[n % len(films)]
        path = at / form
        path.write_bytes(broken_films.broken(films[form], films[chance.choice(broken_films.FORMS)], chance))
        source = {
            "source": str(path.parent if form.startswith("folder") else path),
            "short": chance.choice(("refuse", "hold")),
        }
        name, fields = FILMED[kind](source if n % 2 else source["source"])
        engine = engines()[name]
        said = {
            **COMMON,
            "conditions": [{"kind": kind.split()[0], **fields}],
            **({"frames": 4} if name == "film" else {}),
        }
        with watched(f"{kind} with {form}, input {n} of seed {seed}"):
            came += checked(engine, lambda said=said: Recipe(**said))
    return came, count - came


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILMED)
def test_broken_films_in_every_condition(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="pip install 'infuse[video]'")
    _, letters = filmed(kind, 12, 1, tmp_path)
    assert letters > 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", FILMED)
def test_thousands_of_broken_films_in_every_condition(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="pip install 'infuse[video]'")
    _, letters = filmed(kind, 300, 2, tmp_path)
    assert letters > 30


# What was found: not one of these was a letter ----------------------------------------------------------------------


def cut_short() -> Any:
    return Image.open(io.BytesIO(png(size=(64, 64))[:-30]))


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "an image that is cut short": (cut_short, "cannot be|truncated"),
    "words in an array": (lambda: np.zeros((16, 16, 3), "S3"), "holds no shades"),
    "objects in an array": (lambda: np.full((16, 16, 3), None), "holds no shades"),
    "dates": (lambda: np.zeros((16, 16), "M8[s]"), "holds no shades"),
    "complex numbers": (lambda: torch.zeros(3, 16, 16, dtype=torch.complex64), "holds no shades"),
    "a tensor of no numbers": (lambda: torch.zeros(3, 16, 16, device="meta"), "holds no numbers"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_objects_are_letters(case: str) -> None:
    made, words = ODD[case]
    for conditions in (
        [{"kind": "img2img", "image": made()}],
        [{"kind": "depth_video", "film": made()}],
        [{"kind": "depth_video", "film": [made()] * 2}],
    ):
        with pytest.raises(RecipeError, match=words) as caught:
            Recipe(conditions=conditions)
        assert caught.value.field.startswith("conditions.0.")


def test_sparse_tensors_and_every_mode_are_pictures() -> None:
    from infuse.media.pictures import Picture

    dots = torch.zeros(16, 16)
    dots[3, 4] = 1
    assert np.array_equal(Picture.of(dots.to_sparse()).mask, Picture.of(dots).mask)
    red = Image.new("RGB", (16, 16), (200, 30, 60))
    assert Picture.of(red.convert("HSV")).image.getpixel((3, 3)) == pytest.approx((200, 30, 60), abs=3)
    for mode in MODES:
        assert Picture.of(Image.new(mode, (16, 16))).image.size == (16, 16)


@pytest.mark.parametrize(
    "made",
    [
        lambda d: Recipe(**d),
        Recipe.load,
        lambda d: Recipe(conditions=[{"kind": "text", "prompt": "x", **d}]),
        lambda d: Text(**{"prompt": "x", **d}),
    ],
)
def test_a_field_called_self_is_no_field(made: Callable[[dict[str, Any]], Any]) -> None:
    with pytest.raises(RecipeError, match="self: there is no such field"):
        made({"self": 1})


NAMELESS = {"too long for a file": "x" * 300 + ".png", "too long for a folder": "owner/" + "n" * 100_000, "too long a way": "../" * 3000 + "x", "a home of nobody": "~" + "z" * 300,
            "NUL": "a/\0", "half a character": "\ud800.png"}  # fmt: skip


@pytest.mark.parametrize("case", NAMELESS)
def test_names_that_no_file_can_have_are_letters(case: str) -> None:
    name, picture = NAMELESS[case], mix.picture(1, 16)
    engine = engines()["picture"]
    asks: list[Callable[[], Any]] = [
        lambda: engine.check(Recipe(model=name)),
        lambda: engine.check(Recipe.load({"conditions": [{"kind": "controlnet", "image": picture, "model": name}]})),
        lambda: engine.check(Recipe.load({"conditions": [{"kind": "ip_adapter", "image": picture, "model": "face", "image_encoder": name}]})),
        lambda: engine.check(Recipe.load({"conditions": [{"kind": "img2img", "image": name}]})),
        lambda: Recipe.load({"conditions": [{"kind": "img2img", "image": name}]}, inputs=[name]).digest,
        lambda: Recipe.load(name),
        lambda: Recipe.load(name, trust=False),
        lambda: Film.of(name).digest,
        lambda: Film.of(name).embedded(),
        lambda: Film.of(name).take(2),
    ]  # fmt: skip
    for ask in asks:
        with pytest.raises(InfuseError) as caught:
            ask()
        assert 10 < len(str(caught.value)) < 3000


@pytest.mark.parametrize("mode", some(["RGB", "RGBA", "P"], quick=["P"]))
def test_a_small_file_of_a_large_picture_is_a_letter_to_strangers(mode: str) -> None:
    """100 megapixels in 2 MB of a stranger's recipe held 1.6 GB for 7 s; one's own may."""
    conditions = [{"kind": "img2img", "image": uri(png(mode, (3600, 3400)))}]
    engine = engines()["picture"]
    with watched("a large picture"), pytest.raises(CapacityError, match=r"image: .*12 megapixels.*--trust"):
        engine.check(Recipe.load({**COMMON, "conditions": conditions}, trust=False))
    if mode == "RGB":
        assert engine.check(Recipe.load({**COMMON, "conditions": conditions})).size == (16, 16)
        still = [{"kind": "img2img", "image": uri(png(mode, (3000, 3000)))}]
        with watched("one of 9 megapixels"):
            engine.check(Recipe.load({**COMMON, "conditions": still}, trust=False))


@pytest.mark.slow
def test_a_small_file_of_a_large_animation_is_a_letter_to_strangers() -> None:
    out, first, second = io.BytesIO(), *(Image.new("P", (3000, 3000), c) for c in (0, 1))
    first.save(out, "GIF", save_all=True, append_images=[second, first] * 23)
    film = {"kind": "depth_video", "film": uri(out.getvalue(), "image/gif")}
    with (
        watched("a large animation"),
        pytest.raises(CapacityError, match=r"film: .*47 frames.*423 megapixels.*the limit is 400.*--trust"),
    ):
        engines()["film"].check(Recipe.load({**COMMON, "frames": 4, "conditions": [film]}, trust=False))

"""Whatever form a picture or mask comes in, every condition that takes one hears the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
import torch
from forms import MASKS, PICTURES
from PIL import Image
from some import in_turn

import mix
import tiny
from infuse import (
    BrushNet,
    ControlNet,
    DepthVideo,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    Motion,
    PowerPaint,
    Recipe,
    RecipeError,
    SingleImage,
    SingleSketch,
    SketchVideo,
    StyleImage,
    Text,
    VideoToVideo,
)
from infuse.encoders.kit import Kit
from infuse.engine.engine import Engine
from infuse.media.films import Film
from infuse.media.pictures import Picture

QUICK = 3
"""One of so many pairs that meet in turn runs in the quick suite."""
W, H = forms.SIZE
OTHER = mix.picture(3, 64)[:H, :W]
SPOT = np.zeros((H, W), np.uint8)
SPOT[4:12, 4:12] = 255


@cache
def engine(base: str) -> Engine:
    modules = {"canny": tiny.controlnet("sd1", 7), "face": tiny.adapter("sd1", "plain", 9), "brush": tiny.brushnet()}
    made: dict[str, Callable[[], Any]] = {
        "four": lambda: tiny.base("sd1"), "nine": lambda: tiny.base("sd1", 9), "powerpaint": tiny.powerpaint1,
        "composer": tiny.videocomposer, "clips": tiny.video,
    }  # fmt: skip
    return tiny.engine(made[base](), modules if base in ("four", "nine") else {})


OF_PICTURES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "img2img": ("four", lambda p: Img2Img(image=p)),
    "inpaint": ("four", lambda p: Inpaint(image=p, mask=SPOT)),
    "inpaint, nine channels": ("nine", lambda p: Inpaint(image=p, mask=SPOT)),
    "controlnet": ("four", lambda p: ControlNet(model="canny", image=p)),
    "controlnet, canny": ("four", lambda p: ControlNet(model="canny", image=p, annotator="canny")),
    "ip_adapter": ("four", lambda p: IPAdapter(model="face", image=p)),
    "brushnet": ("four", lambda p: BrushNet(model="brush", image=p, mask=SPOT)),
    "powerpaint": ("powerpaint", lambda p: PowerPaint(image=p, mask=SPOT)),
    "outpainting": ("powerpaint", lambda p: PowerPaint(image=p, task="outpaint", left=8, overlap=2)),
    "single_image": ("composer", lambda p: SingleImage(image=p)),
    "single_sketch": ("composer", lambda p: SingleSketch(image=p)),
    "style_image": ("composer", lambda p: StyleImage(image=p)),
    "sketch_video": ("composer", lambda p: SketchVideo(film=p)),
    "depth_video": ("composer", lambda p: DepthVideo(film=p)),
    "masked_video": ("composer", lambda p: MaskedVideo(film=p, mask=SPOT)),
    "masked_video, four channels": ("clips", lambda p: MaskedVideo(film=p, mask=SPOT)),
    "video_to_video": ("clips", lambda p: VideoToVideo(film=p)),
}
OF_MASKS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "inpaint": ("four", lambda m: Inpaint(image=OTHER, mask=m)),
    "inpaint, nine channels": ("nine", lambda m: Inpaint(image=OTHER, mask=m)),
    "brushnet": ("four", lambda m: BrushNet(model="brush", image=OTHER, mask=m)),
    "powerpaint": ("powerpaint", lambda m: PowerPaint(image=OTHER, mask=m)),
    "masked_video": ("composer", lambda m: MaskedVideo(film=OTHER, mask=m)),
    "masked_video, four channels": ("clips", lambda m: MaskedVideo(film=OTHER, mask=m)),
    "a region of text": ("four", lambda m: Text(prompt="x", mask=m)),
    "a region of a ControlNet": ("four", lambda m: ControlNet(model="canny", image=OTHER, mask=m)),
    "a region of an IP-Adapter": ("four", lambda m: IPAdapter(model="face", image=OTHER, mask=m)),
    "a region of a sketch": ("composer", lambda m: SingleSketch(image=OTHER, mask=m)),
    "what moves": ("composer", lambda m: Motion(drawn=({"from": (0.3, 0.3), "to": (0.6, 0.6), "region": m},))),
}


def fewer(pairs: list[Any]) -> list[Any]:
    """Of the quick ones among these, every third."""
    quick = [p for p in pairs if not p.marks]
    slow = {id(p) for i, p in enumerate(quick) if i % QUICK}
    return [pytest.param(*p.values, marks=pytest.mark.slow) if id(p) in slow else p for p in pairs]


def tensors(value: Any) -> list[torch.Tensor]:
    """Every number in what a condition was encoded to."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, torch.nn.Module) or not (is_dataclass(value) or isinstance(value, tuple | list | dict)):
        return []
    if is_dataclass(value):
        return [t for f in fields(value) for t in tensors(getattr(value, f.name))]
    return [t for v in (value.values() if isinstance(value, dict) else value) for t in tensors(v)]


def heard(base: str, condition: Any) -> list[torch.Tensor]:
    one = engine(base)
    frames = {"frames": 4} if base in ("composer", "clips") else {}
    size = {} if condition.native() else {"width": W, "height": H}
    resolved = one.check(Recipe(prompt="x", steps=2, conditions=(condition,), **frames, **size))
    kit = Kit(one.store.base("tiny"), resolved.size, one.store, resolved.frames, resolved.windows, condition.openings())
    with torch.no_grad():
        return tensors(condition.settled(one.store.view("tiny")).sides(kit))


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) > 0 and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("form", PICTURES)
def test_a_picture_looks_as_it_should(form: str, tmp_path: Path) -> None:
    made = PICTURES[form]
    given = made.make(tmp_path)
    want = np.asarray(made.like().convert("RGB")).astype(int)
    for seen in (Picture.of(given).image, Film.of(given).frames(1)[0]):
        assert seen.mode == "RGB" and seen.size == forms.SIZE
        assert np.abs(np.asarray(seen) - want).mean() <= made.loss


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "form"), fewer(in_turn(list(OF_PICTURES), list(PICTURES))))
def test_every_condition_sees_that_picture(condition: str, form: str, tmp_path: Path) -> None:
    """What a condition hears of a form equals what it hears of the settled picture as a plain PNG."""
    base, of = OF_PICTURES[condition]
    given = PICTURES[form].make(tmp_path)
    settled = tmp_path / "settled.png"
    Picture.of(given).image.save(settled)
    assert same(heard(base, of(given)), heard(base, of(settled)))


@pytest.mark.slow
def test_it_can_tell_pictures_apart(tmp_path: Path) -> None:
    for base, of in OF_PICTURES.values():
        assert not same(heard(base, of(forms.plain())), heard(base, of(mix.picture(1, 64)[:H, :W])))


@pytest.mark.parametrize("form", MASKS)
def test_a_mask_is_the_hole_that_was_drawn(form: str, tmp_path: Path) -> None:
    given = MASKS[form](tmp_path)
    for seen in (Picture.of(given).mask, Film.of(given).holes(1)[0]):
        assert seen.mode == "L" and ((np.asarray(seen) >= 128) == forms.blob()).all()


@pytest.mark.slow
@pytest.mark.parametrize(("condition", "form"), fewer(in_turn(list(OF_MASKS), list(MASKS))))
def test_every_condition_has_that_hole(condition: str, form: str, tmp_path: Path) -> None:
    base, of = OF_MASKS[condition]
    if form == "JPEG" and "region" in condition or condition == "what moves" and form == "JPEG":
        pytest.skip("a region is soft, and a JPEG's white is not quite white")
    assert same(heard(base, of(MASKS[form](tmp_path))), heard(base, of(forms.white())))


@pytest.mark.slow
def test_it_can_tell_masks_apart() -> None:
    for base, of in OF_MASKS.values():
        assert not same(heard(base, of(forms.white())), heard(base, of(SPOT)))


def test_a_mask_that_says_two_things_is_a_letter(tmp_path: Path) -> None:
    """I4: a photograph with its background erased; the same as frames of a film."""
    cut = forms.plain().point(lambda v: 255 if v > 128 else 0).convert("L").convert("RGBA")
    cut.putalpha(forms.white())
    for ask in (lambda: Picture.of(cut).mask, lambda: Film.of(cut).holes(1)):
        with pytest.raises(RecipeError, match="say different things"):
            ask()


@pytest.mark.slow
def test_what_was_done_is_said(tmp_path: Path) -> None:
    """Each in the words of a warning, under its field."""
    said = {
        "EXIF 6": "turned upright", "RGBA": "seen on white", "Display P3": "from Display P3 to sRGB",
        "CMYK": "CMYK has no profile", "16 bits, grey": "16 bits were made 8",
    }  # fmt: skip
    for form, words in said.items():
        given = PICTURES[form].make(tmp_path)
        for found in (Img2Img(image=given), Inpaint(image=given, mask=SPOT)):
            report = engine("four").check(Recipe(prompt="x", conditions=(found,)))
            assert any(w.startswith("conditions.0.image: ") and words in w for w in report.warnings), (
                form,
                report.warnings,
            )
        report = engine("clips").check(Recipe(prompt="x", frames=4, conditions=(VideoToVideo(film=given),)))
        assert any(w.startswith("conditions.0.film: ") and words in w for w in report.warnings), (form, report.warnings)
    report = engine("four").check(Recipe(prompt="x", conditions=(Inpaint(image=OTHER, mask=forms.in_alpha()),)))
    assert any(w.startswith("conditions.0.mask: ") and "transparency" in w for w in report.warnings)


def test_the_ground_is_the_recipe_s() -> None:
    clear = Image.new("RGBA", (W, H), (0, 255, 0, 0))
    for base, field, kind in (("four", "image", Img2Img), ("clips", "film", VideoToVideo)):
        frames = {"frames": 4} if base == "clips" else {}
        resolved = engine(base).check(
            Recipe(prompt="x", background="#102030", conditions=(kind(**{field: clear}),), **frames)
        )
        found = getattr(resolved.speakers["conditions.0"], field)
        seen = found.image if field == "image" else found.frames(1)[0]
        assert seen.getpixel((3, 3)) == (16, 32, 48)
    with pytest.raises(RecipeError, match="background: 'transparentish' is no colour"):
        Recipe(background="transparentish")


@pytest.mark.parametrize("what", ["a list of the camera's pictures", "turned arrays"])
def test_frames_of_a_film_are_turned_one_by_one(what: str) -> None:
    """I1: lists of PIL objects with EXIF."""
    frames = Film.of(
        [forms.held(6), forms.held(3), forms.plain()] if what.startswith("a list") else [forms.plain()] * 3
    ).frames(3)
    for frame in frames:
        assert np.array_equal(np.asarray(frame), forms.pixels())


def test_an_open_file_is_its_bytes(tmp_path: Path) -> None:
    forms.plain().save(tmp_path / "a.png")
    buffer = io.BytesIO()
    forms.plain().save(buffer, "PNG")  # and stands at its end
    with (tmp_path / "a.png").open("rb") as file:
        for given in (file, buffer):
            for seen in (Picture.of(given).image, Film.of(given).frames(1)[0]):
                assert np.array_equal(np.asarray(seen), forms.pixels())
    with pytest.raises(ValueError, match="mode rb"):
        Picture.of(io.StringIO("a"))


@pytest.mark.parametrize(("values", "words"), [
    (np.zeros((5, 32, 7), np.uint8), ("(h, w)", "1, 3 or 4 channels")), (np.zeros((2, 3, 4, 5, 6)), ("(h, w)", "(2, 3, 4, 5, 6)")),
    (np.full((8, 8, 3), 7.0), ("from 0 to 1", "7")), (np.full((8, 8, 3), 300), ("uint8, uint16", "300")),
])  # fmt: skip
def test_numbers_that_are_no_picture_are_told_what_is(values: np.ndarray, words: tuple[str, ...]) -> None:
    """I8: shapes and ranges, as a picture and as a mask."""
    for ask in (lambda: Img2Img(image=values), lambda: Inpaint(image=OTHER, mask=values)):  # pyright: ignore[reportArgumentType]
        with pytest.raises(RecipeError) as letter:
            ask()
        assert letter.value.field in ("image", "mask") and all(w in letter.value.message for w in words), letter.value


@pytest.mark.parametrize("kind", ["hole", "region"])
def test_a_mask_of_zeros_and_ones_is_a_letter(kind: str) -> None:
    """Heard at 1/255, or said to have no white."""
    ones = forms.blob().astype(np.uint8)
    asked = Inpaint(image=OTHER, mask=ones) if kind == "hole" else Text(prompt="x", mask=ones)
    with pytest.raises(RecipeError, match="conditions.0.mask: its numbers are 0 and 1, and white is 255"):
        engine("four").check(Recipe(prompt="x", width=W, height=H, conditions=(asked,)))


def test_eight_bits_in_sixteen_are_said(tmp_path: Path) -> None:
    """Divided by 257 they would be black."""
    with pytest.raises(ValueError, match="this one 199 only: next to black. Give these numbers as uint8"):
        Picture.of(np.full((H, W), 199, np.uint16))
    Image.fromarray(np.full((H, W), 199, np.uint16)).save(tmp_path / "a.png")
    assert any("they reach 199 only" in note for note in Picture.of(tmp_path / "a.png").notes)
    assert not any("reach" in note for note in Picture.of(PICTURES["16 bits, grey"].make(tmp_path)).notes)


def test_a_region_that_is_hardly_there_is_said() -> None:
    wire, band = (np.zeros((64, 64), np.uint8) for _ in range(2))
    wire[30], band[30:34] = 255, 255
    for base, mask, thin in (("four", wire, True), ("four", band, False)):
        asked = Text(prompt="x", mask=mask)
        said = engine(base).check(Recipe(prompt="x", width=32, height=32, conditions=(asked,))).warnings
        assert any("conditions.0.mask: it is so thin" in w for w in said) is thin, said


def test_four_grey_frames_are_no_picture_with_alpha() -> None:
    """A hole that moves, as an array (f, h, w)."""
    moving = np.zeros((4, H, W), np.uint8)
    for i in range(4):
        moving[i, :, 8 * i : 8 * i + 8] = 255
    for given in (moving, torch.from_numpy(moving)):
        assert np.array_equal(np.stack([np.asarray(m) for m in Film.of(given).holes(4)]), moving)

"""A picture from memory is a file only when somebody wants one, and then the same as ever."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import infuse
from infuse import ControlNet
from infuse.media.pictures import Picture
from infuse.recipe import Recipe, digest

PIXELS = np.random.default_rng(1).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def image() -> Image.Image:
    return Image.fromarray(PIXELS)


def written(value: Image.Image, **more: Any) -> bytes:
    buffer = io.BytesIO()
    value.save(buffer, "PNG", **more)
    return buffer.getvalue()


@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody makes a file."""
    monkeypatch.setattr("infuse.media.pictures.encoded", lambda *_: pytest.fail("a file was made"))


@pytest.mark.usefixtures("never")
def test_it_is_looked_at_without_a_file() -> None:
    made = Picture.of(image())
    assert np.array_equal(made.image, PIXELS) and made.size == (56, 40) and not made.notes and made.named == ""
    grey = Picture.of(image().convert("L"))
    assert np.array_equal(grey.mask, image().convert("L")) and not grey.mask_notes
    assert "embedded" in str(made) and Picture.of(made) is made


@pytest.mark.usefixtures("never")
def test_a_recipe_of_them_is_checked_without_a_file() -> None:
    found = infuse.load("tabletop").check(
        Recipe(prompt="a cube", conditions=(ControlNet(model="edges", image=image()),))
    )
    assert "conditions.0" in found.speakers


def test_its_file_holds_its_pixels() -> None:
    made, read = Picture.of(image()), Picture.of(written(image()))
    assert made.source.startswith("data:image/png;base64,") and made.content[:4] == b"\x89PNG"
    assert np.array_equal(Image.open(io.BytesIO(made.content)), PIXELS)
    assert made == Picture.of(image()) and hash(made) == hash(Picture.of(image()))
    assert made.embedded() is made and np.array_equal(read.image, made.image)
    again = Recipe.model_validate_json(
        Recipe(prompt="x", conditions=(ControlNet(model="edges", image=made),)).model_dump_json()
    )
    assert again.conditions[0].image == made  # type: ignore[union-attr]


def test_it_stays_what_it_was_when_it_was_given() -> None:
    given = image()
    made = Picture.of(given)
    given.paste(0, (0, 0, 56, 40))
    assert np.array_equal(made.image, PIXELS) and np.array_equal(Picture(made.source).image, PIXELS)
    for twin in (copy.deepcopy(made), pickle.loads(pickle.dumps(made)), made.on("black")):
        assert np.array_equal(twin.image, PIXELS) and twin.source == made.source


def test_marks_tell_pixels_apart_and_digests_are_of_files() -> None:
    other = PIXELS.copy()
    other[0, 0, 0] ^= 1
    made, same, another = Picture.of(image()), Picture.of(image()), Picture.of(Image.fromarray(other))
    assert made.mark == same.mark != another.mark and made.mark != Picture.of(image()).on("black").mark
    shapes = [Picture.of(np.zeros(size, np.uint8)).mark for size in ((40, 20), (20, 40), (10, 80))]
    assert len(set(shapes)) == 3, "equal bytes of other shapes are other pictures"
    net = ControlNet(model="edges", image=made)
    assert digest(net) == digest(ControlNet(model="edges", image=Picture(same.source)))
    assert digest(net, voiced=False) == digest(ControlNet(model="edges", image=same), voiced=False)


def test_what_says_more_than_pixels_goes_by_its_file(tmp_path: Path) -> None:
    """Alpha, palettes, profiles and orientations are read from a file, as they always were."""
    turned = image()
    exif = turned.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif, quality=95)
    upright = Picture.of(Image.open(buffer))
    assert upright.size == (40, 56) and upright.notes
    glass = image().convert("RGBA")
    glass.putalpha(128)
    assert Picture.of(glass).notes and Picture.of(glass) == Picture.of(glass.copy())
    (tmp_path / "a.png").write_bytes(written(image()))
    assert Picture.of(tmp_path / "a.png").named.endswith("a.png")
    with pytest.raises(infuse.RecipeError, match="too small"):
        _ = Picture.of(Image.new("RGB", (4, 40))).image

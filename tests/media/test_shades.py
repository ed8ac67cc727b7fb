"""Pictures and frames of any mode are seen as 8-bit RGB: shades are kept, and what cannot be told is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from infuse.encoders.drawn_motion import Arrow, drawn_motion
from infuse.errors import RecipeError
from infuse.media.films import Film
from infuse.media.pictures import Picture

RAMP = np.linspace(0, 1, 16 * 16).reshape(16, 16)
SHADES = np.floor(255 * RAMP)
OF: dict[str, Image.Image] = {
    "I;16": Image.fromarray((65535 * RAMP).astype(np.uint16)),
    "I": Image.fromarray((65535 * RAMP).astype(np.int32)),
    "F": Image.fromarray(RAMP.astype(np.float32)),
    "L": Image.fromarray(SHADES.astype(np.uint8)),
}


def film_of_file(image: Image.Image, at: Path) -> Any:
    image.save(at / "0.tiff")
    image.save(at / "1.tiff")
    return Film.of(at).frames(2)[1]


def one_file(image: Image.Image, at: Path) -> Any:
    image.save(at / "0.tiff")
    return Picture.of(at / "0.tiff").image


WAYS: dict[str, Callable[[Image.Image, Path], Any]] = {
    "a picture in a file": one_file,
    "a picture": lambda image, at: Picture.of(image).image,
    "frames in files": film_of_file,
    "frames": lambda image, at: Film.of([image, image]).frames(2)[1],
    "a still": lambda image, at: Film.of(image).frames(1)[0],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", OF)
def test_shades_are_kept(mode: str, way: str, tmp_path: Path) -> None:
    assert OF[mode].mode == mode
    seen = WAYS[way](OF[mode], tmp_path)
    assert seen.mode == "RGB" and np.abs(np.asarray(seen)[..., 1] - SHADES).max() <= 1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white_whatever_colour_is_hidden_there(mode: str, way: str, tmp_path: Path) -> None:
    clear = Image.new("RGBA", (16, 16), (40, 40, 40, 0)).convert(mode)
    assert (np.asarray(WAYS[way](clear, tmp_path)) == 255).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.float32(255) * RAMP.astype(np.float32), "numbers from 0 to 255, and black is 0, white 1."),
        (np.where(RAMP > 0.5, np.nan, 0).astype(np.float32), "numbers from nan to nan"),
        ((100_000 * RAMP).astype(np.int32), "numbers from 0 to 100000, and black is 0, white 65535."),
        ((RAMP - 1).round().astype(np.int32), "numbers from -1 to 0"),
    ],
)
def test_numbers_that_are_no_shades_are_refused(values: np.ndarray, said: str, way: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Scale them") as caught:
        WAYS[way](Image.fromarray(values), tmp_path)
    assert said in caught.value.message


def test_headers_are_enough_to_refuse_them(tmp_path: Path) -> None:
    image = Image.fromarray(255 * RAMP.astype(np.float32))
    for name in ("0.tiff", "1.tiff"):
        image.save(tmp_path / name)
    pages = tmp_path / "pages.tiff"
    image.save(pages, save_all=True, append_images=[image])
    for source in (tmp_path, tmp_path / "0.tiff", pages):
        with pytest.raises(RecipeError, match="tiff.* holds numbers from 0 to 255"):
            Film.of(source).plan(1)


def test_other_colours_become_rgb() -> None:
    for way in (lambda image: Picture.of(image).image, lambda image: Film.of([image] * 2).frames(1)[0]):
        assert way(Image.new("CMYK", (8, 8))).getpixel((0, 0)) == (255, 255, 255)


def test_a_region_of_16_bits_is_where_it_is_white() -> None:
    grey = np.full((32, 32), 20_000, np.uint16)  # darker than half: not the thing
    grey[8:16, 8:16] = 65535
    thing = Arrow(**{"from": (0.4, 0.4), "to": (0.6, 0.4), "region": Image.fromarray(grey)})
    moving = drawn_motion([thing], 3, 32, 32)[1, 0]
    assert moving[12, 14] > 2 > 1.5 > moving[28, 28]


def test_pages_are_of_one_size(tmp_path: Path) -> None:
    sizes = [Image.new("L", s) for s in ((32, 24), (32, 24), (16, 16))]
    sizes[0].save(tmp_path / "pages.tiff", save_all=True, append_images=sizes[1:])
    with pytest.raises(RecipeError, match="mixes sizes: page 0 is 32 x 24 px, page 2 is 16 x 16 px"):
        Film.of(tmp_path / "pages.tiff").plan(1)

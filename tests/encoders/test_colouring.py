"""What is drawn without a network, number by number."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from PIL import Image

from infuse.encoders.annotators.colouring import ANNOTATORS, annotated, at_resolution, pixel_perfect


def photo(seed: int = 0, width: int = 100, height: int = 60) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def array(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(float)


@pytest.mark.parametrize("name", ANNOTATORS)
@pytest.mark.parametrize("resolution", [None, 40, 128])
def test_all_draw_at_all_resolutions(name: str, resolution: int | None) -> None:
    found = annotated(photo(), name, {}, resolution)
    assert found.mode == "RGB"
    assert found.size == ((100, 60) if resolution is None else (round(resolution * 100 / 60), resolution))
    assert annotated(photo(), name, {}, resolution).tobytes() == found.tobytes()


def test_intensity_is_the_largest_of_three_and_gamma_bends_it() -> None:
    value = array(annotated(photo(), "intensity", {}))[..., 0]
    assert (value == array(photo()).max(-1)).all()
    r, g, b = (c / 255 for c in photo().getpixel((7, 9)))
    assert value[9, 7] == pytest.approx(255 * colorsys.rgb_to_hsv(r, g, b)[2])
    dark = array(annotated(photo(), "intensity", {"gamma": 2}))[..., 0]
    assert np.abs(dark - np.floor((value / 255) ** 2 * 255)).max() <= 1


def test_luminance_sees_green_as_the_lightest() -> None:
    red, green, blue = (array(annotated(Image.new("RGB", (8, 8), c), "luminance", {}))[0, 0, 0] for c in ("#f00", "#0f0", "#00f"))  # fmt: skip
    assert (round(red / 2.55), round(green / 2.55), round(blue / 2.55)) == (53, 88, 32)  # CIELAB's L


def test_tile_is_a_part_of_the_size_and_blur_a_blur() -> None:
    assert annotated(photo(), "tile", {"rate": 3}).size == (33, 20)
    assert annotated(photo(), "tile", {"rate": 1.05}).tobytes() == photo().tobytes()
    assert annotated(photo(), "tile", {"rate": 2}, 120).size == (100, 60)
    assert (
        array(annotated(photo(), "blur", {})).std()
        < array(photo()).std()
        < array(annotated(photo(), "blur", {"sigma": 0.05})).std() + 0.1
    )


def test_threshold_wants_all_three() -> None:
    found = array(annotated(photo(), "threshold", {"at": 100}))[..., 0]
    assert ((found == 255) == (array(photo()).min(-1) > 100)).all()


def test_scribbles_are_white_on_black() -> None:
    page = Image.new("RGB", (64, 64), "white")
    page.paste((0, 0, 0), (30, 5, 33, 60))
    found = array(annotated(page, "scribble", {}))[..., 0]
    assert set(np.unique(found)) == {0, 255} and found[30, 31] == 255 and found[30, 5] == 0


def test_shuffling_keeps_the_colours_and_depends_on_its_seed() -> None:
    one, other = (annotated(photo(), "shuffle", {"seed": s}) for s in (0, 1))
    assert one.tobytes() != other.tobytes() and one.tobytes() != photo().tobytes()
    assert np.abs(array(one).reshape(-1, 3).max(0) - array(photo()).reshape(-1, 3).max(0)).max() < 80
    assert array(one).min() >= array(photo()).min() and array(one).max() <= array(photo()).max()


def test_the_picture_is_padded_to_64_and_cut_back() -> None:
    padded, own = at_resolution(np.asarray(photo()), 48)
    assert own == (48, 80) and padded.shape == (64, 128, 3)
    assert (padded[48:] == padded[47]).all() and (padded[:, 80:] == padded[:, 79:80]).all()


@pytest.mark.parametrize(("own", "size", "whole", "resolution"), [
    ((1000, 500), (512, 512), False, 512), ((1000, 500), (512, 512), True, 256), ((640, 480), (512, 768), False, 768),
    ((640, 480), (512, 768), True, 384), ((333, 777), (640, 640), False, 640),
])  # fmt: skip
def test_pixel_perfect(own: tuple[int, int], size: tuple[int, int], whole: bool, resolution: int) -> None:
    assert pixel_perfect(own, size, whole) == resolution

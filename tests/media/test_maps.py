"""Maps keep their colours and lines at another size; photographs are scaled as diffusers scales them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from infuse.media.fitting import fitted
from infuse.media.maps import fitted_map, is_binary, is_few, one_pixel_wide, rim, scaled, thinned

SIZES = ((200, 160), (57, 44), (300, 90))


def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))


def lines() -> Image.Image:
    image = Image.new("L", (100, 80))
    draw = ImageDraw.Draw(image)
    draw.line((5, 5, 90, 70), fill=255)
    draw.ellipse((20, 10, 60, 60), outline=255)
    return image.convert("RGB")


def classes() -> Image.Image:
    image = Image.new("RGB", (100, 80), (120, 120, 120))
    draw = ImageDraw.Draw(image)
    draw.rectangle((10, 10, 50, 60), fill=(4, 200, 3))
    draw.ellipse((40, 20, 90, 70), fill=(250, 10, 10))
    return image


@pytest.mark.parametrize("size", SIZES)
def test_a_segmentation_has_no_new_colours(size: tuple[int, int]) -> None:
    before = {c for _, c in classes().getcolors()}
    for fit in ("stretch", "crop", "pad"):
        found = fitted_map(classes(), size, fit)
        assert found.size == size and {c for _, c in found.getcolors()} <= before
    smooth = fitted_map(classes(), size, "stretch", "smooth").getcolors(99999)
    assert len(smooth) > len(before)


@pytest.mark.parametrize("size", SIZES)
def test_lines_stay_black_and_white_and_thin(size: tuple[int, int]) -> None:
    found = scaled(lines(), size)
    assert is_binary(found) and one_pixel_wide(np.asarray(found)[..., 0])
    share = (np.asarray(found)[..., 0] > 0).mean() * size[0] * size[1]
    assert 0.3 * 219 < share < 5 * 219  # as long as the lines are, not as large as the picture


def test_photographs_are_scaled_by_lanczos() -> None:
    for fit in ("stretch", "crop"):
        assert fitted_map(photo(), (64, 64), fit).tobytes() == fitted(photo(), (64, 64), fit).tobytes()
    assert fitted_map(photo(), (100, 80)).tobytes() == photo().tobytes()
    assert not is_few(photo()) and is_few(classes()) and is_few(lines())
    assert not is_few(Image.new("RGB", (9, 9), "red"))


def test_bars_have_the_median_colour_of_the_rim() -> None:
    picture = np.asarray(classes()).copy()
    picture[0, :30] = 255  # fewer than half
    image = Image.fromarray(picture)
    assert rim(image) == (120, 120, 120)
    for resample in ("smooth", "map"):
        assert fitted_map(image, (200, 80), "pad", resample).getpixel((2, 40)) == (120, 120, 120)


def test_the_rest_of_a_crop_is_cut_at_the_centre() -> None:
    """k = max of the two scales; what sticks out is cut in halves, rounded down."""
    stripes = Image.fromarray(
        np.repeat(np.arange(0, 100, 10, dtype=np.uint8), 4)[None, :, None].repeat(20, 0).repeat(3, 2)
    )
    found = np.asarray(fitted_map(stripes, (20, 20), "crop", "map"))[..., 0]
    assert (found == np.asarray(stripes)[:, 10:30, 0]).all()


def test_thinning_leaves_one_pixel_of_a_thick_line() -> None:
    thick = np.zeros((40, 40), np.uint8)
    thick[18:23, 5:35] = 255
    thin = thinned(thick)
    assert ((thin > 0).sum(axis=0)[8:32] == 1).all()  # its ends fork
    assert (thinned(thick, prune=True) > 0).sum() <= (thin > 0).sum()

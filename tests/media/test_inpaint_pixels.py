"""What is done with a hole's pixels before and after the network: the webui's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from infuse.media.boxes import around, cut, cut_hole, put, shaped
from infuse.media.colours import lab, levelled, matched, rgb, spread
from infuse.media.filling import filled_in
from infuse.media.fitting import fitted_hole
from infuse.media.soften import softened


def image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.astype(np.uint8))


def test_a_blurred_edge_in_numbers() -> None:
    row = np.where(np.arange(33) >= 16, 255, 0)
    said = np.asarray(softened(image(np.tile(row, (5, 1))), 4))[2]
    want = [1, 3, 7, 12, 21, 32, 48, 67, 90, 115, 140, 165, 188, 207, 223, 234, 243, 248, 252, 254, 255]
    assert said.tolist() == [0] * 6 + want + [255] * 6


def test_a_blur_of_nothing_is_the_mask_and_a_wide_one_fits_a_small_picture() -> None:
    mask = image(np.eye(9) * 255)
    assert softened(mask, 0.0) is mask and softened(mask, 0.19) is mask
    flat = np.asarray(softened(mask, 64))
    assert flat.shape == (9, 9) and np.ptp(flat) <= 2


def test_a_filled_hole_in_numbers() -> None:
    y, x = np.mgrid[:32, :32]
    ramp, hole = np.repeat((4 * (x + y))[..., None], 3, -1), np.zeros((32, 32))
    hole[8:24, 8:24] = 255
    out = np.asarray(filled_in(image(ramp), image(hole)))[..., 0]
    assert out[16, ::4].tolist() == [64, 80, 88, 106, 130, 155, 160, 176]
    assert (out[10, 10], out[23, 23]) == (66, 190)
    assert (out[hole == 0] == ramp[..., 0][hole == 0]).all()


@pytest.mark.parametrize(
    ("box", "size", "picture", "want"),
    [
        ((10, 20, 138, 52), (512, 512), (600, 400), (10, 0, 138, 128)),
        ((0, 0, 100, 50), (512, 512), (120, 300), (0, 0, 100, 100)),
        ((500, 10, 600, 390), (512, 512), (600, 400), (220, 10, 600, 390)),
        ((100, 100, 201, 301), (768, 512), (800, 600), (0, 100, 301, 301)),
        ((5, 5, 6, 7), (512, 768), (64, 64), (5, 5, 6, 7)),
    ],
)
def test_a_box_grows_to_its_shape_in_numbers(
    box: tuple[int, int, int, int], size: tuple[int, int], picture: tuple[int, int], want: tuple[int, int, int, int]
) -> None:
    assert shaped(box, size, picture) == want


def test_a_box_lies_around_all_that_is_not_black() -> None:
    mask = np.zeros((64, 64))
    mask[12, 10], mask[30, 20] = 1, 255
    assert around(image(mask)) == (10, 12, 21, 31)
    assert around(image(mask), 8) == (2, 4, 29, 39)
    assert around(image(np.zeros((9, 9))), 8) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_box_stays_in_its_picture_and_holds_what_it_grew_from(seed: int) -> None:
    dice = np.random.default_rng(seed)
    w, h = (int(n) for n in dice.integers(8, 300, 2))
    left, top = int(dice.integers(0, w)), int(dice.integers(0, h))
    box = (left, top, int(dice.integers(left + 1, w + 1)), int(dice.integers(top + 1, h + 1)))
    size = (int(dice.integers(1, 9)) * 64, int(dice.integers(1, 9)) * 64)
    a, b, c, d = shaped(box, size, (w, h))
    assert 0 <= a <= box[0] and 0 <= b <= box[1] and box[2] <= c <= w and box[3] <= d <= h


@pytest.mark.parametrize("box", [(3, 4, 35, 36), (0, 0, 40, 13), (5, 0, 9, 40)])
def test_what_is_cut_out_is_put_back(box: tuple[int, int, int, int]) -> None:
    """A smooth picture, at twice to ten times its size and back."""
    y, x = np.mgrid[:40, :40]
    smooth = np.stack([3 * x + 60, 3 * y + 60, x + y], -1)
    there = cut(image(smooth), box, (128, 128))
    back = np.asarray(put(there, box)).astype(int)
    assert there.size == (128, 128) and back.shape == (box[3] - box[1], box[2] - box[0], 3)
    assert np.abs(back - smooth[box[1] : box[3], box[0] : box[2]]).max() <= 4


def test_a_hole_is_cut_as_its_picture_is() -> None:
    hole = np.zeros((40, 40))
    hole[20:22, 10:12] = 255
    small = np.asarray(cut_hole(image(hole), (0, 10, 40, 30), (80, 80)))
    assert set(np.unique(small)) == {0, 255} and (small > 0).sum() == 4 * 4
    assert small[40:44, 20:24].all(), "20 px of the height in the middle of 80, at twice the size: rows 20 to 60"
    hole[20:22, 10:12] = 77
    assert np.asarray(cut_hole(image(hole), (0, 10, 40, 30), (80, 80), soft=True)).max() == 77


def test_greys_of_a_scaled_hole_are_the_lightest_that_a_pixel_covers() -> None:
    grey = np.zeros((64, 64))
    grey[5, 7], grey[40, 41], grey[40, 42] = 30, 100, 99
    out = np.asarray(fitted_hole(image(grey), (20, 20), soft=True))
    assert set(out.ravel()) - {99} == {0, 30, 100}
    assert out[12:14, 12:14].max() == 100 and not np.asarray(fitted_hole(image(grey), (20, 20))).any()


def test_lab_goes_there_and_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert np.abs(rgb(lab(pixels)).astype(int) - pixels).max() <= 1
    said = np.rint(lab(np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)))[0]
    assert said.tolist() == [[255, 128, 128], [0, 128, 128], [136, 208, 195]], "OpenCV's numbers"


def test_matched_colours_keep_their_brightness() -> None:
    dice = np.random.default_rng(0)
    made, target = (
        dice.integers(60, 200, (64, 64, 3), dtype=np.uint8),
        dice.integers(60, 200, (64, 64, 3), dtype=np.uint8),
    )
    made[..., 0] //= 2  # less red
    out = matched(made, target)
    luma = np.array([0.3, 0.59, 0.11])
    assert np.abs(out @ luma - made @ luma).max() < 1.5
    before, after = (lab(p)[..., 1].mean() - lab(target)[..., 1].mean() for p in (made, out))
    assert abs(after) < 0.35 * abs(before)
    assert np.abs(matched(made, made).astype(int) - made).max() <= 1


def test_what_differs_at_the_border_is_taken_off_beside_it() -> None:
    """A drift that grows from left to right, known in a frame around the hole."""
    target = np.random.default_rng(0).integers(60, 160, (37, 50, 3), dtype=np.uint8)
    drift = np.linspace(0, 40, 50)[None, :, None] * [1, 0.5, 0]
    made = np.rint(target + drift).astype(np.uint8)
    where = np.ones((37, 50), bool)
    where[6:31, 8:42] = False
    out = levelled(made, target, where)
    assert (out[where] == target[where]).all()
    left = np.abs(out.astype(int) - target)[~where]
    assert left.max() <= 12 and left.mean() < 2 < np.abs(made.astype(int) - target)[~where].mean()
    assert (levelled(made, target, np.zeros((37, 50), bool)) == made).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 1), (33, 20)])
def test_one_known_number_is_known_everywhere(size: tuple[int, int]) -> None:
    where = np.zeros(size, bool)
    where[-1, 0] = True
    values = np.where(where[..., None], 5.0, np.nan_to_num(np.full((*size, 2), 99.0)))
    assert np.allclose(spread(values, where), 5)

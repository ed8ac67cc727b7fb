"""The holes of PowerPaint's training: shapes as the paper draws them, pure in the generator, at any size."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from infuse.training import powerpaint_masks as masks

SIZES = [(128, 128), (96, 64), (512, 640)]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def disc(size: tuple[int, int], share: float = 0.2) -> np.ndarray:
    width, height = size
    y, x = np.mgrid[:height, :width]
    return ((x - width / 2) ** 2 + (y - height / 2) ** 2 < (share * min(size)) ** 2).astype(np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_every_hole_is_a_hole(size: tuple[int, int]) -> None:
    instance = disc(size)
    made = {
        "strokes": lambda g: masks.strokes(size, g),
        "bands": lambda g: masks.bands(size, g),
        "boxed": lambda g: masks.boxed(size, g, masks.box_of(instance)),
        "fitted": lambda g: masks.fitted(instance, g)[0],
        "everything": lambda g: masks.everything(size),
    }
    for name, make in made.items():
        for seed in range(12):
            hole = make(rng(seed))
            assert hole.shape == size[::-1] and hole.dtype == np.uint8 and set(np.unique(hole)) <= {0, 1}, name
            assert hole.any() and np.array_equal(hole, make(rng(seed))), name
            assert name == "everything" or not hole.all(), name


def test_an_objects_box_has_room_and_is_jagged_half_of_the_time() -> None:
    size, box = (512, 512), (200, 210, 300, 330)
    straight = np.zeros((512, 512), np.uint8)
    straight[208:332, 198:302] = 1
    holes = [masks.boxed(size, rng(seed), box) for seed in range(60)]
    assert all((h >= straight).all() for h in holes), "the warped box is united with the box"
    plain = sum(np.array_equal(h, straight) for h in holes)
    assert 18 <= plain <= 42
    far = [h for h in holes if h.any() and not np.array_equal(h, straight)]
    reach = np.mean([np.abs(np.array(masks.box_of(h)) - (198, 208, 302, 332)).max() for h in far])
    assert 0.05 * sqrt(straight.sum()) < reach < 0.5 * sqrt(straight.sum())


def test_the_fit_is_the_share_of_the_object() -> None:
    instance = disc((512, 512))
    tight = masks.grown(instance, 3)
    found = [masks.fitted(instance, rng(seed)) for seed in range(80)]
    for hole, share in found:
        assert (hole >= tight).all() and share == pytest.approx(tight.sum() / hole.sum())
    shares = [s for _, s in found]
    assert max(shares) == 1 and min(shares) < 0.35, "0 to 9 times, as the paper means it"
    once = [masks.fitted(instance, rng(seed), original=True) for seed in range(80)]
    assert all(s < 1 and masks.box_of(h)[0] >= masks.box_of(tight)[0] - 11 for h, s in once), (
        "the original's code: once"
    )


def test_growing_at_once_is_growing_step_by_step() -> None:
    import cv2

    instance = disc((64, 64))
    stepwise = cv2.dilate(instance, np.ones((3, 3), np.uint8), iterations=5)
    assert np.array_equal(masks.grown(instance, 5), stepwise)
    kernel = cv2.dilate(instance, np.ones((7, 7), np.uint8), iterations=3)
    assert np.array_equal(masks.grown(instance, 9), kernel)


@pytest.mark.slow
def test_lengths_shrink_with_the_picture() -> None:
    large = np.mean([masks.fitted(disc((512, 512)), rng(s))[1] for s in range(200)])
    small = np.mean([masks.fitted(disc((128, 128)), rng(s))[1] for s in range(200)])
    assert small == pytest.approx(large, abs=0.03)


def test_bands_leave_a_rectangle() -> None:
    sides = set()
    for seed in range(40):
        hole = masks.bands((60, 40), rng(seed))
        left, top, right, bottom = masks.box_of(1 - hole)
        assert not hole[top:bottom, left:right].any() and hole.sum() == hole.size - (right - left) * (bottom - top)
        assert left <= 30 and right >= 30 and top <= 20 and bottom >= 20
        sides.add((left > 0, top > 0, right < 60, bottom < 40))
    assert len(sides) > 8 and (False,) * 4 not in sides

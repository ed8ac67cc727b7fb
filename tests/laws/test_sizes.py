"""Any size: the result has the picture's, what lies outside of the hole stays to the bit, and every place of the latent that
the hole touches is repainted, however thin it is."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from eighths import FACTOR, canny, condition, eight, engine
from some import some

import mix
import tiny
from infuse import (
    ControlNet,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    PowerPaint,
    Recipe,
    SingleImage,
    VideoToVideo,
)
from infuse.engine.engine import Engine
from infuse.network.video import VideoNetwork

KINDS = ("four", "nine", "powerpaint", "brushnet")
QUICK = 2
"""Small ones for the quick suite, before the 300 of up to 700 x 500 px."""


def touched(white: np.ndarray) -> np.ndarray:
    """Which places of the latent a hole touches, counted pixel by pixel."""
    rows, columns = np.nonzero(white)
    out = np.zeros([max(-(-s // FACTOR), 2) for s in white.shape], bool)
    out[rows // FACTOR, columns // FACTOR] = True
    return out


def filled(kind: str, image: np.ndarray, white: np.ndarray, **fields: Any) -> tuple[np.ndarray, np.ndarray]:
    """(the picture that is made, the places that are repainted)."""
    one, mask = engine(kind), white.astype(np.uint8) * 255
    ticket = one.submit(Recipe(prompt="x", steps=1, conditions=(condition(kind, image, mask),), **fields))
    said = ticket.jobs[0].sides
    holes = [e.hole for s in said.values() for e in s.on.latent if e.hole is not None]
    shown = [c.value for s in said.values() for c in s.on.channels if c.slot == "mask"]
    assert len(holes) == 1 and all(torch.equal(m, holes[0]) for m in shown)
    return np.asarray(ticket.result().image), holes[0][0].numpy() > 0


def thing(seed: int) -> tuple[str, np.ndarray, np.ndarray]:
    """A kind, noise of a random size, and a hole in it: a box, a wire, dust, or all of these."""
    dice = np.random.default_rng(seed)
    widest, highest = (96, 80) if seed < QUICK else (700, 500)
    w, h = int(dice.integers(16, widest + 1)), int(dice.integers(16, highest + 1))
    white = np.zeros((h, w), bool)
    if seed % 3 != 1:
        y, x = dice.integers(0, h), dice.integers(0, w)
        white[y : y + dice.integers(1, h + 1), x : x + dice.integers(1, w + 1)] = True
    if seed % 3 != 2:
        white[dice.integers(0, h)] |= dice.random(w) < 0.5
        white[dice.integers(0, h), dice.integers(0, w)] = True
    return KINDS[seed % 4], dice.integers(0, 256, (h, w, 3), dtype=np.uint8), white


@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=() if s < QUICK else pytest.mark.slow) for s in range(QUICK + 300)]
)
def test_any_size(seed: int) -> None:
    kind, image, white = thing(seed)
    made, places = filled(kind, image, white)
    assert made.shape == image.shape
    assert (made[~white] == image[~white]).all(), f"{(made != image)[~white].sum()} kept values changed"
    assert (places == touched(white)).all()


@pytest.mark.parametrize("kind", some(KINDS, quick=["nine"]))
def test_a_wire_is_repainted(kind: str) -> None:
    """I2: seven pixels between the corners of cells, where one sample a cell would meet none of them; and seven in two rows."""
    image = mix.picture(1, 64)
    for top, rows in ((1, 1), (3, 2)):
        white = np.zeros((64, 64), bool)
        white[top : top + 7, :] = True
        made, places = filled(kind, image, white)
        assert places.sum() == rows * 8 and (made != image)[white].mean() > 0.5


@pytest.mark.parametrize("kind", some(KINDS, quick=["nine"]))
def test_a_small_hole_of_a_large_picture(kind: str) -> None:
    """I2: 6 x 6 of 512 pixels, made at 64."""
    image, white = mix.picture(1, 512), np.zeros((512, 512), bool)
    white[260:266, 260:266] = True
    made, places = filled(kind, image, white, width=64, height=64)
    assert made.shape == (64, 64, 3) and places.sum() == 1


@pytest.mark.parametrize("kind", some(KINDS, quick=["nine"]))
def test_a_size_near_the_picture_s_scales_nothing(kind: str) -> None:
    """I3: width and height as other tools round them; all pixels that both have stay."""
    image, white = mix.picture(1, 64)[:, :59], np.zeros((64, 59), bool)
    white[20:30, 20:30] = True
    for width in (56, 59, 64):
        made, _ = filled(kind, image, white, width=width, height=64)
        both = min(width, 59)
        assert made.shape == (64, width, 3)
        assert (made[:, :both][~white[:, :both]] == image[:, :both][~white[:, :both]]).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["powerpaint", "four", "nine"])
def test_outpainting_keeps_the_picture_on_any_base(kind: str) -> None:
    """I3, U18: PowerPaint's words are not needed to go on with a picture."""
    image = mix.picture(2, 96)[:83, :91]
    grown = PowerPaint(image=image, task="outpaint", left=13, bottom=21, overlap=3)
    result = engine(kind).run(Recipe(prompt="x", steps=1, conditions=(grown,)))
    made = np.asarray(result.image)
    assert made.shape == (104, 104, 3)
    assert (made[: 83 - 3, 13 + 3 :] == image[: 83 - 3, 3:]).all()
    assert (made[83:] != 127).any() and (made[:, :13] != 127).any()


@pytest.mark.slow
def test_the_smallest_and_the_oddest() -> None:
    for width, height in ((8, 8), (8, 37), (33, 9)):
        one = mix.engine()
        hint = mix.picture(3, 40)
        conditions = (
            ControlNet(model="canny", image=hint),
            IPAdapter(model="face", image=hint),
            Img2Img(image=hint, strength=1),
        )
        result = one.run(Recipe(prompt="x", steps=1, width=width, height=height, conditions=conditions))
        assert result.image.size == (width, height)


@pytest.mark.slow
def test_half_precision_keeps_pixels_to_the_bit() -> None:
    """bfloat16 has 8 bits of a number, and what is to stay never becomes one."""
    base = tiny.base("sd1", dtype=torch.bfloat16)
    one = tiny.engine(eight(base))
    one.store.base("tiny").vae.to(torch.bfloat16)
    image = np.arange(256, dtype=np.uint8).repeat(3 * 16).reshape(64, 64, 3)
    mask = np.zeros((64, 64), np.uint8)
    mask[:8, :8] = 255
    made = np.asarray(one.run(Recipe(prompt="x", steps=1, conditions=(Inpaint(image=image, mask=mask),))).image)
    assert (made[mask == 0] == image[mask == 0]).all()


@cache
def clips() -> Engine:
    one = tiny.video()
    return tiny.engine(eight(one, VideoNetwork), {"canny": canny()})


@pytest.mark.slow
def test_clips_of_any_size_keep_what_lies_in_no_hole() -> None:
    film = np.random.default_rng(0).integers(0, 256, (4, 37, 45, 3), dtype=np.uint8)
    hole = np.zeros((4, 37, 45), np.uint8)
    hole[:, 11, :] = 255
    ticket = clips().submit(Recipe(prompt="x", steps=1, frames=4, conditions=(MaskedVideo(film=film, mask=hole),)))
    (places,) = [e.hole for s in ticket.jobs[0].sides.values() for e in s.on.latent if e.hole is not None]
    frames = np.stack([np.asarray(f) for f in ticket.result().frames[0]])
    assert frames.shape == film.shape and (frames[hole == 0] == film[hole == 0]).all()
    assert (places[0].numpy() > 0).sum() == 4 * 6, "one row of cells in each frame"


def test_a_clip_starts_from_a_film_of_any_size() -> None:
    film = np.random.default_rng(0).integers(0, 256, (4, 37, 45, 3), dtype=np.uint8)
    result = clips().run(Recipe(prompt="x", steps=2, frames=4, conditions=(VideoToVideo(film=film, strength=0.5),)))
    assert result.frames[0][0].size == (45, 37)


@pytest.mark.slow
def test_the_conditions_of_videocomposer_see_the_same_canvas() -> None:
    one = tiny.engine(tiny.videocomposer())
    image = mix.picture(5, 40)
    result = one.run(Recipe(prompt="x", steps=1, frames=4, width=33, height=21, conditions=(SingleImage(image=image),)))
    assert result.frames[0][0].size == (33, 21)


FITS = {"stretch": (96, 96), "crop": (32, 96), "pad": (96, 96)}

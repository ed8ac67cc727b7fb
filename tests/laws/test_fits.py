"""What is of another shape is fitted as asked, and said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from eighths import condition, engine
from PIL import Image

import mix
import tiny
from infuse import (
    BrushNet,
    ControlNet,
    Inpaint,
    IPAdapter,
    PowerPaint,
    Recipe,
    RecipeError,
    StyleImage,
)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_another_shape_is_fitted_as_asked_and_said(fit: Any) -> None:
    """A hint twice as wide as the picture: what the ControlNet is shown."""
    wide = np.zeros((32, 64, 3), np.uint8)
    wide[:, :16] = 255  # its left quarter
    hint = ControlNet(model="canny", image=wide, fit=fit, invert=False)
    ticket = engine("four").submit(Recipe(prompt="x", steps=1, width=32, height=32, conditions=(hint,)))
    (shown,) = [r.hint for s in ticket.jobs[0].sides.values() for r in s.on.residuals]
    light = shown[0].numpy() > 0.5
    assert light.sum() == {"stretch": 32 * 8, "crop": 0, "pad": 16 * 8}[fit]
    words = {"stretch": "stretched", "crop": "cut around the centre", "pad": "bars"}[fit]
    assert any("conditions.0.image: 64 x 32 px" in w and words in w for w in ticket.warnings)
    ticket.cancel()


def test_a_mask_of_another_size_is_scaled_and_said() -> None:
    image, mask = mix.picture(1, 64), np.zeros((32, 32), np.uint8)
    mask[16:, 16:] = 255
    one = engine("nine")
    ticket = one.submit(Recipe(prompt="x", steps=1, conditions=(Inpaint(image=image, mask=mask),)))
    assert any("conditions.0.mask: 32 x 32 px is scaled to its image of 64 x 64 px" in w for w in ticket.warnings)
    made = np.asarray(ticket.result().image)
    assert (made[:32] == image[:32]).all() and (made[32:, 32:] != image[32:, 32:]).any()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", ["four", "nine", "brushnet"])
def test_a_mask_of_another_size_follows_its_picture(kind: str, fit: Any) -> None:
    """The same hole, drawn at half the width: whatever is done to the picture is done to it."""
    image, mask = mix.picture(1, 128)[:64], np.zeros((64, 128), np.uint8)
    mask[16:48, 40:72] = 255
    openings = []
    for drawn in (mask, mask[:, ::2]):
        asked = condition(kind, image, drawn).model_copy(update={"fit": fit})
        ticket = engine(kind).submit(Recipe(prompt="x", steps=1, width=64, height=64, conditions=(asked,)))
        openings += [e.opening for s in ticket.jobs[0].sides.values() for e in s.on.latent if e.opening is not None]
        ticket.cancel()
    assert torch.equal(*openings)


def test_a_mask_near_the_size_of_what_is_made_is_its_picture_s() -> None:
    """60 px beside a picture of 128, made at 64: scaled with the picture, not laid on the canvas."""
    mask = np.zeros((60, 60), np.uint8)
    mask[30:, 30:] = 255
    asked = Inpaint(image=mix.picture(1, 128), mask=mask)
    ticket = engine("four").submit(Recipe(prompt="x", steps=1, width=64, height=64, conditions=(asked,)))
    (opening,) = [e.opening for s in ticket.jobs[0].sides.values() for e in s.on.latent if e.opening is not None]
    want = torch.zeros(1, 64, 64)
    want[:, 32:, 32:] = 1
    assert torch.equal(opening, want)
    ticket.cancel()


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_the_hole_of_a_film_follows_its_film(fit: Any) -> None:
    from infuse.media.films import Film

    film = Film.of([Image.new("RGB", (128, 64))] * 3)
    mask = np.zeros((3, 64, 128), np.uint8)
    mask[:, 16:48, 40:72] = 255
    for drawn in (mask, mask[:1]):
        whole, half = (Film.of(m).beside(film).holes(3, (64, 64), fit) for m in (drawn, drawn[:, :, ::2]))
        assert [np.asarray(h).tolist() for h in whole] == [np.asarray(h).tolist() for h in half]
        assert np.asarray(whole[0]).any()


def test_a_powerpaint_s_mask_of_another_size_is_said() -> None:
    asked = PowerPaint(image=mix.picture(1, 64), mask=np.full((16, 32), 255, np.uint8), task="removal")
    said = engine("powerpaint").check(Recipe(prompt="x", conditions=(asked,))).warnings
    assert any("conditions.0.mask: 32 x 16 px will be stretched to 64 x 64 px, its image" in w for w in said)


def test_outpainting_makes_the_canvas_wherever_it_stands() -> None:
    image, mask = mix.picture(1, 64), np.zeros((64, 64), np.uint8)
    mask[8:24, 8:24] = 255
    both = (
        PowerPaint(image=image, mask=mask, task="removal"),
        PowerPaint(image=image, task="outpaint", left=16, overlap=2),
    )
    for conditions in (both, both[::-1]):
        assert engine("powerpaint").check(Recipe(prompt="x", conditions=conditions)).size == (80, 64)
    other = Inpaint(image=image, mask=mask)
    for conditions, where in (((other, both[1]), 1), ((both[1], other), 0)):
        with pytest.raises(RecipeError, match=f"conditions.{where}: it makes the picture larger"):
            engine("four").check(Recipe(prompt="x", conditions=conditions))


def test_one_ground_has_one_fit() -> None:
    image, mask = mix.picture(1, 64)[:32], np.full((32, 64), 255, np.uint8)
    for size, fine in ((32, False), (64, True)):
        conditions = (
            Inpaint(image=image, mask=mask, fit="crop"),
            BrushNet(model="brush", image=image, mask=mask, fit="pad"),
        )
        recipe = Recipe(prompt="x", width=size, height=32, conditions=conditions)
        if fine:
            assert engine("four").check(recipe).size == (64, 32)
            continue
        with pytest.raises(RecipeError, match="conditions.1: .*fit: pad, and conditions.0 by crop"):
            engine("four").check(recipe)


def test_regions_of_another_size_are_stretched_and_said() -> None:
    region = np.zeros((10, 20), np.uint8)
    region[:, 10:] = 255
    report = engine("four").check(
        Recipe(
            prompt="x",
            width=64,
            height=64,
            conditions=(ControlNet(model="canny", image=mix.picture(1, 64), mask=region),),
        )
    )
    assert any("conditions.0.mask: 20 x 10 px will be stretched to 64 x 64 px" in w for w in report.warnings)


def test_references_that_are_no_squares_are_said_and_seen_whole() -> None:
    """I7: the outer thirds of a wide picture have no effect, unless tiles or pad are asked for."""
    one, left = engine("four"), np.full((32, 96, 3), 128, np.uint8)
    right = left.copy()
    right[:, :16] = 255
    seen = {}
    for fit in ("crop", "pad", "tiles"):
        said = []
        for image in (left, right):
            recipe = Recipe(
                prompt="x", width=32, height=32, steps=1, conditions=(IPAdapter(model="face", image=image, fit=fit),)
            )
            ticket = one.submit(recipe)
            said.append(next(d.tokens for s in ticket.jobs[0].sides.values() for d in s.on.decoupled))
            assert any("67% have no effect" in w for w in ticket.warnings) == (fit == "crop")
            ticket.cancel()
        seen[fit] = (len(said[0]), bool(torch.equal(*said)))
    assert seen["crop"][1] and not seen["pad"][1] and not seen["tiles"][1]
    assert seen["tiles"][0] == 3 * seen["crop"][0]


@pytest.mark.slow
def test_a_style_that_is_no_square_is_said() -> None:
    """I7: a style image is seen as a reference is; it is one token, so that tiles are none of its ways."""
    one = tiny.engine(tiny.videocomposer())
    wide = mix.picture(7, 96)[:32]
    for fit in ("crop", "pad"):
        warnings = one.check(Recipe(prompt="x", frames=4, conditions=(StyleImage(image=wide, fit=fit),))).warnings
        said = [w for w in warnings if "conditions.0.image" in w and "67% have no effect" in w and "pad" in w]
        assert len(said) == (fit == "crop")


def test_a_photo_in_the_size_of_a_picture_is_not_scaled_twice() -> None:
    """What is laid on the canvas is the picture itself: its last row and column are repeated, nothing is resampled."""
    from infuse.encoders.kit import Kit

    base = engine("four").store.base("tiny")
    image = mix.picture(9, 64)[:37, :45]
    kit = Kit(base, (45, 37), engine("four").store)
    from infuse.media.pictures import Picture

    shown = kit.exact(Picture.of(image))
    assert kit.canvas == (48, 40) and shown.shape == (3, 40, 48)
    assert np.array_equal((shown[:, :37, :45] * 255).round().byte().permute(1, 2, 0).numpy(), image)
    assert torch.equal(shown[:, 37:, :45], shown[:, 36:37, :45].expand(-1, 3, -1))
    assert Image.fromarray(image).size == (45, 37)

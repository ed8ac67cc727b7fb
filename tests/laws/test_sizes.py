"""Any size: the result has the picture's, what lies outside of the hole stays to the bit, and every place of the latent that
the hole touches is repainted, however thin it is."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, ControlNetModel
from PIL import Image
from some import some

import mix
import tiny
from infuse import (
    BrushNet,
    ControlNet,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    PowerPaint,
    Recipe,
    RecipeError,
    SingleImage,
    StyleImage,
    VideoToVideo,
)
from infuse.engine.engine import Engine
from infuse.network.unet import Network
from infuse.network.video import VideoNetwork

KINDS = ("four", "nine", "powerpaint", "brushnet")
FACTOR = 8
QUICK = 2
"""Small ones for the quick suite, before the 300 of up to 700 x 500 px."""


def eight(one: Any, kind: type = Network) -> Any:
    """A tiny base with a VAE that has 8 pixels to a place of the latent, as all of Stable Diffusion's have."""
    torch.manual_seed(5)
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=64,
    )  # fmt: skip
    base = one.base
    network = kind(base.network.unet, replace(base.network.spec, vae_factor=FACTOR))
    return replace(one, base=replace(base, network=network, vae=tiny.randomized(vae, 5)))


@cache
def canny() -> ControlNetModel:
    """Its hint encoder makes a map as much smaller as that VAE makes a picture."""
    torch.manual_seed(7)
    net = ControlNetModel.from_unet(tiny.unet("sd1"), conditioning_embedding_out_channels=(8, 16, 16, 16))
    return tiny.randomized(net, 7)  # type: ignore[return-value]


@cache
def engine(kind: str) -> Engine:
    base = {"nine": lambda: tiny.base("sd1", 9), "powerpaint": tiny.powerpaint1}.get(kind, lambda: tiny.base("sd1"))()
    modules = {"brush": tiny.brushnet(), "canny": canny(), "face": tiny.adapter("sd1", "plain", 9)}
    return tiny.engine(eight(base), modules)


def condition(kind: str, image: Any, mask: Any) -> Any:
    if kind == "powerpaint":
        return PowerPaint(image=image, mask=mask, task="removal")
    return BrushNet(model="brush", image=image, mask=mask) if kind == "brushnet" else Inpaint(image=image, mask=mask)


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

"""Hints that are films, or the negative of what a ControlNet hears; VAEs that overflow in half precision."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
import torch

import mix
import tiny
from infuse import ControlNet, Film, Img2Img, InfuseWarning, Recipe, RecipeError
from infuse.encoders.annotators.kinds import inverted
from infuse.engine.engine import Engine
from infuse.errors import InfuseError

KINDS = ("control_v11p_sd15_canny", "control_v11p_sd15_lineart", "control_v11p_sd15_scribble", "control_v11p_sd15_mlsd",
         "control_v11p_sd15_softedge", "t2i-depth", "mycanny", "whatever")  # fmt: skip


def lines(light: bool = True) -> np.ndarray:
    """(64 64 3) uint8: thin lines."""
    drawn = np.zeros((64, 64, 3), np.uint8)
    drawn[::16], drawn[:, 5::20] = 255, 255
    return drawn if light else 255 - drawn


def ramp(near_below: bool = True) -> np.ndarray:
    """A ground that comes nearer: light is near."""
    depth = np.linspace(20, 230, 64).astype(np.uint8)[:, None].repeat(64, 1)
    return (depth if near_below else 255 - depth)[..., None].repeat(3, -1)


@cache
def engine() -> Engine:
    """One ControlNet under all of these names."""
    return tiny.engine(tiny.base("sd1"), dict.fromkeys(KINDS, tiny.controlnet("sd1", 7)), own=False)


def said(name: str, **fields: Any) -> list[str]:
    report = engine().check(Recipe(prompt="x", conditions=(ControlNet(model=name, **fields),)))
    return [w for w in report.warnings if "looks inverted" in w]


@pytest.mark.parametrize("name", KINDS)
def test_the_negative_of_a_map_is_said(name: str) -> None:
    """I6: black lines on white before a ControlNet of white on black, and depths in which near things are dark."""
    right, wrong = (ramp(), ramp(False)) if "depth" in name else (lines(), lines(False))
    (warning,) = said(name, image=wrong)
    assert warning.startswith("conditions.0.image: ") and "Set invert: true" in warning
    assert not said(name, image=right) and not said(name, image=wrong, invert=True)


def test_photographs_and_other_maps_are_no_negatives() -> None:
    photo = filming.texture()[:64, :64]
    assert not any(inverted(kind, tiny_image(photo)) for kind in ("canny", "depth", "openpose", "seg", "normal", None))
    assert not inverted("seg", tiny_image(lines(False))) and not inverted("openpose", tiny_image(lines(False)))


def tiny_image(pixels: np.ndarray) -> Any:
    from PIL import Image

    return Image.fromarray(pixels).convert("RGB")


def test_inverting_turns_the_hint_over() -> None:
    one = mix.engine()
    heard = []
    for image, invert in ((lines(), False), (lines(False), True), (lines(False), False)):
        recipe = Recipe(prompt="x", steps=1, width=64, height=64,
                        conditions=(ControlNet(model="canny", image=image, invert=invert),))  # fmt: skip
        ticket = one.submit(recipe)
        heard.append(next(r.hint for s in ticket.jobs[0].sides.values() for r in s.on.residuals))
        ticket.cancel()
    assert torch.equal(heard[0], heard[1]) and not torch.equal(heard[0], heard[2])
    with pytest.raises(RecipeError, match=r"conditions\.0\.invert: canny draws light on dark already"):
        one.check(
            Recipe(prompt="x", conditions=(ControlNet(model="canny", image=lines(), annotator="canny", invert=True),))
        )


def clips() -> Engine:
    return tiny.engine(tiny.video(), {"canny": tiny.controlnet("sd1", 7)})


FRAMES = np.stack([np.roll(lines()[:16, :16], 3 * i, axis=1) for i in range(4)])


@pytest.mark.slow
def test_a_film_is_a_hint_for_every_frame(tmp_path: Path) -> None:
    """U19: frame by frame; a film of one picture repeated is that picture."""
    one = clips()

    def made(**hint: Any) -> torch.Tensor:
        recipe = Recipe(
            prompt="x", steps=2, frames=4, width=16, height=16, conditions=(ControlNet(model="canny", **hint),)
        )
        return one.run(recipe).latents

    moving, still = made(film=FRAMES), made(image=FRAMES[0])
    assert (moving - still).abs().max() > 1e-4
    assert torch.allclose(made(film=FRAMES[:1].repeat(4, 0)), still, atol=1e-5)
    assert torch.equal(made(image=FRAMES), moving), "four axes are a film, whatever the field is called"
    filming.folder(tmp_path / "frames", [tiny_image(f) for f in FRAMES])
    assert torch.equal(made(film=tmp_path / "frames"), moving)
    assert torch.equal(made(film=Film.of(FRAMES, reverse=True)), made(film=FRAMES[::-1].copy()))


@pytest.mark.slow
def test_a_name_of_a_film_is_one(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="pip install 'infuse[video]'")
    filming.video(tmp_path / "clip.mp4", [tiny_image(np.kron(f, np.ones((4, 4, 1), np.uint8))) for f in FRAMES])
    found = ControlNet(model="canny", image=tmp_path / "clip.mp4")
    assert found.image is None and found.film is not None
    report = clips().check(Recipe(prompt="x", frames=4, conditions=(found,)))
    assert report.frames == 4
    with pytest.raises(RecipeError, match=r"conditions\.0\.film: sd1 makes pictures"):
        mix.engine().check(Recipe(prompt="x", conditions=(found,)))


@pytest.mark.parametrize("hint", [{}, {"image": lines(), "film": FRAMES}])
def test_one_hint_is_wanted(hint: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="^image: "):
        ControlNet(model="canny", **hint)


class Overflowing(torch.nn.Module):
    """A VAE that answers inf in half precision, as SDXL's first one did."""

    def __init__(self, vae: Any, always: bool = False) -> None:
        super().__init__()
        self.vae, self.always = vae, always

    @property
    def config(self) -> Any:
        return self.vae.config

    @property
    def dtype(self) -> torch.dtype:
        return self.vae.dtype

    def _broken(self) -> bool:
        return self.always or self.vae.dtype.itemsize < 4

    def decode(self, z: torch.Tensor, **how: Any) -> Any:
        made = self.vae.decode(z, **how)
        return (made[0] * float("inf"), *made[1:]) if self._broken() else made

    def encode(self, pixels: torch.Tensor) -> Any:
        said = self.vae.encode(pixels)
        if self._broken():
            said.latent_dist.mean = said.latent_dist.mean * float("nan")
        return said


def overflowing(always: bool = False) -> Engine:
    one = tiny.engine(tiny.base("sd1", dtype=torch.bfloat16))
    base = one.store.base("tiny")
    base.vae = Overflowing(base.vae.to(torch.bfloat16), always)
    return one


@pytest.mark.slow
def test_a_vae_that_overflows_is_asked_again_in_float32() -> None:
    """I12: an all-black picture is no success."""
    recipe = Recipe(
        prompt="x", steps=1, width=16, height=16, conditions=(Img2Img(image=mix.picture(1, 16), strength=1),)
    )
    with pytest.warns(InfuseWarning, match="float32"):
        result = overflowing().run(recipe)
    assert np.asarray(result.image).std() > 5
    assert any("decoded in float32" in w for w in result.warnings) and any(
        "encoded in float32" in w for w in result.warnings
    )


@pytest.mark.slow
def test_nan_after_that_is_the_letter() -> None:
    with pytest.raises(RecipeError, match="the VAE answered with NaN"):
        overflowing(always=True).run(Recipe(prompt="x", steps=1, width=16, height=16))


@pytest.mark.slow
def test_one_bad_picture_does_not_lose_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one, developed = mix.engine(), sys.modules["infuse.engine.engine"].developed

    def spoiled(base: Any, job: Any, size: Any) -> Any:
        if job.seed == 6:
            job.latent = job.latent * float("nan")
        return developed(base, job, size)

    monkeypatch.setattr("infuse.engine.engine.developed", spoiled)
    result = one.run(Recipe(prompt="x", steps=2, width=16, height=16, count=3, seed=5))
    assert result.recipe.seeds == (5, 7) and len(result.images) == len(result.latents) == 2
    assert any("seed 6 gave no picture: the network's answers became infinite or NaN" in w for w in result.warnings)
    alone = one.run(Recipe(prompt="x", steps=2, width=16, height=16, seed=7)).image
    assert np.array_equal(np.asarray(result.images[1]), np.asarray(alone))


def test_if_all_are_bad_the_letter_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    one = mix.engine()
    monkeypatch.setattr("infuse.engine.engine.developed", lambda *_: (_ for _ in ()).throw(RecipeError("", "nothing")))
    with pytest.raises(InfuseError, match="nothing"):
        one.run(Recipe(prompt="x", steps=1, width=16, height=16, count=2))

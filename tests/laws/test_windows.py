"""A clip longer than its network's own, against a loop that can be read; and who is silent in it."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from some import some

import mix
import tiny
from infuse import DepthVideo, Film, Inpaint, MaskedVideo, Recipe, RecipeError, Text
from infuse.conditions.video.depth import WHITE
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


FRAMES, NATIVE, SIDE, SPATIAL, LATENT = 9, 4, 16, 24, 8
WINDOWS = ((0, 4), (3, 7), (5, 9))
NEAR = np.array([0.25, 0.5, 0.5, 0.25])
"""How much a frame counts in a window of four, up to scale."""
SILENT: Any = ({"weight": 0}, {"weight": {0: 0.0, 1: 0.0}}, {"start": 0.9, "end": 0.95})


def film(seed: int, count: int, side: int) -> Film:
    return Film.of(np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


@cache
def composer() -> tiny.Tiny:
    return tiny.videocomposer(torch.float64)


def engine(made: tiny.Tiny | None = None, **options: Any) -> Engine:
    return tiny.engine(made or composer(), **options)


def recipe(*said: Any, **fields: Any) -> Recipe:
    common = {"model": "tiny", "prompt": "a ball", "width": SIDE, "height": SIDE, "steps": 3, "scheduler": "DDIM"}
    return Recipe(**{**common, "guidance": 4.0, "frames": FRAMES, "seed": 5, "conditions": said, **fields})


@torch.no_grad()
def loop(found: tiny.Tiny, depths: Film, curve: np.ndarray) -> torch.Tensor:
    """Every step, side and window one network call, and the mean of what they say to each frame."""
    grey = np.stack([np.asarray(f.convert("L")) for f in depths.frames(FRAMES)]) / 255
    seen = WHITE * torch.from_numpy(grey)[None, None]
    encoder: Any = found.base.composer.stc["depth"]  # type: ignore[union-attr]
    words = [found.base.texts.tokens(p)[None].double() for p in ("a ball", "")]
    scheduler = DDIMScheduler.from_config(tiny.SCHEDULE)
    scheduler.set_timesteps(3)
    x = torch.randn(1, 4, FRAMES, LATENT, LATENT, generator=torch.Generator().manual_seed(5)).double()
    for t in scheduler.timesteps:
        total = torch.zeros(2, *x.shape[1:], dtype=torch.float64)
        count = torch.zeros(FRAMES, 1, 1, dtype=torch.float64)
        for a, b in WINDOWS:
            heard = encoder(seen[:, :, a:b], (LATENT, LATENT)) * torch.from_numpy(curve[a:b])[:, None, None]
            for side, said in enumerate(words):
                total[side, :, a:b] += (
                    torch.from_numpy(NEAR)[:, None, None]
                    * found.parts["unet"](torch.cat([x[:, :, a:b], heard], 1), t.expand(1), said)[0][0]
                )
            count[a:b] += torch.from_numpy(NEAR)[:, None, None]
        yes, no = total / count
        x = scheduler.step((no + 4.0 * (yes - no))[None], int(t), x).prev_sample
    return x


def test_a_guided_run_over_three_windows_equals_the_plain_loop() -> None:
    depths, found = film(1, FRAMES, SPATIAL), composer()
    expected = loop(found, depths, np.linspace(1, 0.2, FRAMES))
    ours = engine(found).run(recipe(DepthVideo(film=depths, frames={0: 1.0, 1: 0.2}))).latents
    assert float((ours - expected).abs().max()) < 1e-5 * float(expected.abs().max())


@pytest.mark.parametrize("rows", some([1, 3, 64], quick=[3]))
def test_windows_do_not_depend_on_how_many_share_a_call(rows: int) -> None:
    asked = recipe(DepthVideo(film=film(1, FRAMES, SPATIAL)), Text(prompt="a cube", weight=0.5))
    made = engine(max_rows=rows)
    calls = []
    network = made.store.base("tiny").network
    own = network.predict
    network.predict = lambda batch: (calls.append(len(batch.x)), own(batch))[1]  # type: ignore[method-assign]
    try:
        latents = made.run(asked).latents
    finally:
        del network.predict
    assert float((latents - engine().run(asked).latents).abs().max()) < 1e-10
    assert made.check(asked).calls == len(calls)


def test_the_first_window_s_lonely_frames_are_those_of_the_short_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step on the same noise: what only the first window sees is what a clip of its length would be."""
    depths, found = film(1, FRAMES, SPATIAL), composer()
    made, own = engine(found), torch.randn
    long = made.run(recipe(DepthVideo(film=depths), steps=1)).latents

    def cut(size: tuple[int, ...], **how: Any) -> torch.Tensor:
        return own((*size[:2], FRAMES, *size[3:]), **how)[:, :, : size[2]]

    monkeypatch.setattr(torch, "randn", cut)
    short = made.run(recipe(DepthVideo(film=depths), steps=1, frames=NATIVE)).latents
    assert float((long[:, :, :3] - short[:, :, :3]).abs().max()) < 1e-10
    assert float((long[:, :, 3] - short[:, :, 3]).abs().max()) > 1e-6, "the second window sees it as well"


# Who is silent -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", some(SILENT, quick=SILENT[1:2]), ids=str)
def test_a_silent_condition_does_not_shorten_the_run(how: Any) -> None:
    hole = MaskedVideo(film=film(6, FRAMES, SIDE), mask=mix.half(SIDE), strength=0.7, **how)
    made = engine()
    assert torch.equal(made.run(recipe(hole)).latents, made.run(recipe()).latents)
    picture = tiny.engine(tiny.base("sd1", dtype=torch.float64))
    still = {"frames": None}
    begun = Inpaint(image=mix.picture(1, SIDE), mask=mix.half(SIDE), strength=0.7, **how)
    assert torch.equal(picture.run(recipe(begun, **still)).latents, picture.run(recipe(**still)).latents)


def test_what_is_kept_is_no_side_s() -> None:
    common: Any = {"film": film(6, FRAMES, SIDE), "mask": mix.half(SIDE), "strength": 0.4}
    made = engine()
    negative = made.run(recipe(MaskedVideo(applies_to="negative", **common), guidance=1.0))
    kept = np.asarray(mix.half(SIDE)) == 0
    shown = film(6, FRAMES, SIDE).frames(FRAMES)
    for frame, original in zip(negative.frames[0], shown, strict=True):
        assert np.array_equal(np.asarray(frame)[kept], np.asarray(original)[kept])
    start = made.run(recipe(MaskedVideo(weight=1e-9, **common), guidance=1.0))
    assert float((negative.latents - start.latents).abs().max()) < 1e-6


def test_two_holes_in_two_films_are_refused() -> None:
    first, second = (MaskedVideo(film=film(k, FRAMES, SIDE), mask=mix.half(SIDE)) for k in (6, 7))
    again = MaskedVideo(film=film(6, FRAMES, SIDE), mask=255 - np.asarray(mix.half(SIDE)))
    silent = MaskedVideo(film=film(7, FRAMES, SIDE), mask=mix.half(SIDE), weight=0)
    store = engine().store
    with pytest.raises(RecipeError, match=r"conditions.1.film: it is another one than that of conditions.0.*the same"):
        Engine(store=store).check(recipe(first, second))
    Engine(store=store).check(recipe(first, again, silent))
    pictures = ModelStore(device="cpu")
    pictures.add("tiny", tiny.base("sd1").base)
    one, other = (Inpaint(image=mix.picture(k, SIDE), mask=mix.half(SIDE)) for k in (1, 2))
    with pytest.raises(RecipeError, match=r"conditions.1.image: it is another one"):
        Engine(store=pictures).check(recipe(one, other, frames=None))


def test_a_clip_that_comes_out_as_nothing_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"infinite or NaN \(seed 5\).*lower them"):
        engine().run(recipe(guidance=1e300))

"""VideoComposer's conditions and films: each alone, all together, along the clip, and against a loop that hides nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import filming
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler
from goldens.through_video import Composer
from PIL import Image
from some import some

import mix
import tiny
from infuse import (
    Condition,
    DepthVideo,
    Film,
    MaskedVideo,
    Motion,
    Recipe,
    SingleImage,
    SingleSketch,
    SketchVideo,
    StyleImage,
    VideoToVideo,
)
from infuse.batch import fill
from infuse.conditions.video.depth import WHITE
from infuse.conditions.video.spatial import spatial_size
from infuse.encoders.drawn_motion import drawn_motion
from infuse.encoders.kit import Kit
from infuse.encoders.motion import sparse_motion
from infuse.engine.engine import Engine
from infuse.engine.windows import windows
from infuse.weights.layouts.video_composer import VideoModules

CLOSE, FRAMES, SIDE, SPATIAL, LATENT = 1e-10, 9, 16, 24, 8
ARROW = {"from": [0.2, 0.3], "to": [0.9, 0.6]}


@cache
def composer() -> tiny.Tiny:
    return tiny.videocomposer(torch.float64)


def engine(**options: Any) -> Engine:
    return tiny.engine(composer(), **options)


@cache
def film(seed: int = 0, count: int = FRAMES, side: int = SPATIAL) -> Film:
    """Noise at the size in which conditions are seen, so that nothing is resized."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return Film.of(noise)


@cache
def drifting(count: int = FRAMES) -> Film:
    return Film.of(filming.drifting(count, size=(48, 48)))


@cache
def conditions() -> dict[str, Condition]:
    """One of each kind."""
    return {
        "depth_video": DepthVideo(film=film(1)),
        "sketch_video": SketchVideo(film=film(2), weight=0.8),
        "drawn sketch": SketchVideo(film=film(3), annotator="canny", end=0.7),
        "single_sketch": SingleSketch(image=mix.picture(4, SPATIAL)),
        "single_image": SingleImage(image=mix.picture(5, SPATIAL), frames={0: 1.0, 1: 0.0}),
        "drawn": Motion(drawn=[ARROW], camera={"pan": [0.1, 0.0]}),
        "motion": Motion(film=drifting(), scale=0.5),
        "flow": Motion(film=drifting(), source="flow", sparse=False),
        "masked_video": MaskedVideo(film=film(6, FRAMES, SIDE), mask=mix.half(SIDE), weight={0: 1.0, 1: 0.5}),
        "style_image": StyleImage(image=mix.picture(7), weight=0.7, mask=mix.half(SIDE)),
    }


def recipe(*said: Condition, frames: int = 4, **fields: Any) -> Recipe:
    common = {"model": "tiny", "prompt": "a ball", "width": SIDE, "height": SIDE, "steps": 2, "scheduler": "DDIM"}
    return Recipe(**{**common, "guidance": 4.0, "frames": frames, "conditions": said, **fields})


def kit(frames: int = 4) -> Kit:
    base = composer().base
    return Kit(base, (SIDE, SIDE), engine().store, frames, windows(frames, base.spec.frames))


@pytest.mark.slow
def test_alone_equals_together() -> None:
    every = conditions()
    asked = [recipe(c, seed=i, frames=4 if i % 4 else FRAMES) for i, c in enumerate(every.values())]
    asked += [
        recipe(*every.values(), seed=20),
        recipe(*every.values(), frames=FRAMES, scheduler="Euler"),
        recipe(frames=3),
    ]
    asked.append(recipe(VideoToVideo(film=film(8, FRAMES, SIDE), strength=0.7), *list(every.values())[:3], seed=21))
    alone = [engine().run(r).latents for r in asked]
    together = [r.latents for r in engine().run_all(*asked)]
    assert max(float((a - b).abs().max()) for a, b in zip(alone, together, strict=True)) < CLOSE
    assert alone[-3].shape == (1, 4, FRAMES, LATENT, LATENT)


@pytest.mark.slow
def test_the_order_of_conditions_does_not_matter() -> None:
    every = list(conditions().values())
    one, other = (engine().run(recipe(*said)).latents for said in (every, every[::-1]))
    assert float((one - other).abs().max()) < CLOSE


@pytest.mark.parametrize("name", some(conditions(), quick=["style_image"]))
def test_who_is_silent_changes_nothing_and_who_speaks_does(name: str) -> None:
    condition, made = conditions()[name], engine()
    without, loud = made.run(recipe()).latents, made.run(recipe(condition)).latents
    half = made.run(recipe(condition.model_copy(update={"weight": 0.35}))).latents
    assert min(float((a - b).abs().max()) for a, b in ((without, loud), (without, half), (loud, half))) > 1e-6
    for silent in ({"weight": 0.0}, {"start": 0.6}):
        fields = {n: getattr(condition, n) for n in type(condition).model_fields} | {"end": 1.0} | silent
        assert torch.equal(made.run(recipe(type(condition)(**fields))).latents, without)


@pytest.mark.slow
def test_a_curve_along_the_clip_weighs_each_frame() -> None:
    tools = kit(FRAMES)
    rising = DepthVideo(film=film(1), frames={0: 0.0, 1: 1.0}, weight=0.5).sides(tools).on
    (slot,), x = tools.spec.channel_slots, torch.zeros(4, 4, LATENT, LATENT, dtype=torch.float64)
    for first, last in tools.windows:
        said = rising.at(0.0, 0.5).clip(first, last, FRAMES)
        value = said.channels[0].value
        expected = value * torch.linspace(0, 1, FRAMES, dtype=torch.float64)[first:last, None, None] * 0.5
        assert torch.allclose(fill(slot, said.channels, x), expected)
    made = engine()
    silent = DepthVideo(film=film(1), frames=0.0)
    assert torch.equal(made.run(recipe(silent)).latents, made.run(recipe()).latents)


def test_a_region_is_heard_only_there() -> None:
    tools = kit()
    said = DepthVideo(film=film(1), mask=mix.half(SIDE)).sides(tools).on.at(0.0).clip(0, 4, 4)
    heard = fill(tools.spec.channel_slots[0], said.channels, torch.zeros(4, 4, LATENT, LATENT, dtype=torch.float64))
    assert heard[..., : LATENT // 2].abs().max() == 0 and heard[..., LATENT // 2 :].abs().max() > 0


def test_every_window_is_encoded_by_itself() -> None:
    tools = kit(FRAMES)
    value: Any = DepthVideo(film=film(1)).encode(tools).on.channels[0].value
    assert tuple(value.pieces) == windows(FRAMES, 4)
    encoder: Any = composer().base.composer
    shown = WHITE * greys(film(1), FRAMES)
    for (a, b), piece in value.pieces.items():
        assert torch.allclose(piece, encoder.stc["depth"](shown[:, :, a:b], (LATENT, LATENT))[0], atol=1e-6)


# Against a plain loop -------------------------------------------------------------------------------------------------


def greys(source: Film, count: int = 4, mode: str = "L") -> torch.Tensor:
    """(1 c f h w) in 0-1."""
    frames = [np.atleast_3d(np.asarray(f.convert(mode))) for f in source.frames(count)]
    return torch.from_numpy(np.stack(frames) / 255).permute(3, 0, 1, 2)[None]


def colours(source: Film) -> torch.Tensor:
    return greys(source, mode="RGB")


def held() -> dict[str, tuple[Condition, dict[str, torch.Tensor]]]:
    """Conditions beside what the specification (2.5) says their encoders are shown."""
    one = mix.picture(5, SPATIAL)
    arrows = Motion(drawn=[ARROW])
    hole = torch.from_numpy(mix.half(SPATIAL) > 127).double().expand(1, 1, 4, -1, -1)
    still = torch.from_numpy(one / 255).permute(2, 0, 1)[None, :, None].expand(-1, -1, 4, -1, -1)
    lines = torch.from_numpy(np.asarray(Image.fromarray(one).convert("L")) / 255).expand(1, 1, 4, -1, -1)
    field = torch.from_numpy(sparse_motion(drawn_motion(arrows.drawn, 4, SIDE, SIDE))).double().transpose(0, 1)[None]
    masked = MaskedVideo(film=film(6), mask=mix.half(SPATIAL), paste=False)
    return {
        "depth": (DepthVideo(film=film(1)), {"depth": WHITE * greys(film(1))}),
        "sketch": (SketchVideo(film=film(2), invert=True), {"sketch": 1 - greys(film(2))}),
        "single_sketch": (SingleSketch(image=one), {"single_sketch": lines}),
        "local_image": (SingleImage(image=one), {"local_image": still}),
        "motion": (arrows, {"motion": field}),
        "masked": (masked, {"masked": torch.cat([(2 * colours(film(6)) - 1) * (1 - hole), 1 - hole], 1)}),
        "image": (StyleImage(image=one), {}),
    }


def loop(said: dict[str, torch.Tensor], style: Any, steps: int, seed: int, off: tuple[str, ...]) -> torch.Tensor:
    """Guided DDIM as the specification has it (2.8): text and style are pulled apart, `off` is heard on both sides."""
    found = composer()
    modules: Any = found.base.composer
    compose = Composer(VideoModules(found.parts["unet"], modules.stc, modules.style, None), torch.zeros(1))
    tell = found.base.texts.tokens
    yes, no = ({**said, "y": tell(prompt)[None].double()} for prompt in ("a ball", ""))
    no = {k: v for k, v in no.items() if k == "y" or k in off}
    if style is not None:
        eye = found.base.image_encoder(
            found.base.feature_extractor(Image.fromarray(style), return_tensors="pt").pixel_values.double()
        )
        yes["image"] = eye.image_embeds[:, None]
        no["image"] = torch.zeros_like(yes["image"])
    scheduler = DDIMScheduler.from_config(tiny.SCHEDULE)
    scheduler.set_timesteps(steps)
    x = torch.randn(
        (1, 4, 4, LATENT, LATENT), generator=torch.Generator().manual_seed(seed), dtype=torch.float32
    ).double()
    for t in scheduler.timesteps:
        on, silent = (compose(x, t.expand(1), heard) for heard in (yes, no))
        x = scheduler.step(silent + 4.0 * (on - silent), int(t), x).prev_sample
    return x


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", some([*([n] for n in held()), list(held())], quick=[["depth"], list(held())]), ids=lambda n: "+".join(n)
)
@torch.no_grad()
def test_a_guided_run_equals_the_plain_loop(names: list[str]) -> None:
    """Guidance acts on words and style; every other condition is heard on both sides."""
    chosen = [held()[n] for n in names]
    said = {k: v for _, spatial in chosen for k, v in spatial.items()}
    style = mix.picture(5, SPATIAL) if "image" in names else None
    expected = loop(said, style, 2, 5, tuple(said))
    ours = engine().run(recipe(*(c for c, _ in chosen), seed=5)).latents
    assert float((ours - expected).abs().max()) < 1e-4 * float(expected.abs().max())


@pytest.mark.slow
@torch.no_grad()
def test_a_condition_of_the_prompt_s_side_is_guided_too() -> None:
    said = held()["depth"][1]
    ours = engine().run(recipe(DepthVideo(film=film(1), applies_to="prompt"), seed=5)).latents
    expected, both = loop(said, None, 2, 5, ()), loop(said, None, 2, 5, tuple(said))
    assert float((ours - expected).abs().max()) < 1e-4 and float((expected - both).abs().max()) > 1e-4


# Films that are kept --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_network_without_that_encoder_keeps_what_lies_outside_of_the_hole() -> None:
    hole = Film.of(np.stack([np.roll(mix.half(SIDE), 2 * k, 1) for k in range(FRAMES)])[..., None].repeat(3, -1))
    asked = [
        recipe(MaskedVideo(film=film(6, FRAMES, SIDE), mask=hole, strength=s), model="plain", prompt=p, frames=FRAMES)
        for p, s in (("a ball", 1.0), ("a cube", 1.0), ("a cube", 0.7))
    ]
    made = engine()
    made.store.add("plain", tiny.video(dtype=torch.float64).base)
    one, other, weaker = (made.run(r) for r in asked)
    small = torch.stack([torch.from_numpy(np.roll(mix.half(SIDE), 2 * k, 1)[::2, ::2] > 127) for k in range(FRAMES)])
    small = small.expand(1, 4, -1, -1, -1)
    assert torch.equal(one.latents[~small], other.latents[~small])
    assert float((one.latents - other.latents)[small].abs().min()) > 0
    assert weaker.latents.shape == one.latents.shape and not torch.equal(weaker.latents, other.latents)
    for k, frame in enumerate(one.frames[0]):
        kept = np.roll(mix.half(SIDE), 2 * k, 1) == 0
        assert np.array_equal(np.asarray(frame)[kept], np.asarray(film(6, FRAMES, SIDE).frames(FRAMES)[k])[kept])


@pytest.mark.slow
def test_a_film_to_start_from() -> None:
    start = film(8, 4, SIDE)
    ours = engine().run(recipe(VideoToVideo(film=start, strength=0.7), seed=3, steps=3, guidance=1.0)).latents
    tools = kit()
    generator = torch.Generator().manual_seed(3)
    z = tools.clip_posterior(colours(start)[0]).draw(generator)
    noise = torch.randn((1, 4, 4, LATENT, LATENT), generator=generator, dtype=torch.float32).double()
    scheduler = DDIMScheduler.from_config(tiny.SCHEDULE)
    scheduler.set_timesteps(3)
    x = scheduler.add_noise(z[None], noise, scheduler.timesteps[1:2])
    words = composer().base.texts.tokens("a ball")[None].double()
    with torch.no_grad():
        for t in scheduler.timesteps[1:]:
            eps = composer().parts["unet"](torch.cat([x, torch.zeros(1, 8, *x.shape[2:])], 1), t.expand(1), words)[0]
            x = scheduler.step(eps, int(t), x).prev_sample
    assert float((ours - x).abs().max()) < 1e-4


# Recipes with films ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", some(["a.mp4", "a.gif", "a.webp", "frames"], quick=["a.mp4"]))
def test_a_film_carries_its_recipe_and_the_films_it_was_made_from(name: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    filming.folder(tmp_path / "depths", film(1).frames(4))
    moving = Motion(drawn=[{**ARROW, "region": mix.half(SIDE)}])
    (tmp_path / "recipe.yaml").write_text(
        "conditions: [{kind: depth_video, film: {source: depths, fps: 8}, weight: 0.5}]"
    )
    read = Recipe.load(tmp_path / "recipe.yaml").conditions
    asked, made = recipe(*read, moving), engine()
    assert [f for f, _ in asked.pictures()] == ["conditions.0.film", "conditions.1.drawn.0.region"]
    result = made.run(asked)
    assert set(result.record().inputs) == {f for f, _ in asked.pictures()}
    (path,) = result.save(tmp_path / name)
    again = Recipe.load(path)
    assert again.digest == asked.digest and again.conditions[0].film.source.startswith("data:")  # type: ignore[union-attr]
    assert torch.equal(made.run(again).latents, result.latents)


def test_what_a_film_shows_counts_and_not_where_it_lies(tmp_path: Path) -> None:
    filming.folder(tmp_path / "depths", film(1).frames(4))
    filming.folder(tmp_path / "moved", film(1).frames(4))
    here, there = (recipe(DepthVideo(film=str(tmp_path / n))) for n in ("depths", "moved"))
    backwards = recipe(DepthVideo(film={"source": str(tmp_path / "moved"), "reverse": True}))
    assert here.digest == there.digest != backwards.digest
    assert engine().check(here).frames == 4 and here.with_pictures(lambda p: p.embedded()).digest == here.digest


def test_the_canvas_is_the_film_s() -> None:
    asked = recipe(MaskedVideo(film=film(6, 4, SIDE), mask=mix.half(SIDE)), width=None, height=None, frames=None)
    report = engine().check(asked)
    assert report.size == (SIDE, SIDE) and report.frames == 4 and len(report.windows) == 1
    assert engine().check(recipe(frames=FRAMES)).rows == 2 * 2 * len(windows(FRAMES, 4))
    assert spatial_size((256, 256)) == (384, 384)


@pytest.mark.slow
@pytest.mark.parametrize("patch", [8, 16])
def test_a_film_is_measured_in_the_steps_of_the_annotator_s_file(patch: int) -> None:
    """1.5 times a canvas of 32 x 16 is 48 x 24: patches of 8 take 48 x 32 of it, patches of 16 take 64 x 32."""
    from infuse.encoders.annotators import midas

    eye = midas.DPT(midas.Sizes(grid=3, patch=patch, dim=32, layers=4, heads=16, necks=(8, 8, 8, 8), fusion=8))
    for p in eye.eval().requires_grad_(False).parameters():
        torch.nn.init.normal_(p, mean=0.02, std=0.1)
    made = engine()
    made.store.add("eye", eye.double())
    deep = DepthVideo(film=film(1), annotator="midas", annotator_model="eye")
    asked = recipe(deep, width=32, height=16)
    made.check(asked)
    seen = deep.seen(replace(kit(), store=made.store, size=(32, 16)))
    step = 2 * patch
    assert seen.shape[2:] == (max(round(24 / step), 1) * step, round(48 / step) * step) and seen.isfinite().all()
    assert made.run(asked).latents.isfinite().all()


@pytest.mark.slow
def test_annotators_draw_in_front_of_the_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks: MiDaS from a file by its released name, the sketch's two added by hand."""
    from infuse.encoders.annotators import files, midas, pidinet

    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path))
    torch.manual_seed(0)
    clean = torch.nn.Sequential()
    clean.add_module("layers", torch.nn.Sequential(*[torch.nn.Identity()] * 44, torch.nn.Conv2d(1, 1, 3, padding=1)))
    eye = midas.DPT(midas.Sizes(grid=3, dim=32, layers=4, heads=16, necks=(8, 8, 8, 8), fusion=8))
    nets = {"eye": eye, "edges": pidinet.PiDiNet(8, 4), "clean": clean}
    made = engine()
    for name, net in nets.items():
        for p in net.eval().requires_grad_(False).parameters():
            torch.nn.init.normal_(p, mean=0.02, std=0.1)
        made.store.add(name, net.double())
    torch.save(eye.state_dict(), tmp_path / files.MIDAS)
    deep, noise = DepthVideo(film=film(1), annotator="midas"), Film.of(mix.picture(4, 40))
    lines: Any = {"annotator": "pidinet", "annotator_model": "edges", "cleaner_model": "clean"}
    drawn, one = SketchVideo(film=film(2), **lines), SingleSketch(image=mix.picture(4, 40), **lines)
    report = made.check(recipe(deep, drawn, one))
    assert all(route.memory > 0 and route.shared for _, _, route in report.routes[1:])
    result = made.run(recipe(deep, drawn, one))
    assert files.MIDAS in result.weights and result.latents.isfinite().all()

    def resized(source: Film, side: int) -> torch.Tensor:
        frames = [f.resize((side, side), Image.Resampling.LANCZOS) for f in source.frames(4)]
        return torch.stack([torch.from_numpy(np.asarray(f) / 255) for f in frames]).permute(0, 3, 1, 2)

    tools = replace(kit(), store=made.store)
    near = midas.depth(resized(film(1), 32), eye).transpose(0, 1)
    assert float((deep.seen(tools) - near).abs().max()) < 1e-6 < float(near.std())
    for sketch, frames in ((drawn, film(2)), (one, noise)):
        expected = 1 - clean(1 - nets["edges"](resized(frames, SPATIAL)))
        assert float((sketch.seen(tools) - expected.transpose(0, 1)).abs().max()) < 1e-6

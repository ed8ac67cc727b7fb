"""What an engine means, keeps and refuses: its own model, encodings by content, memory by use, and what cannot fit."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import Any

import pytest
import torch

import mix
import tiny
from infuse import (
    CapacityError,
    ControlNet,
    Img2Img,
    Inpaint,
    IPAdapter,
    PowerPaint,
    Recipe,
    RecipeError,
    Text,
    WeightsError,
)
from infuse.engine.engine import Engine
from infuse.engine.job import Job
from infuse.engine.model_store import ModelStore

CLOSE = 1e-10


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


# ── what is meant ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_recipe_without_a_model_means_the_engine_s_own() -> None:
    engine = mix.engine()
    named, unnamed = (Recipe(prompt="x", steps=2, **m) for m in ({"model": "tiny"}, {}))
    made = engine.run(unnamed)
    assert torch.equal(made.latents, engine.run(named).latents)
    assert made.recipe.model == "tiny" and made.record().recipe["model"] == "tiny"
    assert engine.check(unnamed).asked.model == "tiny" and Recipe().model is None


@pytest.mark.slow
def test_conditions_in_two_ways_at_once_are_refused() -> None:
    engine = mix.engine()
    with pytest.raises(RecipeError, match=r"^conditions: .*one\b.*way"):
        engine("x", Text(prompt="y"), conditions=())
    assert torch.equal(
        engine("x", Text(prompt="y"), steps=2).latents, engine("x", conditions=(Text(prompt="y"),), steps=2).latents
    )


def test_a_store_has_a_dtype_of_its_own() -> None:
    with pytest.raises(RecipeError, match="store"):
        Engine(store=ModelStore(), dtype="float16")


@pytest.mark.parametrize("said", [{"dtype": "float17"}, {"device": "nope"}, {"dtype": "int8"}])
def test_what_is_not_there_is_a_letter_at_load(said: dict[str, str]) -> None:
    import infuse

    (field,) = said
    with pytest.raises(RecipeError) as caught:
        infuse.load(**said)
    assert caught.value.field == field
    assert infuse.load(dtype="fp16", device="cpu").store.dtype == torch.float16


# ── what is kept ────────────────────────────────────────────────────────────────────────────────────────────────────


def counted(thing: Any, name: str) -> list[int]:
    """How often a method is called from now on: the list grows."""
    calls: list[int] = []
    made = getattr(thing, name)

    def call(*args: Any, **named: Any) -> Any:
        calls.append(1)
        return made(*args, **named)

    setattr(thing, name, call)
    return calls


@pytest.mark.slow
def test_what_differs_in_the_voice_only_is_encoded_once() -> None:
    base = tiny.base("sd1", dtype=torch.float64)
    base.base.image_encoder = copy.deepcopy(base.base.image_encoder)
    engine = tiny.engine(base, {"face": tiny.adapter("sd1", "plus", 9), "canny": tiny.controlnet("sd1", 7)})
    eye, vae = counted(base.base.image_encoder, "forward"), counted(base.base.vae, "encode")
    voices: list[dict[str, Any]] = [
        {}, {"weight": 0.5}, {"start": 0.3, "end": 0.9}, {"weight": {0: 1.0, 1: 0.2}, "mask": mix.half()},
        {"applies_to": "prompt"},
    ]  # fmt: skip
    made = []
    for voice in voices:
        whole = {k: v for k, v in voice.items() if k in ("weight", "start", "end")}
        conditions = (
            IPAdapter(model="face", image=mix.picture(1), **voice), Inpaint(image=mix.picture(2), mask=mix.half(), **whole),
        )  # fmt: skip
        made.append(engine.run(Recipe(prompt="x", steps=3, conditions=conditions)).latents)
    assert len(eye) == 2, f"the picture and the silent one, once: {len(eye)}"
    assert len(vae) == 1, f"the picture around the hole, once: {len(vae)}"
    assert all(apart(made[0], m) > 1e-4 for m in made[1:]), "and yet each is heard in its own voice"


@pytest.mark.slow
def test_a_hole_is_no_voice() -> None:
    engine = mix.engine()
    left, right = mix.half()[:, ::-1].copy(), mix.half()
    one, two = (
        engine.run(
            Recipe(prompt="x", steps=2, conditions=(Inpaint(image=mix.picture(2), mask=m, paste=False),))
        ).latents
        for m in (left, right)
    )
    assert apart(one, two) > 1e-3


@pytest.mark.slow
def test_two_bases_of_one_name_are_two() -> None:
    """B was run on A's UNet, and A's prompt cache answered for B."""
    a, b = tiny.base("sd1", dtype=torch.float64), tiny.base("sd1", dtype=torch.float64)
    b.base.network.unet.conv_in.weight.data += 0.3  # type: ignore[union-attr]
    b.base.texts = copy.deepcopy(b.base.texts)
    b.base.texts.models[0].get_input_embeddings().weight.data *= 1.5
    assert a.base.name == b.base.name
    both = ModelStore(dtype=torch.float64, device="cpu")
    both.add("a", a.base)
    both.add("b", b.base)
    shared, recipe = Engine("a", store=both), Recipe(prompt="a cube", steps=3)
    asked = [recipe.model_copy(update={"model": m}) for m in ("a", "b")]
    together = [r.latents for r in shared.run_all(*asked)]
    for made, name, own in zip(together, "ab", (a, b), strict=True):
        alone = ModelStore(dtype=torch.float64, device="cpu")
        alone.add(name, own.base)
        assert apart(made, Engine(name, store=alone).run(recipe).latents) < CLOSE
    assert apart(*together) > 0.1


@pytest.mark.slow
def test_a_module_that_is_replaced_is_replaced() -> None:
    engine = mix.engine()
    recipe = Recipe(prompt="x", steps=2, conditions=(ControlNet(model="canny", image=mix.picture(1)),))
    before = engine.run(recipe).latents
    engine.store.add("canny", tiny.cast(tiny.controlnet("sd1", 99), torch.float64))
    after = engine.run(recipe).latents
    assert apart(before, after) > 1e-4
    fresh = tiny.engine(mix.parts("sd1", torch.float64)[0], {"canny": tiny.controlnet("sd1", 99)})
    assert apart(after, fresh.run(recipe).latents) < CLOSE


@pytest.mark.slow
def test_unloading_gives_the_memory_back() -> None:
    engine = tiny.engine(tiny.base("sd1"), {"canny": tiny.controlnet("sd1", 7)})
    recipe = Recipe(prompt="x", steps=2, conditions=(ControlNet(model="canny", image=mix.picture(1)),))
    engine.run(recipe)
    module, base = (weakref.ref(t) for t in (engine.store.own("canny"), engine.store.base("tiny").network.unet))
    assert module() is not None and base() is not None
    assert engine.unload("canny") > 0
    gc.collect()
    assert module() is None, "its encodings went with it"
    assert engine.unload("tiny") > 0
    gc.collect()
    assert base() is None
    with pytest.raises(WeightsError, match="canny"):
        engine.unload("canny")


@pytest.mark.slow
def test_a_job_under_way_keeps_what_was_unloaded() -> None:
    engine = tiny.engine(tiny.base("sd1"), {"canny": tiny.controlnet("sd1", 7)})
    recipe = Recipe(prompt="x", steps=3, conditions=(ControlNet(model="canny", image=mix.picture(1)),))
    expected = engine.run(recipe).latents
    ticket = engine.submit(recipe)
    engine.step()
    engine.unload("canny"), engine.unload("tiny")
    assert torch.equal(ticket.result().latents, expected)


# ── what can be promised ────────────────────────────────────────────────────────────────────────────────────────────


def steady() -> list[Recipe]:
    return [
        *mix.recipes(),
        Recipe(prompt="many words " * 60, steps=3, guidance=3, seed=11),
        Recipe(prompt="weighed", steps=3, conditions=(Text(prompt="a sphere", weight=0.7, mask=mix.half()),)),
        Recipe(prompt="one-sided", steps=3, conditions=(ControlNet(model="canny", image=mix.picture(4), mode="guess"),)),
        Recipe(prompt="two", steps=3, count=2, conditions=(ControlNet(model="depth", image=mix.picture(4), mask=mix.half()),)),
    ]  # fmt: skip


@pytest.mark.slow  # three plain recipes do so in test_engine_laws, rows of every kind in test_call_laws
def test_at_a_fixed_row_width_bits_do_not_depend_on_neighbours() -> None:
    """Long prompts, regional texts, ControlNets, adapters: whatever is beside them."""
    recipes = steady()
    alone = [mix.engine(dtype=torch.float32, row_width=4).run(r).latents for r in recipes]
    for asked in (recipes, recipes[::-1], recipes[1::2]):
        together = mix.engine(dtype=torch.float32, row_width=4).run_all(*asked)
        for recipe, made in zip(asked, together, strict=True):
            assert torch.equal(made.latents, alone[recipes.index(recipe)])


def test_nothing_is_drawn_before_a_job_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Job] = []
    start = Job.start
    monkeypatch.setattr(Job, "start", lambda self: (started.append(self), start(self))[1])
    engine = mix.engine(max_rows=4)
    ticket = engine.submit(Recipe(prompt="x", steps=2, count=20))
    assert not started and all(j._query is None for j in ticket.jobs)
    engine.step()
    assert len(started) == 2, "two rows each: what the call has room for"
    ticket.cancel()


@pytest.mark.parametrize(("count", "side", "field"), [(1000, 8192, "count"), (1024, 4096, "count")])
def test_what_cannot_fit_is_refused_with_its_peak(count: int, side: int, field: str) -> None:
    import infuse

    with pytest.raises(CapacityError, match=r"GiB at its peak.*Ask for fewer") as caught:
        infuse.load(device="cpu").submit(Recipe(prompt="x", count=count, width=side, height=side))
    assert caught.value.field == field


def test_a_peak_is_told_and_grows_with_what_is_asked() -> None:
    engine = mix.engine()
    peaks = [engine.check(Recipe(prompt="x", **f)).peak for f in ({}, {"count": 4}, {"width": 64, "height": 64})]
    assert engine.check(Recipe(prompt="x")).memory < peaks[0] < peaks[1] and peaks[0] < peaks[2]


@pytest.mark.slow
def test_starts_fills_and_images_of_one_recipe_share_no_state_with_the_next() -> None:
    """The same recipe twice, through the cache, is the same picture."""
    engine = mix.engine()
    recipe = Recipe(prompt="x", steps=3, scheduler="Euler a", conditions=(Img2Img(image=mix.picture(7), strength=0.7),))
    assert torch.equal(engine.run(recipe).latents, engine.run(recipe).latents)
    paint = PowerPaint(model="ppt", image=mix.picture(1), mask=mix.half())
    brushed = tiny.engine(tiny.base("sd1", dtype=torch.float64), {"ppt": tiny.brushnet(generation="v2", seed=33)})
    again = Recipe(prompt="x", steps=3, conditions=(paint, paint.model_copy(update={"task": "removal"})))
    assert torch.equal(brushed.run(again).latents, brushed.run(again).latents)

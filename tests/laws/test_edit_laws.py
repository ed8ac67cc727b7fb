"""LoRAs by row: each equals the base that has it in its weights, whoever else is in the call, wherever and whenever it is heard."""

from __future__ import annotations

from functools import cache
from typing import Any

import loras
import numpy as np
import pytest
import torch

import mix
import tiny
from infuse import Lora, Recipe, Text

SIDE = 16


@cache
def base(family: str = "sd1") -> tiny.Tiny:
    return tiny.base(family, dtype=torch.float64)


@cache
def some(family: str = "sd1") -> dict[str, Any]:
    """Eight LoRAs of several ranks; some have biases, one has convolutions alone."""
    own = base(family).base
    return {f"l{i}": loras.lora(own, i, 1 + i % 3, bias=i % 2 == 1) for i in range(8)} | {
        "conv": loras.lora(own, 20, 2, "conv"), "unet": loras.lora(own, 21, 2, texts=False), "words": loras.lora(own, 22, 2, "attn2.to_"),
    }  # fmt: skip


@cache
def engine(family: str = "sd1") -> Any:
    return tiny.engine(base(family), some(family))


def recipe(*conditions: Any, **fields: Any) -> Recipe:
    said = {
        "prompt": "a red cube",
        "width": SIDE,
        "height": SIDE,
        "steps": 3,
        "guidance": 3.0,
        "conditions": conditions,
    }
    return Recipe(**{**said, **fields})


def same(a: torch.Tensor, b: torch.Tensor, within: float = 1e-10) -> None:
    assert a.isfinite().all()
    assert (a - b).abs().max() <= within * b.abs().max()


@pytest.mark.parametrize(
    "family", [pytest.param("sd1", marks=pytest.mark.slow), "sd2", pytest.param("sdxl", marks=pytest.mark.slow)]
)
def test_a_lora_is_the_base_with_it_in_its_weights(family: str) -> None:
    said = (Lora(model="l1", weight=0.7), Lora(model="l2", weight=-0.4))
    there = tiny.engine(loras.with_merged(base(family), [(some(family)["l1"], 0.7), (some(family)["l2"], -0.4)]))
    ours = engine(family).run(recipe(*said)).latents
    same(ours, there.run(recipe()).latents)
    plain = engine(family).run(recipe()).latents
    assert (ours - plain).abs().max() > 1e-3 * plain.abs().max()


@pytest.mark.slow
def test_the_text_encoders_have_a_strength_of_their_own() -> None:
    said = recipe(Lora(model="l1", weight=0.7, text_weight=0))
    there = tiny.engine(loras.with_merged(base(), [(some()["l1"], 0.7)], texts=False))
    same(engine().run(said).latents, there.run(recipe()).latents)


@pytest.mark.slow
def test_eight_loras_share_one_call() -> None:
    many = [recipe(Lora(model=f"l{i}", weight=0.3 + 0.1 * i), seed=i) for i in range(8)]
    many += [recipe(seed=9), recipe(Lora(model="l1"), Lora(model="conv", weight=0.5), seed=10)]
    alone = [engine().run(r).latents for r in many]
    e = engine()
    before = e.store.base("tiny").network.calls
    together = e.run_all(*many)
    assert e.store.base("tiny").network.calls - before == 3
    for one, mine in zip(together, alone, strict=True):
        same(one.latents, mine)


def test_merged_is_the_same_to_rounding() -> None:
    said = {"model": "l1", "weight": 0.7}
    same(engine().run(recipe(Lora(**said, merge=True))).latents, engine().run(recipe(Lora(**said))).latents)


def test_a_region_is_where_it_is_heard() -> None:
    """Two halves make a whole, and a region of everything is none."""
    left = 255 - mix.half(SIDE)
    two = recipe(Lora(model="words", mask=mix.half(SIDE)), Lora(model="words", mask=left))
    same(engine().run(two).latents, engine().run(recipe(Lora(model="words"))).latents, 1e-9)
    everywhere = recipe(Lora(model="unet", mask=np.full((SIDE, SIDE), 255, np.uint8)))
    same(engine().run(everywhere).latents, engine().run(recipe(Lora(model="unet"))).latents)


@pytest.mark.slow
def test_outside_of_its_window_nothing_is_heard() -> None:
    """Words are read without it there, too, and its layers are not asked."""
    n = 4
    late = engine().run(recipe(Lora(model="l1", start=0.5), steps=n))
    assert [sorted(s["heard"]) for s in late.resolved["timetable"]] == [["prompt"], ["conditions.0", "prompt"]]
    silent = engine().run(recipe(Lora(model="l1", weight=0), steps=n)).latents
    assert torch.equal(silent, engine().run(recipe(steps=n)).latents)
    there = tiny.engine(loras.with_merged(base(), [(some()["l1"], 1.0)]), dict(some()))
    same(late.latents, there.run(recipe(Lora(model="l1", weight=-1, end=0.5), steps=n)).latents, 1e-9)


@pytest.mark.slow
def test_blocks_weigh_it_block_by_block() -> None:
    out = engine().run(recipe(Lora(model="unet", blocks="NONE"))).latents
    none_but_time = engine().run(recipe()).latents
    assert (out - none_but_time).abs().max() > 0  # time embedding and conv_out lie in no block
    same(
        engine().run(recipe(Lora(model="words", blocks=[1.0] * 26))).latents,
        engine().run(recipe(Lora(model="words"))).latents,
    )
    same(
        engine().run(recipe(Lora(model="words", blocks=[0.0] * 26, text_weight=0))).latents,
        engine().run(recipe()).latents,
    )


@pytest.mark.slow
def test_other_words_hear_it_too() -> None:
    said = (Text(prompt="wood"), Lora(model="l2"))
    there = tiny.engine(loras.with_merged(base(), [(some()["l2"], 1.0)]))
    same(engine().run(recipe(*said)).latents, there.run(recipe(said[0])).latents)

"""The laws hold for every kind of ControlNet: a union that merges its hints, a branch in lockstep, a Control-LoRA made for its base."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import beside_nets
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import mix
import tiny
from infuse import ControlNet, Img2Img, Inpaint, Recipe
from infuse.engine.engine import Engine

CLOSE = 1e-10
SIDE = 16
DOUBLE = torch.float64


@cache
def base() -> tiny.Tiny:
    return beside_nets.base("sdxl", dtype=DOUBLE)


@cache
def modules() -> dict[str, nn.Module]:
    found: dict[str, Any] = {
        "union": beside_nets.union(like=beside_nets.unet("sdxl")),
        "xs": beside_nets.xs("sdxl"),
        "xs2": beside_nets.xs("sdxl", seed=70, learned=False),
        "plain": beside_nets.control(beside_nets.unet("sdxl"), 71),
    }
    return {k: tiny.cast(m, DOUBLE) for k, m in found.items()}


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("beside") / "lora.safetensors"
    state = beside_nets.lora_state(beside_nets.control(beside_nets.unet("sdxl"), 71), beside_nets.unet("sdxl"))
    save_file({k: t.contiguous() for k, t in state.items()}, path)
    return str(path)


def engine() -> Engine:
    base().base.network.calls = base().base.network.branch_calls = 0
    return tiny.engine(base(), modules(), own=False)


def hint(model: str, seed: int = 1, **fields: Any) -> ControlNet:
    return ControlNet(**{"model": model, "image": mix.picture(seed, SIDE), **fields})


def recipe(*conditions: Any, **fields: Any) -> Recipe:
    common = {
        "model": "tiny",
        "prompt": "a red cube",
        "width": SIDE,
        "height": SIDE,
        "steps": 3,
        "scheduler": "DDIM",
        "guidance": 4.0,
    }
    return Recipe(conditions=conditions, **{**common, **fields})


def kinds(lora: str) -> list[list[Any]]:
    """Conditions of recipes that differ in kind, number, windows, regions and start."""
    depth, pose = hint("union", 2, type="depth", weight=0.8), hint("union", 3, type=0, weight=1.3, mask=mix.half(SIDE))
    return [
        [depth],
        [depth, pose, hint("union", 4, type="tile", end=0.4)],
        [hint("xs", 5, weight=0.9), hint("xs2", 6, weight={0: 1, 1: 0.2}, mask=mix.half(SIDE)), hint("plain", 7, mode="control")],
        [hint(lora, 8, mode="prompt"), hint("xs", 9, applies_to="prompt"), Img2Img(image=mix.picture(10, SIDE), strength=0.7)],
        [pose, hint("union", 11, type="auto"), hint("plain", 12, pool=True), Inpaint(image=mix.picture(13, SIDE), mask=mix.half(SIDE))],
        [hint(lora, 14, weight=0.4, start=0.3), hint("xs", 15), hint("union", 16, type="canny")],
    ]  # fmt: skip


def furthest(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
    return max(float((x - y).abs().max()) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("which", [(1, 2), range(6)], ids=["two", "all"])
def test_alone_equals_together_and_order_does_not_matter(which: Sequence[int], lora: str) -> None:
    asked, steps = [kinds(lora)[i] for i in which], 3 if len(which) > 2 else 1
    recipes = [recipe(*cs, seed=i, steps=steps) for i, cs in enumerate(asked)]
    alone = [engine().run(r).latents for r in recipes]
    together = [r.latents for r in engine().run_all(*recipes)]
    assert furthest(alone, together) < CLOSE
    turned = [engine().run(recipe(*cs[::-1], seed=i, steps=steps)).latents for i, cs in enumerate(asked)]
    assert furthest(alone, turned) < CLOSE
    plain = [engine().run(recipe(seed=i, steps=steps)).latents for i in range(len(asked))]
    assert all(furthest([z], [p]) > 1e-3 for z, p in zip(alone, plain, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xs", "union", "lora"])
def test_weight_0_is_absence_bit_for_bit(name: str, lora: str) -> None:
    model, more = (lora, {}) if name == "lora" else (name, {"type": "depth"} if name == "union" else {})
    beside = [hint("union", 2, type="pose"), hint("plain", 3)]
    without = engine().run(recipe(*beside)).latents
    for silent in ({"weight": 0.0}, {"start": 0.99}):
        assert torch.equal(engine().run(recipe(*beside, hint(model, 9, **more, **silent))).latents, without)


@pytest.mark.slow
def test_a_union_s_hints_are_one_evaluation() -> None:
    both = engine()
    both.run(recipe(hint("union", 2, type="depth"), hint("union", 3, type="pose")))
    calls = base().base.network.branch_calls
    one = engine()
    one.run(recipe(hint("union", 2, type="depth")))
    assert calls == base().base.network.branch_calls
    two = engine()
    two.run(recipe(hint("union", 2, type="depth"), hint("plain", 3)))
    assert base().base.network.branch_calls == 2 * calls


@pytest.mark.slow
def test_two_in_lockstep_are_shown_the_same_features_and_add() -> None:
    """Neither walks ahead: with one of them at a weight near 0, what the other says is its own alone."""
    alone = engine().run(recipe(hint("xs", 5))).latents
    faint = engine().run(recipe(hint("xs", 5), hint("xs2", 6, weight=1e-9))).latents
    torch.testing.assert_close(faint, alone, atol=1e-6, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["xs", "union"])
def test_a_region_of_white_is_no_region(model: str) -> None:
    import numpy as np

    more, white = {"type": "depth"} if model == "union" else {}, np.full((SIDE, SIDE), 255, np.uint8)
    whole = engine().run(recipe(hint(model, 5, **more))).latents
    found = engine().run(recipe(hint(model, 5, mask=white, **more))).latents
    assert furthest([found], [whole]) < CLOSE
    half = engine().run(recipe(hint(model, 5, mask=mix.half(SIDE), **more))).latents
    assert furthest([half], [whole]) > 1e-3


@pytest.mark.slow
def test_other_sizes(lora: str) -> None:
    """Odd places of the latent at every level."""
    conditions = [hint("xs", 1), hint("union", 2, type=1), hint(lora, 3)]
    for width, height in ((18, 22), (16, 30)):
        result = engine().run(recipe(*conditions, width=width, height=height, steps=2))
        assert torch.isfinite(result.latents).all()


@pytest.mark.slow
def test_a_control_lora_follows_its_base(lora: str) -> None:
    """Another base, another branch: its key has the base in it."""
    import copy
    from dataclasses import replace

    one = engine()
    store = one.store
    first = store.beside("controlnet", lora, store.base("tiny"), DOUBLE, torch.device("cpu"))
    network = copy.deepcopy(base().base.network)
    with torch.no_grad():
        network.unet.conv_in.weight += 1
    store.add("other", replace(base().base, network=network))
    second = store.beside("controlnet", lora, store.base("other"), DOUBLE, torch.device("cpu"))
    assert first is not second and not torch.equal(first.conv_in.weight, second.conv_in.weight)  # type: ignore[union-attr, arg-type]
    assert store.beside("controlnet", lora, store.base("tiny"), DOUBLE, torch.device("cpu")) is first


@pytest.mark.slow
def test_at_a_fixed_row_width_float32_is_bit_identical(lora: str) -> None:
    """Rows that merge as many hints share calls; others do not, so that nobody is padded for a neighbour's sake."""
    recipes = [recipe(*cs, seed=i, scheduler=s) for i, (cs, s) in enumerate(zip(kinds(lora), ("DDIM", "Euler a", "UniPC") * 2, strict=True))]  # fmt: skip
    own = tiny.engine(beside_nets.base("sdxl"), modules(), row_width=4)
    alone = [own.run(r).latents for r in recipes]
    together = [r.latents for r in own.run_all(*recipes)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


@pytest.mark.slow
def test_a_union_is_counted_and_packed_as_it_is_asked() -> None:
    """Hints of other sites are asked apart: they are another row of the branch, and of another structure."""
    from infuse.network.call import structure

    sites = (0.5,) * base().base.spec.sites
    depth, canny, soft = (ControlNet(model="union", image=mix.picture(s), type=t, sites=f) for s, t, f in ((1, "depth", None), (2, "canny", None), (2, "canny", sites)))  # fmt: skip
    asked, counted = (recipe(depth, canny), recipe(depth, soft)), []
    made = engine()
    network = made.store.base("tiny").network
    for r in asked:
        network.branch_calls = 0
        made.run(r)
        counted.append(network.branch_calls)
    reports = [made.check(r) for r in asked]
    assert [f.branch_rows // len(f.timetable) for f in reports] == [2, 4], "each on both sides of guidance"
    assert [n // len(f.timetable) for n, f in zip(counted, reports, strict=True)] == [1, 2]
    tickets = [made.submit(r) for r in asked]
    rows = [t.jobs[0].rows()[0] for t in tickets]
    assert structure(rows[0]) != structure(rows[1])
    for ticket in tickets:
        ticket.cancel()


@pytest.mark.slow
def test_at_a_fixed_row_width_unions_of_other_sites_share_no_call() -> None:
    """One would be padded for the other's sake, and its last bit would tell."""
    sites = (0.5,) * base().base.spec.sites
    found = {"union": tiny.cast(beside_nets.union(like=beside_nets.unet("sdxl")), torch.float32)}
    own = tiny.engine(beside_nets.base("sdxl"), found, row_width=4)
    one, two = (ControlNet(model="union", image=mix.picture(s), type=t) for s, t in ((1, "depth"), (2, "canny")))
    recipes = [recipe(one, two), recipe(one.model_copy(update={"sites": sites}), two)]
    alone = [own.run(r).latents for r in recipes]
    together = [r.latents for r in own.run_all(*recipes)]
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))

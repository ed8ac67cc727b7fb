"""infuse equals the stock diffusers pipelines wherever those can do the job: same seed, same latents, in float32.

One in sixteen cases runs in one of its families in turn, and with one of the schedulers; the rest of that product is slow.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import tiny
from infuse.engine.engine import Engine
from infuse.recipe import Recipe

from . import stock
from .cases import CASES, THREE, Case

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

TOLERANCE = 1e-4
"""Of the largest latent. float32 in another order of operations stays below 1e-5 here; a wrong rule shows at 1e-2."""
EVERY, FIRST = 16, 1
"""One of so many cases runs in the quick suite, and so many of a long list of schedulers."""
ALSO = ("size", "inpaint 9, strength 0.6")
"""And these, so that each kind of condition, alone and beside the others, is among them."""


@cache
def base(family: str, channels: int) -> tiny.Tiny:
    return tiny.base(family, channels)


@cache
def modules(family: str) -> dict[str, nn.Module]:
    out = {f"control{i}": tiny.controlnet(family, 7 + i) for i in range(3)}
    out["control2"].register_to_config(global_pool_conditions=True)
    return out | {kind: tiny.adapter(family, kind, 17) for kind in ("plain", "plus")}


@cache
def engine(family: str, channels: int) -> Engine:
    return tiny.engine(base(family, channels), modules(family))


def recipe(case: Case, scheduler: str) -> Recipe:
    plain = {"prompt": "a red cube on a table", "width": 32, "height": 32, "steps": 5, "guidance": 6.0, "seed": 11}
    return Recipe(model="tiny", scheduler=scheduler, conditions=case.conditions(), **{**plain, **case.fields})


def difference(ours: Tensor, theirs: Tensor) -> float:
    """max|a - b| / max|b|."""
    assert ours.shape == theirs.shape and torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max())


def compared(case: Case, family: str, scheduler: str, theirs_with: dict[str, nn.Module] | None = None) -> float:
    """infuse against the stock pipeline, whose parts may be swapped for others."""
    asked, own = recipe(case, scheduler), base(family, case.channels)
    swapped = theirs_with or {}
    stocked = replace(own, parts={**own.parts, **{k: m for k, m in swapped.items() if k in own.parts}})
    theirs = stock.latents(stocked, asked, {**modules(family), **swapped})
    return difference(engine(family, case.channels).run(asked).latents, theirs)


def runs() -> Iterator[Any]:
    for number, case in enumerate(CASES):
        turn = number // EVERY
        asked = number % EVERY == 0 or case.name in ALSO
        for j, family in enumerate(case.families):
            for i, scheduler in enumerate(case.schedulers):
                its = i == turn % len(THREE) if case.schedulers == THREE else i < FIRST
                quick = asked and its and j == (turn + turn // len(THREE)) % len(case.families)
                yield pytest.param(
                    case,
                    family,
                    scheduler,
                    id=f"{case.name}-{family}-{scheduler}",
                    marks=() if quick else pytest.mark.slow,
                )


@pytest.mark.parametrize(("case", "family", "scheduler"), list(runs()))
def test_same_latents_as_the_stock_pipeline(case: Case, family: str, scheduler: str) -> None:
    found = compared(case, family, scheduler)
    print(f"{found:.1e}")  # pytest -rP shows it
    assert found < TOLERANCE


EVERYTHING = next(c for c in CASES if c.name == "two ip-adapters + two controlnets + inpaint 4")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "tensor"),
    [
        ("unet", "conv_in.weight"),
        ("control1", "controlnet_mid_block.weight"),
        ("plain", "kv.1.1.weight"),
        ("plus", "project.proj_out.weight"),
    ],
)
def test_one_tensor_off_by_one_percent_is_noticed(part: str, tensor: str) -> None:
    one = copy.deepcopy({**modules("sd1"), **base("sd1", 4).parts}[part])
    assert compared(EVERYTHING, "sd1", "DDIM", {part: one}) < TOLERANCE
    one.get_parameter(tensor).mul_(1.01)
    assert compared(EVERYTHING, "sd1", "DDIM", {part: one}) > TOLERANCE

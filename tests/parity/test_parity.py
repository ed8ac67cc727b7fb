"""infuse equals the stock diffusers pipelines wherever those can do the job: same seed, same latents, in float32.

Every case runs with one of its schedulers; with all of them under `-m slow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from infuse.engine.engine import Engine
from infuse.recipe import Recipe
from tests import tiny

from . import stock
from .cases import CASES, THREE, Case

TOLERANCE = 1e-4
"""Of the largest latent. float32 in another order of operations stays below 1e-5 here; a wrong rule shows at 1e-2."""


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


def compared(case: Case, family: str, scheduler: str) -> float:
    asked = recipe(case, scheduler)
    theirs = stock.latents(base(family, case.channels), asked, modules(family))
    return difference(engine(family, case.channels).run(asked).latents, theirs)


def runs() -> Iterator[Any]:
    """Every case in every family; the schedulers take turns, and the other ones are slow."""
    turn = count()
    for case in CASES:
        for family in case.families:
            first = next(turn) % 3
            for i, scheduler in enumerate(case.schedulers):
                slow = case.schedulers == THREE and i != first
                yield pytest.param(case, family, scheduler, id=f"{case.name}-{family}-{scheduler}", marks=[pytest.mark.slow] if slow else [])


@pytest.mark.parametrize(("case", "family", "scheduler"), list(runs()))
def test_same_latents_as_the_stock_pipeline(case: Case, family: str, scheduler: str, record_property: Any) -> None:
    found = compared(case, family, scheduler)
    record_property("difference", found)
    assert found < TOLERANCE

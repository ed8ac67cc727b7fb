"""Any two conditions together: one call, in any order, each silent as if it were absent, beside others as alone.

What cannot be together is a letter of `check`; docs/combinations.md is the table of it, and this file keeps it true.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from infuse.engine.engine import Engine
from infuse.errors import InfuseError
from infuse.recipe import Recipe

from .kinds import SIDE, WORLDS, World, world

PAGE = Path(__file__).parents[2] / "docs" / "combinations.md"
ASKED: dict[str, Any] = {"model": "tiny", "prompt": "a red cube", "width": SIDE, "height": SIDE, "steps": 2, "seed": 3, "scheduler": "DDIM"}  # fmt: skip


@cache
def engine(name: str) -> Engine:
    return world(name).engine()


def recipe(there: World, *conditions: Any, **more: Any) -> Recipe:
    return Recipe(**{**ASKED, **(there.recipe or {}), "conditions": conditions, **more})


def made(name: str, *conditions: Any, **more: Any) -> Tensor:
    return engine(name).run(recipe(world(name), *conditions, **more)).latents


@cache
def alone(name: str, kind: str) -> Tensor:
    return made(name, world(name).kinds[kind]())


def pairs(name: str) -> list[tuple[str, str]]:
    there = world(name)
    both = combinations(there.kinds, 2)
    return [p for p in both if not there.own or set(p) & set(there.own)]


def refused(name: str, pair: tuple[str, str]) -> str:
    """Why these two are no recipe; "" if they are one."""
    there = world(name)
    try:
        engine(name).check(recipe(there, *(there.kinds[k]() for k in pair)))
    except InfuseError as error:
        return error.message
    return ""


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def walk(name: str, pair: tuple[str, str]) -> None:
    """All laws of one pair."""
    if refused(name, pair):
        return
    first, second = (world(name).kinds[k] for k in pair)
    together = made(name, first(), second())
    same(made(name, second(), first()), together)
    for voiced, silent, other in ((first, second, pair[0]), (second, first, pair[1])):
        try:
            quiet = silent(weight=0)
            engine(name).check(recipe(world(name), voiced(), quiet))
        except InfuseError:
            continue  # it has no weight
        assert torch.equal(made(name, voiced(), quiet), alone(name, other)), f"{other} beside one of weight 0"
    e = engine(name)
    mixed = [
        recipe(world(name), first(), second()),
        recipe(world(name), first(), steps=3),
        recipe(world(name), second(), seed=8),
    ]
    tickets = [e.submit(r) for r in mixed]
    same(e.wait(tickets[0]).latents if hasattr(e, "wait") else tickets[0].result().latents, together)
    for t in tickets[1:]:
        t.result()


CASES = [(name, pair) for name in WORLDS for pair in pairs(name)]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pair"), CASES, ids=lambda v: v if isinstance(v, str) else " + ".join(v))
def test_any_two(name: str, pair: tuple[str, str]) -> None:
    walk(name, pair)

"""Any two conditions together: one call, in any order, each silent as if it were absent, beside others as alone.

What cannot be together is a letter of `check`; docs/combinations.md is the table of it, and this file keeps it true.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
import torch
from kinds import SIDE, WORLDS, World, world
from torch import Tensor

from infuse.engine.engine import Engine
from infuse.errors import InfuseError
from infuse.recipe import Recipe

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
    both = combinations_with_replacement(there.kinds, 2)
    return [p for p in both if not there.own or set(p) & set(there.own)]


def refused(name: str, pair: tuple[str, str]) -> str:
    """Why these two are no recipe; "" if they are one."""
    there = world(name)
    try:
        engine(name).check(recipe(there, *(there.kinds[k]() for k in pair)))
    except InfuseError as error:
        return error.message
    return ""


def possible(name: str, asked: Recipe) -> bool:
    """An upscaler, say, makes nothing without its picture."""
    try:
        engine(name).check(asked)
    except InfuseError:
        return False
    return True


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def walk(name: str, pair: tuple[str, str]) -> None:
    """All laws of one pair."""
    if refused(name, pair):
        return
    first, second = (world(name).kinds[k] for k in pair)
    together = made(name, first(), second())
    for voiced, silent, other in ((first, second, pair[0]), (second, first, pair[1])):
        try:
            quiet = silent(weight=0)
        except InfuseError:
            continue
        if not possible(name, recipe(world(name), voiced(), quiet)):
            continue  # it has no weight
        assert torch.equal(made(name, voiced(), quiet), alone(name, other)), f"{other} beside one of weight 0"
    there = world(name)
    others = [recipe(there, first(), steps=3), recipe(there, second(), seed=8)]
    both = recipe(there, first(), second()), recipe(there, second(), first())
    beside, turned, *_ = engine(name).run_all(*both, *(r for r in others if possible(name, r)))
    same(beside.latents, together)
    same(turned.latents, together)


CASES = [(name, pair) for name in WORLDS for pair in pairs(name)]
NAMES = {
    "sd1": "SD 1.x", "sdxl": "SDXL", "depth2img": "depth2img (5 channels)", "pix2pix": "InstructPix2Pix (8 channels)",
    "inpainting": "inpainting (9 channels)", "sdxl inpainting": "SDXL inpainting (9 channels)", "powerpaint": "PowerPaint 1",
    "upscaler": "x4 upscaler (7 channels)", "unclip": "unCLIP", "videocomposer": "VideoComposer (clips)",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pair"), CASES, ids=lambda v: v if isinstance(v, str) else " + ".join(v))
def test_any_two(name: str, pair: tuple[str, str]) -> None:
    walk(name, pair)


@pytest.mark.parametrize(
    "case",
    [
        ("sd1", ("controlnet-xs", "reference")),
        pytest.param(("sdxl", ("controlnet-union (depth)", "controlnet-union (canny)")), marks=pytest.mark.slow),
    ],
)
def test_some_two(case: tuple[str, tuple[str, str]]) -> None:
    walk(*case)


def test_a_base_hears_two_dozen_kinds() -> None:
    assert all(len(world(name).kinds) >= 24 for name in ("sd1", "sdxl"))


def page() -> str:
    """The page of combinations, as the checks say it."""
    out = [
        "# Combinations",
        "",
        "Any two conditions that one base can hear are heard together, in any order, in one call; so are three and more. This page is",
        "written by a test (`tests/laws/test_pairs.py`), which runs every pair on tiny networks: the order changes nothing, a condition",
        "of weight 0 is as if it were absent, to the last bit, and what comes out does not depend on who else is asked at the same time.",
        "",
        "| base | kinds | pairs, a kind beside itself too | refused |",
        "|---|---|---|---|",
    ]
    reasons: dict[tuple[str, str], dict[str, str]] = {}
    for name in WORLDS:
        said = {pair: why for pair in pairs(name) if (why := refused(name, pair))}
        out.append(f"| {NAMES[name]} | {len(world(name).kinds)} | {len(pairs(name))} | {len(said)} |")
        for pair, why in said.items():
            reasons.setdefault(pair, {})[name] = why
    out += [
        "",
        "Bases after the first two are walked with the conditions that they alone hear, beside each of the others.",
        "",
    ]
    out += [
        "## What cannot be together",
        "",
        "`infuse check` says why, before anything is loaded:",
        "",
        "| pair | on | reason |",
        "|---|---|---|",
    ]
    for (a, b), on in reasons.items():
        for why in dict.fromkeys(on.values()):
            where = ", ".join(NAMES[n] for n, w in on.items() if w == why)
            out.append(f"| {a} + {b} | {where} | {why.replace('|', '/')} |")
    out += ["", "## What a base does not hear", "", "| kind | on | reason |", "|---|---|---|"]
    for name, kind in STRANGE:
        make = next(world(w).kinds[kind] for w in WORLDS if kind in world(w).kinds)
        try:
            engine(name).check(recipe(world(name), make()))
        except InfuseError as error:
            out.append(f"| {kind} | {NAMES[name]} | {error.message} |")
    out += ["", "## Kinds", ""]
    for name in WORLDS:
        mine = world(name).own or tuple(world(name).kinds)
        out.append(f"* **{NAMES[name]}**: {', '.join(mine)}{', and what its family hears' if world(name).own else ''}.")
    return "\n".join(out) + "\n"


STRANGE = (
    *((name, kind) for kind in ("depth", "edit", "upscale", "unclip", "powerpaint") for name in ("sd1",)),
    ("sdxl", "gligen"), ("sdxl", "depth"), ("videocomposer", "img2img"), ("videocomposer", "inpaint"), ("videocomposer", "reference"), ("sd1", "depth_video"), ("sd1", "motion"), ("sd1", "style_image"), ("sd1", "masked_video"),
)  # fmt: skip
"""(base, kind that it cannot hear)."""


@pytest.mark.slow
def test_the_page_of_combinations_is_true() -> None:
    """Written anew where it is not: look at what changed, and keep it."""
    before, now = PAGE.read_text("utf-8") if PAGE.is_file() else "", page()
    if before != now:
        PAGE.write_text(now, "utf-8")
    assert before == now, f"{PAGE.name} said something else, and was written anew"

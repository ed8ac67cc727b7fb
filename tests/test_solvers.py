"""Samplers: what a check knows of them without importing them is what they are; none of them ends in a raw error."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import tiny
from infuse import solvers
from infuse.errors import RecipeError
from infuse.solvers import CLASSES, NAMES, SCHEDULES, SIGMAS, SPACING, ZERO, evaluations, least, parse, plan

SPOKEN = [name for name, (cls, _) in NAMES.items() if cls != solvers.SDE or find_spec("torchsde")]


def spoken_with_schedules() -> list[str]:
    """Every name alone and with every schedule that it takes."""
    return [
        name if schedule is None else f"{name} {schedule}"
        for name in SPOKEN
        for schedule in (None, *SCHEDULES)
        if schedule is None or {a for a, on in SCHEDULES[schedule].items() if on} <= CLASSES[NAMES[name][0]].accepts
    ]


def constructor(cls: str) -> set[str]:
    """Arguments of a diffusers class, read from its source: one whose package is not installed is a dummy."""
    spec = find_spec("diffusers")
    assert spec and spec.submodule_search_locations
    for path in Path(spec.submodule_search_locations[0], "schedulers").glob("scheduling_*.py"):
        for node in ast.parse(path.read_text("utf-8")).body if f"class {cls}(" in path.read_text("utf-8") else ():
            if isinstance(node, ast.ClassDef) and node.name == cls:
                inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
                return {a.arg for a in inits[0].args.args}
    raise AssertionError(cls)


@pytest.mark.parametrize("cls", CLASSES)
def test_facts_are_those_of_the_installed_diffusers(cls: str) -> None:
    assert CLASSES[cls].accepts == constructor(cls) & {SPACING, ZERO, *SIGMAS}
    assert CLASSES[cls].distilled == ("original_inference_steps" in constructor(cls))


@pytest.mark.parametrize(
    "name", [n if n in NAMES else pytest.param(n, marks=pytest.mark.slow) for n in spoken_with_schedules()]
)
def test_evaluations_are_the_timesteps_of_the_plan(name: str) -> None:
    choice = parse(name, "")
    for steps in (1, 2, 3, 5, 20, 50):
        for strength in (None, 0.1, 0.5, 1.0):
            try:
                count = evaluations(choice, tiny.SCHEDULE, steps, strength)
            except RecipeError as refused:
                with pytest.raises(RecipeError) as again:
                    plan(choice, tiny.SCHEDULE, steps, strength)
                assert str(again.value) == str(refused) and refused.field == "strength"
                continue
            assert count == len(plan(choice, tiny.SCHEDULE, steps, strength).timesteps), (steps, strength)


def test_a_class_without_facts_is_built() -> None:
    for choice in (solvers.Choice("IPNDMScheduler", {}), solvers.Choice("PNDMScheduler", {"skip_prk_steps": False})):
        found = evaluations(choice, tiny.SCHEDULE, 10, None)
        assert found == len(plan(choice, tiny.SCHEDULE, 10, None).timesteps) >= 10


def test_a_check_imports_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from infuse.solvers import evaluations, parse\n"
        f"for name in {spoken_with_schedules()!r}: evaluations(parse(name, ''), {tiny.SCHEDULE!r}, 20, 0.5)\n"
        "print([m for m in ('torch', 'diffusers', 'scipy', 'numpy') if m in sys.modules and m != 'numpy'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    if (
        "torch"
        in subprocess.run(
            [sys.executable, "-c", "import sys, infuse; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    ):  # the package itself still brings it
        pytest.skip("importing infuse brings torch")
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 50, 999, 1000])
def test_the_smallest_strength_works_as_it_is_printed(steps: int) -> None:
    printed = f"{least(steps):g}"
    assert evaluations(parse("DDIM", ""), tiny.SCHEDULE, steps, float(printed)) == 1
    assert float(printed) < 1.2 / steps or steps < 10
    if steps > 1:
        with pytest.raises(RecipeError, match=f"at least {printed}, or") as letter:
            evaluations(parse("DDIM", ""), tiny.SCHEDULE, steps, 0.9 / steps)
        assert letter.value.field == "strength"


def test_the_smallest_strength_works_for_all_numbers_of_steps() -> None:
    assert all(int(steps * float(f"{least(steps):g}")) == 1 for steps in range(1, 1001))


@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_more_steps_than_were_distilled_are_a_letter(name: str) -> None:
    said: list[Any] = []
    for ask in (evaluations, plan):
        with pytest.raises(RecipeError, match="Use at most 50") as letter:
            ask(parse(name, ""), tiny.SCHEDULE, 51, None)
        said.append((letter.value.field, str(letter.value)))
    assert said[0] == said[1] and said[0][0] == "steps"
    assert evaluations(parse(name, ""), tiny.SCHEDULE | {"original_inference_steps": 100}, 51, None) == 51


def test_more_steps_than_noise_levels_are_a_letter() -> None:
    for name in SPOKEN:
        with pytest.raises(RecipeError, match="Use at most 40") as letter:
            evaluations(parse(name, ""), tiny.SCHEDULE | {"num_train_timesteps": 40}, 41, None)
        assert letter.value.field == "steps"


@pytest.mark.parametrize("name", ["DPM++ SDE", "DPM++ SDE Karras", "dpmpp_sde"])
def test_a_missing_package_is_named_with_its_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solvers, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match="pip install torchsde") as letter:
        parse.__wrapped__(name, "")
    assert letter.value.field == "scheduler" and "Karras" not in letter.value.message.split("needs")[1]
    with pytest.raises(RecipeError, match="pip install scipy"):
        parse.__wrapped__("Euler beta", "")
    with pytest.raises(RecipeError, match="pip install scipy"):
        evaluations(parse("Euler", ""), tiny.SCHEDULE | {"use_beta_sigmas": True}, 5, None)


def test_a_schedule_that_is_named_takes_the_place_of_the_models() -> None:
    for said in SIGMAS:
        for schedule in ("karras", "exponential", "beta"):
            config = plan(parse(f"Euler {schedule}", ""), tiny.SCHEDULE | {said: True}, 5, None).scheduler.config
            assert [a for a in SIGMAS if config[a]] == [f"use_{schedule}_sigmas"]

"""One timetable says who speaks when, and everybody reads it: the run, the report, and what a picture says of itself."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
import torch
from some import some

import mix
import tiny
from infuse import ControlNet, IPAdapter, PowerPaint, Recipe, Text
from infuse.conditions import Reference
from infuse.guidance import chain
from infuse.timetable import PROMPT, heard, timetable


class Guided(Text):
    """A condition with a guidance scale of its own."""

    guided: ClassVar[float | None] = 1.5


def words(**fields: object) -> Text:
    return Text(prompt="more", **fields)  # type: ignore[arg-type]


def control(**fields: object) -> ControlNet:
    return ControlNet(model="canny", image=mix.picture(1), **fields)  # type: ignore[arg-type]


def reference(seed: int = 1, **fields: object) -> Reference:
    return Reference(image=mix.picture(seed, mix.SIDE), **fields)  # type: ignore[arg-type]


def test_stretches_are_cut_where_somebody_begins_or_ceases() -> None:
    speakers = {PROMPT: words(), "a": words(start=0.2, end=0.8), "b": words(weight={0: 1.0, 1: 0.5}, end=0.5)}
    table = timetable(speakers, 10, 5.0, {})
    assert [(s.first, s.last) for s in table.stretches] == [(0, 2), (2, 5), (5, 8), (8, 10)]
    assert [tuple(s.evaluations[0].weights) for s in table.stretches] == [
        (PROMPT, "b"), (PROMPT, "a", "b"), (PROMPT, "a"), (PROMPT,)
    ]  # fmt: skip
    assert json.loads(json.dumps(table.plain()))[1]["heard"] == {PROMPT: 1.0, "a": 1.0, "b": [0.9, 0.8]}


def test_guidance_of_one_is_one_term_and_its_edge_is_an_edge() -> None:
    table = timetable({PROMPT: words()}, 8, {0: 6.0, 0.5: 1.0}, {})
    assert table.rows == (2, 2, 2, 2, 1, 1, 1, 1)
    assert [(s.first, s.last) for s in table.stretches] == [(0, 4), (4, 8)]


def test_a_silent_condition_with_a_scale_of_its_own_costs_no_row() -> None:
    speakers = {PROMPT: words(), "a": words(end=0.5)}
    table = timetable(speakers, 4, 5.0, {"a": 1.5})
    assert table.rows == (3, 3, 2, 2)
    assert table[3].guidance == chain((PROMPT,), {PROMPT: 5.0})
    assert timetable(speakers, 4, 1.0, {"a": 1.5}).rows == (1, 1, 1, 1), "no guidance, no terms"


def calls_and_rows(recipe: Recipe) -> tuple[int, int, int]:
    """(network calls, rows, rows of branches) as they happened."""
    engine = mix.engine()
    network = engine.store.base("tiny").network
    seen: list[int] = []
    branch: list[int] = []
    predict = type(network).predict

    def counted(batch: object) -> torch.Tensor:
        seen.append(len(batch.x))  # type: ignore[attr-defined]
        branch.append(sum(len(r.rows) for r in batch.residuals))  # type: ignore[attr-defined]
        return predict(network, batch)  # type: ignore[arg-type]

    network.predict = counted  # type: ignore[method-assign,assignment]
    try:
        engine.run(recipe)
    finally:
        del network.__dict__["predict"]
    return len(seen), sum(seen), sum(branch)


ASKED: dict[str, dict[str, Any]] = {
    "guidance ends": {"guidance": {0: 6.0, 0.5: 1.0}, "scheduler": "DDIM"},
    "second order": {"scheduler": "Heun", "conditions": (control(start=0.3, end=0.7),)},
    "one-sided": {"scheduler": "DDIM", "conditions": (control(mode="guess", end=0.5), control(weight=0.3))},
    "prompt's side": {
        "scheduler": "DDIM", "guidance": {0: 3.0, 0.5: 1.0}, "conditions": (control(applies_to="prompt"),)
    },
    "a picture beside each row": {"scheduler": "DDIM", "conditions": (reference(end=0.5), reference(2, method="both"))},
    "a picture beside the prompt's row": {"scheduler": "DDIM", "count": 2, "conditions": (reference(fidelity=1), reference(weight=0))},
    "three pictures": {
        "scheduler": "UniPC", "count": 3, "conditions": (IPAdapter(model="face", image=mix.picture(1), end=0.4),)
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", some(ASKED, quick=["second order", "one-sided", "prompt's side", "a picture beside each row"])
)
def test_the_report_counts_what_will_happen(name: str) -> None:
    recipe = Recipe(model="tiny", prompt="x", steps=6, **ASKED[name])
    found = mix.engine().check(recipe)
    assert (found.calls, found.rows, found.branch_rows) == calls_and_rows(recipe)


@pytest.mark.slow
def test_pictures_that_run_beside_others_are_rows_of_a_call() -> None:
    """What a call may have counts them, too: its memory does."""
    plain = Recipe(model="tiny", prompt="x", steps=2, width=16, height=16, count=4, scheduler="DDIM", guidance=5.0)
    twice = plain.model_copy(update={"conditions": (reference(),)})
    engine = mix.engine(max_rows=8)
    assert [engine.check(r).calls for r in (plain, twice)] == [2, 4]
    alone = mix.engine(max_rows=64).run(twice)
    engine.store.base("tiny").network.calls = 0
    torch.testing.assert_close(engine.run(twice).latents, alone.latents, atol=1e-10, rtol=0)
    assert engine.store.base("tiny").network.calls == 4
    wide = [mix.engine().check(r) for r in (plain, twice)]
    assert wide[0].peak < wide[1].peak and wide[1].flops > 1.8 * wide[0].flops


@pytest.mark.slow
def test_two_heun_steps_are_three_evaluations_for_everybody() -> None:
    """PowerPaint drops its negative words beside a ControlNet that is heard; whether it is, evaluations decide."""
    half = control(start=0.3, end=0.7)
    assert heard(half, 3) and not heard(half, 2)
    engine = tiny.engine(tiny.powerpaint1(), {"canny": tiny.controlnet("sd1", 7)})
    paint = PowerPaint(image=mix.picture(2), mask=mix.half())
    found = engine.check(Recipe(model="tiny", prompt="x", steps=2, scheduler="Heun", conditions=(paint, half)))
    assert len(found.timetable) == 3 and "conditions.1" in found.timetable[1].weights
    assert found.speakers[PROMPT].controlled  # type: ignore[attr-defined]
    alone = engine.check(Recipe(model="tiny", prompt="x", steps=2, scheduler="DDIM", conditions=(paint, half)))
    assert not alone.speakers[PROMPT].controlled  # type: ignore[attr-defined]
    assert any("not be heard" in w for w in alone.warnings)


@pytest.mark.slow
def test_what_was_left_open_is_filled_in_and_recorded(tmp_path: object) -> None:
    recipe = Recipe(prompt="x", steps=5, conditions=(control(end=0.5),))
    engine = mix.engine()
    found = engine.check(recipe)
    assert (found.recipe.width, found.recipe.height, found.recipe.guidance, found.recipe.model) == (32, 32, 7.5, "tiny")
    assert found.recipe.scheduler == "DDIMScheduler" and (found.dtype, found.device) == ("float64", "cpu")
    record = json.loads(engine.run(recipe).record().text())
    assert record["resolved"]["width"] == 32 and record["resolved"]["dtype"] == "float64"
    assert [s["evaluations"] for s in record["resolved"]["timetable"]] == [[0, 2], [2, 5]]
    assert record["recipe"]["model"] == "tiny", "what the engine meant is said"


@pytest.mark.slow
def test_submit_computes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each condition is checked once, each curve read once per evaluation, each schedule made once."""
    import infuse.engine.resolve as resolving
    import infuse.timetable as times

    asked: list[str] = []

    def counted(name: str, made: object) -> object:
        def call(*args: object, **named: object) -> object:
            asked.append(name)
            return made(*args, **named)  # type: ignore[operator]

        return call

    monkeypatch.setattr(ControlNet, "check", counted("check", ControlNet.check))
    monkeypatch.setattr(resolving, "plan", counted("plan", resolving.plan))
    monkeypatch.setattr(times, "value_at", counted("curve", times.value_at))
    mix.engine().run(Recipe(model="tiny", steps=4, count=3, conditions=(control(),)))
    assert asked.count("check") == 1 and asked.count("plan") == 1
    assert asked.count("curve") == 1 + 4 * 3, (
        "heard? once; then prompt, ControlNet and guidance in each of four evaluations"
    )

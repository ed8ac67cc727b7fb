"""Warnings reach people: once for each cause, at the line that asked, on the ticket, the result and the record (S1, S2)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

import tiny
from infuse import ControlNet, Recipe, Text
from infuse.engine.engine import Engine
from infuse.errors import InfuseWarning
from infuse.media.pictures import Picture
from infuse.notices import Teller, gathers, note


@pytest.fixture(autouse=True)
def said() -> Iterator[list[warnings.WarningMessage]]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", InfuseWarning)
        yield found


BASE = cache(lambda: tiny.base("sd1"))


def engine(**options: Any) -> Engine:
    return tiny.engine(BASE(), **options)


def recipe(**fields: Any) -> Recipe:
    return Recipe(**{"model": "tiny", "prompt": "a", "steps": 1, "width": 16, "height": 16, **fields})


@pytest.mark.slow
def test_a_warning_is_said_once_where_it_was_asked_for(said: list[warnings.WarningMessage]) -> None:
    made = engine()
    asked = recipe(guidance=1, negative_prompt="blue")
    result = made.run(asked)
    again = made.run(asked.model_copy(update={"seed": 3}))
    (one,) = [w for w in said if issubclass(w.category, InfuseWarning)]
    assert "negative_prompt: it changes nothing" in str(one.message) and one.filename == __file__
    for told in (result.warnings, again.warnings, made.check(asked).warnings, made.submit(asked).warnings):
        assert str(one.message) in told, "each request has it, said or not"
    engine().run(asked)
    assert len(said) == 2, "another engine says it, too"


def test_a_ticket_has_what_its_encoding_noted(
    said: list[warnings.WarningMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = Text.encode

    def noting(self: Text, kit: Any) -> Any:
        note("conditions.0: it was mended")
        return encode(self, kit)

    monkeypatch.setattr(Text, "encode", noting)
    made = engine()
    asked = recipe(conditions=[Text(prompt="b")])
    assert "conditions.0: it was mended" in made.run(asked).warnings
    assert "conditions.0: it was mended" in made.run(asked).warnings, "kept with what was encoded"
    assert [str(w.message) for w in said] == ["conditions.0: it was mended"]


@pytest.mark.parametrize(("fields", "words"), [
    ({"negative_prompt": "blue"}, "negative_prompt: it changes nothing"), ({"guidance_rescale": 0.5}, "guidance_rescale: it changes nothing"),
    ({"conditions": [Text(prompt="b", negative_prompt="c")]}, "conditions.0.negative_prompt: it changes nothing"),
    ({"conditions": [Text(prompt="b", applies_to="negative")]}, "conditions.0.applies_to: it changes nothing"),
])  # fmt: skip
def test_what_only_guidance_hears(fields: dict[str, Any], words: str) -> None:
    made = engine()
    for guidance, is_told in ((1, True), ({0: 1, 1: 0.5}, True), (0, True), (2, False), ({0: 5, 0.5: 1}, False)):
        told = made.check(recipe(steps=4, guidance=guidance, **fields)).warnings
        assert any(words in w for w in told) == is_told, (guidance, told)


def test_prompts_of_conditions_are_read_too() -> None:
    told = engine().check(recipe(negative_prompt="(red)1.3", conditions=[Text(prompt="a cat++")])).warnings
    assert [w.split(": ")[0] for w in told] == ["negative_prompt", "conditions.0.prompt"]


@pytest.mark.slow
def test_a_photo_for_a_controlnet_of_ones_own() -> None:
    """`annotator: auto` without a card: told by the name, or warned of (I13)."""
    made = tiny.engine(BASE(), {"mycanny": tiny.controlnet("sd1", 7), "mynet": tiny.controlnet("sd1", 8)})
    photo = Picture.of(np.random.default_rng(3).integers(0, 256, (16, 16, 3), np.uint8))
    told = {
        name: made.check(recipe(conditions=[ControlNet(model=name, image=photo, annotator="auto")])).warnings
        for name in ("mycanny", "mynet")
    }
    assert not told["mycanny"] and "conditions.0.annotator: nothing says what maps 'mynet'" in told["mynet"][0]
    auto, drawn = (
        made.run(recipe(conditions=[ControlNet(model="mycanny", image=photo, annotator=how)])).latents
        for how in ("auto", "canny")
    )
    assert (auto == drawn).all()


@pytest.mark.slow
def test_one_result_for_each_picture() -> None:
    """`each`: as soon as it is done, and equal to its run alone (U8)."""
    made, seen = engine(), list[int]()
    asked = recipe(seed=[3, 9, 4])
    for result in made.each(asked, watch=lambda t: seen.append(t.recipe.seed)):
        alone = made.run(recipe(seed=result.recipe.seed))
        assert (
            np.array_equal(np.asarray(result.image), np.asarray(alone.image))
            and result.record().recipe == alone.record().recipe
        )
    assert sorted(set(seen)) == [3, 4, 9]
    series = engine(max_rows=1).each(recipe(count=5))
    assert next(series).recipe.seed == 0
    series.close()


def test_a_random_seed_is_in_the_record() -> None:
    result = engine().run(recipe(seed="random", count=2))
    first = result.recipe.seed
    assert isinstance(first, int) and result.record(1).recipe["seed"] == first + 1


def test_a_warning_that_is_an_error_stops_before_anything_is_in_line() -> None:
    made = engine()
    with warnings.catch_warnings():
        warnings.simplefilter("error", InfuseWarning)
        with pytest.raises(InfuseWarning):
            made.run(recipe(guidance=1, negative_prompt="blue"))
    assert not made.step()


def test_a_teller_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch, said: list[warnings.WarningMessage]) -> None:
    monkeypatch.setattr("infuse.notices.MOST", 2)
    teller = Teller()
    teller.tell(["a", "b", "a", "c", "a"])
    assert [str(w.message) for w in said] == ["a", "b", "c", "a"]
    with gathers() as outer:
        with gathers() as inner:
            note("x")
        note("y")
        note("y")
    assert (inner, outer) == (["x"], ["y"])

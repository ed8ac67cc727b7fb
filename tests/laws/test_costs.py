"""What a report says of memory: a file that several name is loaded once, and one that nobody hears never."""

from __future__ import annotations

from typing import Any

import pytest

import mix
from infuse import ControlNet, IPAdapter, Recipe
from infuse.conditions import Reference


def memory(*conditions: Any) -> int:
    return mix.engine().check(Recipe(model="tiny", prompt="x", steps=2, conditions=conditions)).memory


@pytest.mark.slow
def test_weights_that_two_conditions_name_are_counted_once() -> None:
    canny, other = (ControlNet(model=m, image=mix.picture(1)) for m in ("canny", "depth"))
    face = IPAdapter(model="face", image=mix.picture(2))
    nothing, one, two = memory(), memory(canny), memory(canny, other)
    assert two - one == one - nothing > 0
    assert memory(canny, canny.model_copy(update={"weight": 0.5}), face, face) == one + memory(face) - nothing


def test_a_silent_condition_brings_no_weights() -> None:
    canny = ControlNet(model="canny", image=mix.picture(1))
    assert memory(canny.model_copy(update={"weight": 0.0})) == memory()
    assert memory(canny.model_copy(update={"weight": 0.0}), canny) == memory(canny)


def test_a_reference_says_beside_which_rows_it_runs() -> None:
    def note(**fields: Any) -> str:
        asked = Recipe(model="tiny", prompt="x", conditions=(Reference(image=mix.picture(1), **fields),))
        return next(r.note for who, _, r in mix.engine().check(asked).routes if who == "conditions.0")

    assert note().endswith("a row beside each") and note(fidelity=1).endswith("a row beside the prompt's alone")

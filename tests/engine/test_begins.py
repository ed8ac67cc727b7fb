"""A run begins from one picture at most, and what makes it short is heard in it: letters of a check, whatever the steps."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest

from infuse import Img2Img, Inpaint, MaskedVideo, Recipe, VideoToVideo
from infuse.conditions.base import Condition
from infuse.engine.model_store import ModelStore
from infuse.engine.resolve import begins, resolve
from infuse.errors import RecipeError
from infuse.media.films import Film
from infuse.solvers import parse

PICTURE: Any = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
HOLE: Any = np.where(np.arange(64) < 32, np.uint8(255), np.uint8(0))[None].repeat(64, 0)


def film(shown: Any) -> Film:
    return Film.of(np.stack([shown] * 2))


STARTS: dict[str, tuple[Condition, Condition]] = {
    # by itself the hole makes a run of a quarter, the other one of a half
    "pictures": (
        Inpaint(image=PICTURE, mask=HOLE, strength=0.25, start=0.3),
        Img2Img(image=PICTURE, strength=0.5),
    ),
    "a soft hole": (
        Inpaint(image=PICTURE, mask=HOLE, strength=0.25, soft=True, mask_blur=2, start=0.3),
        Img2Img(image=PICTURE, strength=0.5),
    ),
    "films": (
        MaskedVideo(film=film(PICTURE), mask=film(np.repeat(HOLE[..., None], 3, -1)), strength=0.25, start=0.3),
        VideoToVideo(film=film(PICTURE), strength=0.5),
    ),
}  # fmt: skip


def letter(*conditions: Condition, steps: int) -> RecipeError:
    named = {f"conditions.{i}": c for i, c in enumerate(conditions)}
    with pytest.raises(RecipeError) as caught:
        begins(Recipe(prompt="x", steps=steps, conditions=conditions), named, parse("DDIM", ""), {})
    return caught.value


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("steps", [4, 5, 7, 8, 12, 30])
def test_two_starts_are_one_letter_whatever_the_steps(kind: str, steps: int) -> None:
    """At 4 steps the hole makes a run of one evaluation, in which its window leaves it silent; in the other's two it is heard."""
    for both in permutations(STARTS[kind]):
        said = letter(*both, steps=steps)
        assert said.field == "conditions.1"
        assert said.message == "it starts from a picture, and so does conditions.0. Keep one of the two."


@pytest.mark.parametrize("steps", [4, 8])
def test_a_check_says_so(steps: int) -> None:
    view = ModelStore(device="cpu").view("tabletop")
    for both in permutations(STARTS["pictures"]):
        with pytest.raises(RecipeError, match="starts from a picture, and so does") as caught:
            resolve(Recipe(prompt="a red cube", steps=steps, conditions=both), view)
        assert caught.value.field == "conditions.1"


@pytest.mark.parametrize("kind", STARTS)
def test_a_start_that_its_own_run_does_not_hear_is_a_letter(kind: str) -> None:
    """With it the run is one evaluation long, in which it is silent; without it there are four, and it is heard."""
    said = letter(STARTS[kind][0], steps=4)
    assert said.field == "conditions.0"
    assert "makes a run of 1 of 4 evaluations" in said.message and "Widen its window (start, end)" in said.message


def test_whoever_is_heard_in_neither_run_is_silent() -> None:
    """A window between two steps, and no weight at all."""
    for silent in (
        Inpaint(image=PICTURE, mask=HOLE, strength=0.5, start=0.3, end=0.4),
        Inpaint(image=PICTURE, mask=HOLE, strength=0.5, weight=0),
    ):
        for other, begun in ((), (None, 4)), ((STARTS["pictures"][1],), (0.5, 2)):
            everyone = {f"conditions.{i}": c for i, c in enumerate((silent, *other))}
            recipe = Recipe(prompt="x", steps=4, conditions=tuple(everyone.values()))
            assert begins(recipe, everyone, parse("DDIM", ""), {}) == begun

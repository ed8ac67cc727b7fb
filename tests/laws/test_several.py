"""Three to six conditions at once, with curves, regions and windows, drawn at random: the laws of pairs hold for them, too."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kinds import SIDE, WORLDS, world
from test_pairs import engine, possible, recipe, same

from infuse.errors import InfuseError
from mix import half

VOICES: dict[str, Any] = {
    "weight": st.one_of(st.floats(0.1, 1), st.just({0: 0.9, 1: 0.2}), st.just({0: 0.0, 0.5: 1.0})),
    "start": st.sampled_from([0.0, 0.3]),
    "end": st.sampled_from([0.7, 1.0]),
    "mask": st.just(half(SIDE)),
    "applies_to": st.sampled_from(["both", "prompt"]),
}
TRIED: dict[str, Any] = {"weight": 0.5, "start": 0.3, "end": 0.7, "mask": half(SIDE), "applies_to": "prompt"}


@cache
def voice(name: str, kind: str) -> tuple[str, ...]:
    """The fields of this kind that say how it is heard."""
    make, out = world(name).kinds[kind], []
    for field, value in TRIED.items():
        if field == "mask" and make().HOLE:
            continue
        try:
            engine(name).check(recipe(world(name), make(**{field: value})))
            out.append(field)
        except InfuseError:
            pass
    return tuple(out)


@st.composite
def crowds(draw: Any) -> tuple[str, list[Any]]:
    """(base, conditions) that one recipe may have: whoever is refused beside the others is left out."""
    name = draw(st.sampled_from(WORLDS))
    there = world(name)
    chosen = draw(st.lists(st.sampled_from(sorted(there.kinds)), min_size=3, max_size=6, unique=True))
    said: list[Any] = []
    for kind in dict.fromkeys((*there.own, *chosen)):
        fields = {f: draw(VOICES[f]) for f in voice(name, kind) if draw(st.booleans())}
        for asked in (fields, {}) if kind in there.own else (fields,):  # an upscaler makes nothing without its picture
            try:
                one = there.kinds[kind](**asked)
                engine(name).check(recipe(there, *said, one))
                said.append(one)
                break
            except InfuseError:
                continue
    return name, said


def all_laws(name: str, said: list[Any], steps: int) -> None:
    e, there = engine(name), world(name)
    asked = recipe(there, *said, steps=steps)
    alone = e.run(asked).latents
    assert alone.isfinite().all()
    same(e.run(recipe(there, *said[::-1], steps=steps)).latents, alone)
    others = [recipe(there, *said[1:], steps=steps + 1), recipe(there, seed=5)]
    beside, *_ = e.run_all(asked, *(r for r in others if possible(name, r)))
    same(beside.latents, alone)
    silent = next((c for c in there.kinds.values() if not isinstance(c(), tuple(type(s) for s in said))), None)
    if silent is not None:
        try:
            quiet = silent(weight=0)
            e.check(recipe(there, *said, quiet))
        except InfuseError:
            return
        assert torch.equal(e.run(recipe(there, *said, quiet, steps=steps)).latents, alone)


@pytest.mark.slow
@given(crowds(), st.integers(2, 4))
@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_three_hundred_crowds(crowd: tuple[str, list[Any]], steps: int) -> None:
    all_laws(*crowd, steps)


@pytest.mark.slow
def test_five_at_once() -> None:
    kinds = world("sd1").kinds
    five = ("controlnet", "t2i-adapter", "ip-adapter (faceid)", "reference", "inpaint")
    all_laws("sd1", [kinds[k]() for k in five], 2)

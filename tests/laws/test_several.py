"""Three to six conditions at once, with curves, regions, windows and prompts of several kinds, drawn at random: the laws of pairs hold
for them, too."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
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


PROMPTS = (
    "a red cube", "a (red:1.3) [cube], BREAK (sphere)", "a [red:blue:0.5] cube", "a [cube|ball] here", "a cube AND a ball:0.6",
    "a [big::1] cube:0.8 AND (rain:1.2) :-0.2", "word " * 90,
)  # fmt: skip


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
def crowds(draw: Any) -> tuple[str, list[Any], str, int]:
    """(base, conditions, prompt, steps) of one recipe: whoever is refused beside the others is left out. Who is heard at all depends on
    the steps."""
    steps = draw(st.integers(2, 4))
    name = draw(st.sampled_from(WORLDS))
    there = world(name)
    chosen = draw(st.lists(st.sampled_from(sorted(there.kinds)), min_size=3, max_size=6, unique=True))
    said: list[Any] = []
    for kind in dict.fromkeys((*there.own, *chosen)):
        fields = {f: draw(VOICES[f]) for f in voice(name, kind) if draw(st.booleans())}
        for asked in (fields, {}) if kind in there.own else (fields,):  # an upscaler makes nothing without its picture
            try:
                one = there.kinds[kind](**asked)
                engine(name).check(recipe(there, *said, one, steps=steps))
                said.append(one)
                break
            except InfuseError:
                continue
    prompt = draw(st.sampled_from(PROMPTS))
    asked = recipe(there, *said, prompt=prompt, steps=steps)
    return name, said, prompt if possible(name, asked) else PROMPTS[0], steps


def all_laws(name: str, said: list[Any], prompt: str, steps: int) -> None:
    e, there = engine(name), world(name)

    def all_of(*conditions: Any) -> Any:
        return recipe(there, *conditions, prompt=prompt, steps=steps)

    asked = all_of(*said)
    alone = e.run(asked).latents
    assert alone.isfinite().all()
    same(e.run(all_of(*said[::-1])).latents, alone)
    others = [recipe(there, *said[1:], steps=steps + 1), recipe(there, seed=5)]
    beside, *_ = e.run_all(asked, *(r for r in others if possible(name, r)))
    same(beside.latents, alone)
    silent = next((c for c in there.kinds.values() if not isinstance(c(), tuple(type(s) for s in said))), None)
    if silent is not None:
        try:
            quiet = silent(weight=0)
            e.check(all_of(*said, quiet))
        except InfuseError:
            return
        assert torch.equal(e.run(all_of(*said, quiet)).latents, alone)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(6))
def test_three_hundred_crowds(part: int) -> None:
    @seed(part)
    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(crowds())
    def fifty(crowd: tuple[str, list[Any], str, int]) -> None:
        all_laws(*crowd)

    fifty()


@pytest.mark.slow
def test_six_at_once() -> None:
    kinds = world("sd1").kinds
    five = ("controlnet", "t2i-adapter", "ip-adapter (faceid)", "reference", "inpaint", "lora")
    all_laws("sd1", [kinds[k]() for k in five], PROMPTS[5], 2)

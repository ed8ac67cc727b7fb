"""Words that ask for more than being painted: parts that are summed, words that change on the way, regions. Against their formulas."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

import mix
import tiny
from infuse import Recipe, RecipeError, Regions
from infuse.batch import Row, collate
from infuse.conditions.base import said
from infuse.encoders.kit import Kit
from infuse.ports import Ports

SIDE = 16


@cache
def engine(family: str = "sd1") -> Any:
    return tiny.engine(tiny.base(family, dtype=torch.float64))


def recipe(prompt: str, *conditions: Any, **fields: Any) -> Recipe:
    given = {"prompt": prompt, "width": SIDE, "height": SIDE, "steps": 3, "guidance": 3.0, "conditions": conditions}
    return Recipe(**{**given, **fields})


def same(a: torch.Tensor, b: torch.Tensor, within: float = 1e-10) -> None:
    assert a.isfinite().all()
    assert (a - b).abs().max() <= within * b.abs().max()


def one_step(
    family: str, parts: list[tuple[str, float, Any]], negative: str, scale: float, seed: int = 0
) -> torch.Tensor:
    """The first guided answer by the formula u + s sum of w F (c - u), with a region F for each part."""
    base = engine(family).store.base("tiny")
    kit = Kit(base, (SIDE, SIDE), engine(family).store)
    job = {}

    def watch(ticket: Any) -> None:
        job.setdefault("last", ticket.jobs[0].last)

    engine(family).run(recipe("x", steps=1, seed=seed), watch=watch)
    x, t, _ = job["last"]
    vectors: Any = (
        ()
        if family != "sdxl"
        else (
            __import__("infuse.ports", fromlist=["Vector"]).Vector(
                "time_ids", kit.vector((SIDE, SIDE, 0, 0, SIDE, SIDE)), ground=True
            ),
        )
    )
    silent = kit.silence() if not negative else None
    rows = [Row(x, t, (silent or said(kit, negative)) + Ports(embedding=vectors))]
    rows += [Row(x, t, said(kit, text) + Ports(embedding=vectors)) for text, _, _ in parts]
    with torch.no_grad():
        nobody, *answers = base.network.predict(collate(rows, base.spec))
    return nobody + sum(scale * w * f * (a - nobody) for a, (_, w, f) in zip(answers, parts, strict=True))


def first_answer(family: str, asked: Recipe) -> torch.Tensor:
    found = {}
    engine(family).run(asked, watch=lambda ticket: found.setdefault("last", ticket.jobs[0].last))
    return found["last"][2]


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("scale", [4.0, 1.0])
def test_parts_are_summed(family: str, scale: float) -> None:
    asked = recipe("a red cube AND a blue ball:0.5 AND rain :-0.3", negative_prompt="dark", guidance=scale, steps=1)
    parts = [("a red cube ", 1.0, 1.0), (" a blue ball", 0.5, 1.0), (" rain", -0.3, 1.0)]
    same(first_answer(family, asked), one_step(family, parts, "dark", scale))


def test_a_number_at_the_end_weighs_the_whole_prompt() -> None:
    with pytest.warns(match="weighs all of it"):
        found = first_answer("sd1", recipe("a red cube:2", steps=1))
    same(found, one_step("sd1", [("a red cube", 2.0, 1.0)], "", 3.0))
    plain = recipe("a red cube:2", steps=1, syntax="plain")
    same(first_answer("sd1", plain), one_step("sd1", [("a red cube:2", 1.0, 1.0)], "", 3.0))


def test_words_change_on_the_way() -> None:
    """The webui's first entry lasts one evaluation longer than its number: of 4, `0.5` is heard for three."""
    states = []

    def watch(ticket: Any) -> None:
        job = ticket.jobs[0]
        if job.latent is None:
            states.append(job.ports(frozenset({"prompt"})).context[0].values)

    engine().run(recipe("a [cat:dog:0.5] here", steps=4), watch=watch)
    kit = Kit(engine().store.base("tiny"), (SIDE, SIDE), engine().store)
    cat, dog = kit.text("a cat here"), kit.text("a dog here")
    assert [torch.equal(s, cat) for s in states] == [True, True, False]  # evaluations 1, 2, 3; 0 had been asked before
    assert torch.equal(states[-1], dog)
    same(engine().run(recipe("a [cat:dog:0]")).latents, engine().run(recipe("a dog")).latents)


def test_regions_share_attention_by_their_masks() -> None:
    """Two halves with the same words are these words everywhere; the whole picture as one region, with no base, is its words alone."""
    halves = Regions(
        regions=({"prompt": "a cat", "box": "0:0:0.5:1"}, {"prompt": "a cat", "mask": mix.half(SIDE)}), base=0
    )
    same(engine().run(recipe("a dog", halves)).latents, engine().run(recipe("a cat")).latents)
    whole = Regions(regions=({"prompt": "a cat", "box": (0, 0, 1, 1)},), base=1)
    same(engine().run(recipe("a dog", whole)).latents, engine().run(recipe("a dog")).latents)
    shared = Regions(
        regions=({"prompt": "a cat", "box": (0, 0, 1, 1), "weight": 3}, {"prompt": "a dog", "box": (0, 0, 1, 1)}),
        base=0,
    )
    one = Regions(
        regions=(
            {"prompt": "a cat", "box": (0, 0, 1, 1), "weight": 0.75},
            {"prompt": "a dog", "box": (0, 0, 1, 1), "weight": 0.25},
        ),
        base=0,
    )
    same(engine().run(recipe("x", shared)).latents, engine().run(recipe("x", one)).latents)


def test_regions_are_terms_that_pull_in_their_place() -> None:
    left = torch.zeros(SIDE // 2, SIDE // 2, dtype=torch.float64)
    left[:, : SIDE // 4] = 1
    asked = recipe(
        "a dog",
        Regions(way="latent", regions=({"prompt": "a cat", "box": "0:0:0.5:1"},), base=0.25),
        steps=1,
        negative_prompt="dark",
    )
    parts = [("a dog", 1.0, 1 - 0.75 * left), ("a cat", 1.0, 0.75 * left)]
    same(first_answer("sd1", asked), one_step("sd1", parts, "dark", 3.0))
    assert engine().check(asked).rows == 3


def test_a_region_is_somewhere() -> None:
    for bad, text in (
        ({"prompt": "a"}, "either a mask or a box"),
        ({"prompt": "a", "box": "0:0:2:1"}, "does not lie"),
        ({"prompt": "a", "box": "left"}, "no box"),
    ):
        with pytest.raises(RecipeError, match=text):
            recipe("x", {"kind": "regions", "regions": [bad]})


@pytest.mark.slow
def test_second_prompt_is_for_two_encoders() -> None:
    with pytest.raises(RecipeError, match="one text encoder"):
        engine().check(recipe("a cat", prompt_2="a dog"))
    e, r = engine("sdxl"), recipe("a cat", prompt_2="a dog")
    assert not torch.equal(e.run(r).latents, e.run(recipe("a cat")).latents)
    same(e.run(recipe("a cat", prompt_2="a cat")).latents, e.run(recipe("a cat")).latents)

"""Ports are a monoid, encoding is pure, recipes survive every round trip."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

import mix
from infuse import ControlNet, Img2Img, IPAdapter, Recipe, Text
from infuse.curves import Step, value_at
from infuse.encoders.kit import Kit
from infuse.ports import Channel, Decoupled, Edit, Latent, Ports, Posterior, Residual, Shared, Tokens, Vector
from infuse.timetable import timetable

ENTRIES = {
    "latent": Latent(),
    "channels": Channel("mask", torch.ones(1, 2, 2)),
    "context": Tokens(torch.ones(3, 4)),
    "decoupled": Decoupled(torch.nn.Identity(), torch.ones(2, 4)),
    "residuals": Residual(torch.nn.Identity(), torch.ones(3, 8, 8)),
    "embedding": Vector("time_ids", torch.ones(6)),
    "shared": Shared(Posterior(torch.ones(1, 2, 2), torch.ones(1, 2, 2))),
    "edits": Edit(torch.nn.Identity()),
}
some = st.dictionaries(st.sampled_from(sorted(ENTRIES)), st.integers(0, 3)).map(
    lambda d: Ports(**{k: (ENTRIES[k],) * n for k, n in d.items()})
)  # type: ignore[arg-type]


def same(a: Ports, b: Ports) -> bool:
    return all([id(x) for x in getattr(a, f.name)] == [id(x) for x in getattr(b, f.name)] for f in fields(Ports))


def test_the_ports_are_the_documented_eight() -> None:
    assert [f.name for f in fields(Ports)] == list(ENTRIES)


@given(some, some, some)
@settings(max_examples=50, deadline=None)
def test_monoid(a: Ports, b: Ports, c: Ports) -> None:
    assert same(a + Ports(), a) and same(Ports() + a, a)
    assert same((a + b) + c, a + (b + c))


@given(st.floats(0, 1), st.floats(0, 1), st.floats(-2, 2), st.integers(1, 50))
@settings(max_examples=100, deadline=None)
def test_a_condition_speaks_inside_its_window_only(start: float, end: float, weight: float, n: int) -> None:
    assume(start < end)
    ports = Ports(context=(Tokens(torch.ones(1, 1)),))
    for i, evaluation in enumerate(timetable({"a": Text(prompt="", weight=weight, start=start, end=end)}, n, 1.0, {})):
        step = Step(i, n)
        heard = ports.at(evaluation.progress, evaluation.weights.get("a", 0.0)).context
        assert bool(heard) == (start <= step.begin and step.end <= end and weight != 0)
        assert all(e.voice.weight == weight for e in heard)


def test_curves_are_linear_between_points_and_flat_beyond() -> None:
    curve = {0.2: 1.0, 0.6: 0.0}
    assert [value_at(curve, p) for p in (0, 0.2, 0.4, 0.6, 1)] == pytest.approx([1, 1, 0.5, 0, 0])


def test_encode_twice_equals_encode_once() -> None:
    engine = mix.engine()
    for recipe in mix.recipes():
        kit = Kit(engine.store.base("tiny"), engine.check(recipe).size, engine.store)
        for c in recipe.conditions:
            once, twice = c.sides(kit), c.sides(Kit(kit.base, kit.size, kit.store))
            for a, b in ((once.on, twice.on), (once.off, twice.off)):
                assert all(torch.equal(x, y) for x, y in zip(tensors(a), tensors(b), strict=True))


def tensors(ports: Ports) -> list[torch.Tensor]:
    entries = [e for f in fields(Ports) for e in getattr(ports, f.name)]
    found = [v for e in entries for v in (vars(e) | vars(e.voice)).values()]
    return [
        t for v in found for t in (vars(v).values() if isinstance(v, Posterior) else [v]) if isinstance(t, torch.Tensor)
    ]


@pytest.mark.parametrize("i", range(6))
def test_a_recipe_survives_yaml_json_and_png(i: int, tmp_path: Path) -> None:
    recipe = mix.recipes()[i]
    for name in ("r.yaml", "r.json"):
        recipe.dump(tmp_path / name)
        assert Recipe.load(tmp_path / name) == recipe
    assert Recipe.load(json.loads(json.dumps(recipe.dump()))).digest == recipe.digest
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_a_picture_runs_again_to_the_same_bytes(tmp_path: Path) -> None:
    engine = mix.engine()
    first = engine.run(mix.recipes()[3]).save(tmp_path / "a.png")[0]
    again = engine.run(Recipe.load(first)).save(tmp_path / "b.png")[0]
    assert first.read_bytes() == again.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", *(pytest.param(s, marks=pytest.mark.slow) for s in ("jpg", "webp", "tiff"))])
def test_a_picture_of_large_inputs_runs_again_to_the_same_pixels(suffix: str, tmp_path: Path) -> None:
    """Photos of a megabyte travel as they were used: on the canvas, in an image encoder's square."""
    engine = mix.engine()
    for i, name in enumerate(("start", "look", "hint", "region")):
        Image.fromarray(mix.picture(40 + i, 700)[: 700 - 50 * i]).save(tmp_path / f"{name}.png")
    start, look, hint, region = (str(tmp_path / f"{n}.png") for n in ("start", "look", "hint", "region"))
    asked = Recipe(
        model="tiny", prompt="again", width=20, height=16, steps=4, seed=3,
        conditions=(Img2Img(image=start, strength=0.6), ControlNet(model="canny", image=hint, fit="crop", mask=region),
                    IPAdapter(model="face", image=look, fit="pad"), IPAdapter(model="style", image=(look, mix.picture(9)))),
    )  # fmt: skip
    made = engine.run(asked)
    (first,) = made.save(tmp_path / f"a.{suffix}")
    assert first.stat().st_size < 60_000 and b"start.png" not in first.read_bytes()
    for name in (start, look, hint, region):
        Path(name).unlink()
    again = engine.run(Recipe.load(first))
    assert np.array_equal(again.image, made.image)
    (second,) = again.save(tmp_path / f"b.{suffix}")
    (third,) = engine.run(Recipe.load(second)).save(tmp_path / f"c.{suffix}")
    assert second.read_bytes() == third.read_bytes()

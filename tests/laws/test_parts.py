"""Compiled parts answer as layers do, and are few: other sizes, rows, scales, windows and prompts compile nothing new."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from kinds import world
from test_pairs import recipe
from torch import Tensor
from torch._dynamo.backends.registry import lookup_backend

from infuse.engine.engine import Engine
from infuse.network.parts import Compiled, bare, gated, residual, tokens


class Counted:
    """torch's back end that traces, plans and compiles nothing; how often it was asked."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.graphs += 1
        return lookup_backend("aot_eager")(graph, inputs)


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


def compiled(made: Engine) -> Counted:
    there = made.store.base("tiny").network
    counted = Counted()
    there.parts = Compiled(counted)
    return counted


def test_parts_of_tensors_are_the_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda part, **_: part)
    there, made = world("sd1"), world("sd1").engine()
    asked = recipe(there, there.kinds["controlnet"](), there.kinds["t2i-adapter"](), steps=2)
    plain = made.run(asked).latents
    network = made.store.base("tiny").network
    network.parts = parts = Compiled()
    same(made.run(asked).latents, plain)
    assert {make for make, _ in parts._made} == {residual, tokens, gated}


def test_whoever_has_more_to_say_is_computed_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda part, **_: pytest.fail("a layer that listens was compiled"))
    there, made = world("sd1"), world("sd1").engine()
    asked = recipe(there, there.kinds["lora"](), steps=2)
    plain = made.run(asked).latents
    made.store.base("tiny").network.parts = Compiled()
    same(made.run(asked).latents, plain)
    layer = torch.nn.Linear(2, 2)
    assert bare(layer) and bare(None) and not bare(torch.nn.Linear(2, 2, bias=False))
    layer.register_forward_hook(lambda *_: None)
    assert not bare(layer) and not bare(torch.nn.Conv2d(2, 2, 3, stride=2, padding=1))


@pytest.mark.slow
def test_two_hundred_recipes_compile_nothing_new() -> None:
    """After a few: scales, curves, windows, prompts, steps, samplers, seeds, sets of conditions, sizes and numbers of pictures."""
    there, made, dice = world("sd1"), world("sd1").engine(), random.Random(5)
    counted = compiled(made)
    names = ("controlnet", "ip-adapter (plain)", "t2i-adapter", "controlnet-union (depth)")

    def drawn(some: list[str], **said: Any) -> Any:
        voices = [{"weight": dice.uniform(0.2, 1.5), "start": dice.choice([0.0, 0.5])} for _ in some]
        return recipe(
            there, *(there.kinds[n](**v) for n, v in zip(some, voices, strict=True)), seed=dice.randrange(99), steps=2, **said,
            prompt=" ".join(dice.choices(["red", "cube", "ball"], k=dice.randint(1, 9))), scheduler=dice.choice(["DDIM", "Euler", "UniPC"]),
        )  # fmt: skip

    for guidance in (1.0, 5.0):
        made.run(drawn(list(names), guidance=guidance))
        made.run(drawn([], guidance=guidance))
    made.run_all(drawn(list(names), guidance=4.0), drawn([], guidance=4.0))
    before = counted.graphs
    for i in range(100):
        some = [n for n in names if dice.random() < 0.5]
        two = [drawn(some, guidance=dice.choice([1.0, 3.0, 7.0])), drawn(names[: i % 3], guidance=dice.uniform(2, 9))]
        made.run_all(*two) if i % 2 else [made.run(one) for one in two]
    assert counted.graphs == before <= 16, (before, counted.graphs)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_kernels_give_the_same_numbers() -> None:
    """torch's own compiler, which writes C++ here."""
    there, made = world("sd1"), world("sd1").engine()
    asked = recipe(there, there.kinds["controlnet"](), there.kinds["ip-adapter (plain)"](), steps=2)
    plain = made.run(asked).latents
    made.store.base("tiny").network.parts = Compiled()
    same(made.run(asked).latents, plain)

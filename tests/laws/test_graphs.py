"""Recorded calls answer as computed ones do, and are few: other numbers, prompts, steps, samplers and windows record nothing new.

A GPU plays its kernels again without Python. Here a tape does the same with torch's operations: what Python multiplied by, and
which tensors it read, is fixed when it is recorded, so that whatever is stale shows.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kinds import WORLDS, world
from test_pairs import possible, recipe
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from infuse.engine.engine import Engine
from infuse.errors import RecipeError
from infuse.network.graphs import Graphs, rung
from infuse.network.unet import Network
from infuse.recipe import Recipe


class Tape(TorchDispatchMode):
    """Operations in the order in which they were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.said.append((func, args, kwargs or {}, out))
        return out


def taped(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    with Tape() as tape:
        answer = compute()

    def play() -> Tensor:
        made: dict[int, Any] = {}

        def now(value: Any) -> Any:
            return made.get(id(value), value)

        for func, args, kwargs, out in tape.said:
            new = func(*tree_map(now, args), **tree_map(now, kwargs))
            for before, after in zip(tree_flatten(out)[0], tree_flatten(new)[0], strict=True):
                made[id(before)] = after
        for _, _, _, out in tape.said:  # a GPU writes where it wrote
            for before in tree_flatten(out)[0]:
                if isinstance(before, Tensor) and all(
                    s or n == 1 for s, n in zip(before.stride(), before.shape, strict=True)
                ):
                    before.copy_(made[id(before)])
        return answer.clone()

    return play


def recording(made: Engine) -> tuple[Network, Graphs]:
    network = made.store.base("tiny").network
    network.graphs = Graphs(taped)
    return network, network.graphs


def same(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, atol=1e-10, rtol=1e-10)


CASES = [
    (name, kind)
    for name in WORLDS
    if name != "videocomposer"
    for kind in (
        ("controlnet", *world(name).own) if world(name).own and "controlnet" in world(name).kinds else world(name).kinds
    )
]
"""Every kind on each family's plain base; on others what they alone hear, and a ControlNet."""
QUICK = [("sd1", "controlnet")]


def check(name: str, kind: str) -> None:
    """Two recipes of other prompts and numbers, one after another, and both together."""
    there, made = world(name), world(name).engine()
    if not possible(name, recipe(there, there.kinds[kind]())):
        pytest.skip("not alone on this base")
    asked = [
        recipe(
            there,
            there.kinds[kind](),
            steps=6 if "strength" in kind else 3,
            **({} if there.recipe else {"prompt": p, "guidance": g}),
        )
        for p, g in (("a red cube", 3.0), ("a ball", 6.5))
    ]
    network = made.store.base("tiny").network
    begun = network.calls, network.branch_calls
    plain = [r.latents for a in asked for r in made.run_all(a)]
    computed = network.calls - begun[0], network.branch_calls - begun[1]
    network, graphs = recording(made)
    calls, branches = network.calls, network.branch_calls
    for before, one in zip(plain, asked, strict=True):
        same(made.run(one).latents, before)
    assert (network.calls - calls, network.branch_calls - branches) == computed
    if not kind.startswith("reference"):  # pictures beside rows are new in every step
        assert graphs.recorded and graphs.played
    for _ in range(
        3 if name == "sd1" and kind != "controlnet" else 1
    ):  # computed, computed and recorded with what it makes, played
        for before, one in zip(plain, made.run_all(*asked), strict=True):
            same(one.latents, before)
    for before, one in zip(plain, asked, strict=True):
        same(made.run(one).latents, before)
    if (played := [r for (_, makes), r in graphs._kept.items() if makes]) and not kind.startswith("reference"):
        recorded, before = graphs.recorded, graphs.played
        steps = network.calls
        made.run(asked[0])
        assert graphs.recorded == recorded and graphs.played - before == network.calls - steps, played


@pytest.mark.parametrize(("name", "kind"), QUICK, ids=lambda v: v)
def test_some_kinds_recorded(name: str, kind: str) -> None:
    check(name, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [c for c in CASES if c not in QUICK], ids=lambda v: v)
def test_every_kind_recorded(name: str, kind: str) -> None:
    check(name, kind)


@pytest.mark.slow
def test_two_hundred_recipes_record_nothing_new() -> None:
    """After every set of these conditions was met once: scales, curves, windows, prompts, steps, samplers and seeds are numbers."""
    there, made, dice = world("sd1"), world("sd1").engine(), random.Random(5)
    network, graphs = recording(made)
    graphs.most = 64

    def drawn(steps: int, **voices: dict[str, Any]) -> Recipe:
        return recipe(
            there, *(there.kinds[k](**v) for k, v in voices.items()), steps=steps, seed=dice.randrange(99),
            guidance=dice.uniform(1.5, 9), prompt=" ".join(dice.choices(["red", "cube", "ball", "wood"], k=dice.randint(1, 9))),
            scheduler=dice.choice(["DDIM", "Euler", "Euler a", "DPM++ 2M", "UniPC", "Heun"]),
        )  # fmt: skip

    names = ("controlnet", "ip-adapter (plain)", "t2i-adapter", "controlnet-union (depth)")
    sets = [[n for i, n in enumerate(names) if bits >> i & 1] for bits in range(16)]
    for some in [*sets, *sets]:  # the second time with what is made in a first call
        made.run(drawn(4, **{n: {} for n in some}))
    before = graphs.recorded
    for _ in range(200):
        voices = {n: {} for n in dice.choice(sets)}
        for voice in voices.values():
            begin = dice.choice([0.0, 0.0, 0.5])
            voice |= {
                "weight": dice.choice([dice.uniform(0.2, 1.5), {0: 0.3, 1: 1.0}]),
                "start": begin,
                "end": dice.choice([begin + 0.5, 1.0]),
            }
        made.run(drawn(dice.randint(2, 4), **voices))
    assert graphs.recorded == before, graphs.recorded - before
    assert network.graphs is graphs and graphs.played > 300


def test_rows_are_filled_up_to_few_widths() -> None:
    assert [rung(n) for n in (1, 2, 5, 7, 9, 64, 100)] == [1, 2, 6, 8, 12, 64, 100]


def test_compile_is_one_of_three_words() -> None:
    with pytest.raises(RecipeError, match="compile: 'turbo' is not known. Use 'auto' or 'off' or 'graphs'"):
        Engine(compile="turbo")


@pytest.mark.slow
def test_recordings_do_not_keep_what_has_left() -> None:
    there = world("sd1")
    made = there.engine(compile="graphs")
    network, graphs = recording(made)
    made.run(recipe(there, there.kinds["controlnet"](), steps=4))
    assert len(graphs) > 0 and network in made.asking.recorded
    made.unload("edges net")
    assert len(graphs) == 0

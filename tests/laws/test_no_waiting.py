"""A step never waits for the device: no value is read back, and all that is copied to it is the time.

There may be no GPU here. torch's "meta" device has no values at all: whoever reads one (`item`, `nonzero`, `tolist`) raises, and
what goes there is seen by a dispatch mode. Weights that change from step to step are one more copy each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
import torch
from kinds import WORLDS, world
from test_pairs import engine, possible, recipe
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from infuse.batch import collate
from infuse.constants import Constants
from infuse.spoken import Row

META = torch.device("meta")
CASES = [
    (name, kind)
    for name in WORLDS
    for kind in (
        ("controlnet", *world(name).own) if world(name).own and "controlnet" in world(name).kinds else world(name).kinds
    )
]
"""Every kind on each family's plain base; on others what they alone hear, and a ControlNet."""
QUICK = [("sd1", "ip-adapter (plain)")]


class Copies(TorchDispatchMode):
    """What crosses from the host to the device, and index tensors that would have to."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [a for a in flat((args, kwargs)) if a.ndim or func.overloadpacket.__name__ != "mul"]
        host, device = ([t for t in tensors if (t.device.type == "cpu") == (kind == "cpu")] for kind in ("cpu", "meta"))
        made = [o for o in flat(out) if o.device.type == "meta"]
        if any(t.ndim for t in host) and (device or made):
            self.seen.append(str(func))
        return out


def flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, list | tuple):
        return [t for v in value for t in flat(v)]
    return [t for v in value.values() for t in flat(v)] if isinstance(value, Mapping) else []


class Elsewhere:
    """The same things on the meta device, each once, so that what was one object stays one."""

    def __init__(self) -> None:
        self.moved: dict[int, Any] = {}
        self.held: list[Any] = []

    def __call__(self, value: Any) -> Any:
        if isinstance(value, Tensor | nn.Module) or is_dataclass(value):
            if id(value) not in self.moved:
                self.held.append(value)
                self.moved[id(value)] = self._move(value)
            return self.moved[id(value)]
        if isinstance(value, tuple):
            return tuple(self(v) for v in value)
        return value

    def _move(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(META)
        if isinstance(value, nn.Module):
            return copy.deepcopy(value).to(META)
        return replace(value, **{f.name: self(getattr(value, f.name)) for f in fields(value) if f.init})


def crossings(name: str, kind: str, steps: int = 3) -> list[list[str]]:
    """What crosses in each of some evaluations of a recipe with this condition."""
    there, made = world(name), engine(name)
    ticket = made.submit(recipe(there, there.kinds[kind](), steps=steps))
    try:
        rows = ticket.jobs[0].rows()
        network = made.store.base("tiny").network
    finally:
        ticket.cancel()
    go = Elsewhere()
    shell = copy.copy(network)
    shell.unet, shell.constants, shell._stacks = go(network.unet), Constants(), {}
    said = [go(r.ports) for r in rows]
    found = []
    for _ in range(steps):
        x, t = go(rows[0].x).clone(), torch.tensor(500.0)
        now = [Row(x, t, p) for p in said]
        with torch.no_grad(), Copies() as copies:
            shell.predict(collate(now, shell.spec, shell.constants))
        found.append(copies.seen)
    return found


def check(name: str, kind: str) -> None:
    if not possible(name, recipe(world(name), world(name).kinds[kind]())):
        pytest.skip("not alone on this base")
    first, *others = crossings(name, kind)
    assert first, "the laying out of rows is seen"
    for seen in others:
        assert len(seen) == 1, seen


@pytest.mark.parametrize(("name", "kind"), QUICK, ids=lambda v: v)
def test_some_kinds_copy_the_time_only(name: str, kind: str) -> None:
    check(name, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [c for c in CASES if c not in QUICK], ids=lambda v: v)
def test_every_kind_copies_the_time_only(name: str, kind: str) -> None:
    check(name, kind)


def test_reading_a_value_back_is_noticed() -> None:
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.zeros(3, device=META).sum().item()
    with Copies() as copies:
        torch.tensor([1, 0]).to(META)
    assert copies.seen

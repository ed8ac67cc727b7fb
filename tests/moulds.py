"""A network is built once in a process, and copied from a mould afterwards, for about a quarter of what a deepcopy
costs. Whoever asks has a copy of their own, the same weights, and torch's random numbers where building leaves them.
"""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
T = TypeVar("T")


class _Taker(pickle.Pickler):
    """Everything but tensors becomes bytes."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.tensors: list[torch.Tensor] = []

    def persistent_id(self, obj: Any) -> int | None:
        if not isinstance(obj, torch.Tensor):
            return None
        self.tensors.append(obj)
        return len(self.tensors) - 1


class _Giver(pickle.Unpickler):
    """Each load has tensors of its own. What is tied or shares memory does so in the copy, as after a deepcopy."""

    def __init__(self, file: io.BytesIO, tensors: list[torch.Tensor]):
        super().__init__(file)
        self.tensors, self.given = tensors, {}

    def persistent_load(self, pid: int) -> torch.Tensor:
        return copy.deepcopy(self.tensors[pid], self.given)


class Mould:
    """Copies of what `thing` is now."""

    def __init__(self, thing: Any):
        file = io.BytesIO()
        taker = _Taker(file)
        taker.dump(thing)
        self._bytes, self._tensors = file.getvalue(), taker.tensors

    def copy(self) -> Any:
        return _Giver(io.BytesIO(self._bytes), self._tensors).load()


def copied(thing: T) -> T:
    """A deepcopy of modules, faster; of what no pickle can hold (a test's own class), a deepcopy."""
    try:
        mould = Mould(thing)
    except (pickle.PicklingError, AttributeError, TypeError):
        return copy.deepcopy(thing)
    return mould.copy()


def moulded(build: Callable[P, T]) -> Callable[P, T]:
    """For a `build` that seeds torch itself: what it makes, and the random state it leaves, depend on its arguments alone."""

    @cache
    def mould(*args: Any, **named: Any) -> tuple[Mould, torch.Tensor]:
        made = build(*args, **named)
        return Mould(made), torch.get_rng_state()

    @wraps(build)
    def made(*args: P.args, **named: P.kwargs) -> T:
        taken, state = mould(*args, **named)
        torch.set_rng_state(state)
        return taken.copy()

    return made

"""What of a network call is no tensor, what it reads of caches, and the same call with other tensors in it.

For recordings (`network.graphs`): two calls of one outline are one computation of other numbers. Caches (keys and values of words,
embedded hints) count by what a call reads of them, not by all that is there.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

CACHES = ("cache", "kept")
"""Fields of what is told that hold what was made of it: a recording depends on what it reads of them, not on all that is there."""


@dataclass(eq=False)
class Outline:
    """What of things is no tensor; their tensors, and their caches, are gathered in the order in which they are met."""

    tensors: list[Tensor] = field(default_factory=list)
    caches: list[Any] = field(default_factory=list)
    seen: dict[int, int] = field(default_factory=dict)

    def of(self, value: Any, made: bool = False) -> Hashable:
        """made: it comes out of a cache, where dictionaries are caches, too."""
        if isinstance(value, Tensor):
            if id(value) not in self.seen:
                self.seen[id(value)] = len(self.tensors)
                self.tensors.append(value)
            return self.seen[id(value)], tuple(value.shape), value.stride(), value.dtype
        if isinstance(value, nn.Module):  # and where its weights are: one that was moved is another
            return id(value), next((p.data_ptr() for p in value.parameters()), 0)
        if isinstance(value, list | tuple):
            return tuple(self.of(v, made) for v in value)
        if isinstance(value, Noted) or (made and isinstance(value, Mapping)):
            self.caches.append(value)
            return "cache"
        if isinstance(value, Mapping):
            return tuple((k, self.of(v)) for k, v in value.items())
        if is_dataclass(value) and not isinstance(value, type):
            if id(value) in self.seen:
                return "again", self.seen[id(value)]
            self.seen[id(value)] = -len(self.seen)
            for f in fields(value):
                if f.name in CACHES:
                    self.caches.append(getattr(value, f.name))
            told = (self.of(getattr(value, f.name), made) for f in fields(value) if f.name not in CACHES)
            return type(value).__name__, *told
        return value if isinstance(value, Hashable) and not isinstance(value, slice) else repr(value)

    def all(self) -> list[list[tuple[Hashable, Hashable]]]:
        """What was read of each cache (`Noted`) that was there before, and of those that lie in them."""
        out = list[list[tuple[Hashable, Hashable]]]()
        for cache in self.caches:  # grows meanwhile
            out.append([(k, self.of(v, True)) for k, v in cache.before.items()])
        return out

    def read(self, reads: list[list[tuple[Hashable, Hashable]]]) -> bool:
        """The same of other caches: is it there, and as it was?"""
        return all(
            key in cache and self.of(cache[key], True) == outline
            for cache, keys in zip(self.caches, reads, strict=False)  # grows meanwhile
            for key, outline in keys
        )


class Noted:
    """A cache that notes what is read of it."""

    def __init__(self, cache: Any, seen: Seen) -> None:
        self.cache, self.seen, self.read, self.made = cache, seen, dict[Any, Any](), set[Any]()

    @property
    def before(self) -> dict[Any, Any]:
        """What was read, and not made in this call."""
        return {k: v for k, v in self.read.items() if k not in self.made}

    def __contains__(self, key: Any) -> bool:
        return key in self.cache

    def __getitem__(self, key: Any) -> Any:
        if key not in self.read:
            self.read[key] = self.seen.twin(self.cache[key], True)
        return self.read[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.seen.made = True
        self.made.add(key)
        self.cache[key] = value
        self.read.pop(key, None)

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self.cache else default

    def setdefault(self, key: Any, value: Any) -> Any:
        if key not in self.cache:
            self[key] = value
        return self[key]


class Seen:
    """What a computation looked up, and whether it `made` anything that it kept."""

    def __init__(self) -> None:
        self.made = False
        self._twins: dict[int, Any] = {}

    def twin(self, value: Any, cached: bool = False) -> Any:
        """The same thing with the same tensors in it, its caches noted."""
        if isinstance(value, list | tuple):
            return type(value)(self.twin(v, cached) for v in value)
        if cached and isinstance(value, Mapping):
            return Noted(value, self)
        if is_dataclass(value) and not isinstance(value, type | nn.Module):
            if id(value) not in self._twins:
                twin = self._twins[id(value)] = copy(value)
                for f in fields(value):
                    now = getattr(value, f.name)
                    now = Noted(now, self) if f.name in CACHES else self.twin(now, cached)
                    object.__setattr__(twin, f.name, now)
            return self._twins[id(value)]
        return value


def placed(value: Any, places: dict[int, Any]) -> Any:
    """A noted thing with these tensors in the place of its own (by id), and of its caches what was read."""
    if isinstance(value, Noted):
        return {k: placed(v, places) for k, v in value.before.items()}
    if isinstance(value, list | tuple):
        return type(value)(placed(v, places) for v in value)
    if isinstance(value, Mapping):
        return {k: placed(v, places) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type | nn.Module) and id(value) not in places:
        twin = places[id(value)] = copy(value)
        for f in fields(value):
            object.__setattr__(twin, f.name, placed(getattr(value, f.name), places))
    return places.get(id(value), value)


def copied(value: Any, memo: dict[int, Any]) -> Any:
    """What a recording made, as a thing of its own: its tensors are written over when it is played again. memo: by id, what stands
    for a thing."""
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, Tensor):
        memo[id(value)] = out = _apart(value)
        return out
    if isinstance(value, list | tuple):
        return type(value)(copied(v, memo) for v in value)
    if isinstance(value, Mapping | WeakKeyDictionary):
        return type(value)({k: copied(v, memo) for k, v in value.items()})  # type: ignore[call-arg]
    if is_dataclass(value) and not isinstance(value, type | nn.Module):
        memo[id(value)] = out = copy(value)
        for f in fields(value):
            object.__setattr__(out, f.name, copied(getattr(value, f.name), memo))
        return out
    return value


def _apart(t: Tensor) -> Tensor:
    """The same numbers in a memory of their own, with the same strides."""
    thin = t[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in t.stride())]
    out = torch.empty_strided(thin.shape, thin.stride(), dtype=t.dtype, device=t.device).copy_(thin)
    return out.expand(t.shape)

"""A call as it was, with other numbers: what a GPU did for one layout of rows is recorded, and played again for the next.

Small kernels take a GPU less time than Python needs to ask for them. Between the edges of windows only the latent, the time and
weights change; so they are written into the places that a recording reads. A layout is everything about a batch that is no
tensor: which rows, branches, adapters, how many tokens, the few numbers that Python multiplies by. Other prompts, pictures, scales,
steps and samplers are the same layout. Source: CUDA graphs as torch.cuda.graph has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from infuse.spoken import Batch

CACHES = ("cache", "kept")
"""Fields of what is told that hold what was made of it: a recording depends on what it reads of them, not on all that is there."""
MOST = 24
"""Recordings that are kept; those played longest ago leave."""
LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Rows of a recorded call: others are filled up to the next width, so that few recordings serve all."""


def rung(rows: int) -> int:
    """The width that a call of so many rows is recorded at."""
    return next((w for w in LADDER if w >= rows), rows)


class Recorder(Protocol):
    """How a computation is recorded; what comes back plays it again, and returns the same tensor with new numbers in it."""

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]: ...


class Cuda:
    """Recordings of one GPU, which share their memory: they are played one after another."""

    def __init__(self) -> None:
        self.pool: Any = None

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels here, where it may take memory
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            answer = compute()
        self.pool = self.pool or graph.pool()

        def play() -> Tensor:
            graph.replay()
            return answer

        return play


@dataclass(eq=False)
class Recording:
    """One layout: the places that its computation reads, what is in them now, and how to play it."""

    reads: list[list[tuple[Hashable, Hashable]]]
    """Of each cache in the order in which they are met: the keys that are read, and the outline of what lies there."""
    places: list[Tensor]
    filled: list[Tensor]
    """The tensors whose values are there: whatever is still the same object is not copied again."""
    play: Callable[[], Tensor]
    held: Any
    """What else it reads: it must not go."""

    def fill(self, tensors: Sequence[Tensor]) -> None:
        for i, (place, now, before) in enumerate(zip(self.places, tensors, self.filled, strict=True)):
            if now is not before:
                place.copy_(now, non_blocking=True)
                self.filled[i] = now


class Graphs:
    """Recordings of one network's calls. What is met for the first time is computed; it is recorded as soon as that makes nothing
    that would be kept (keys and values of words, embedded hints), since a recording would never make it again."""

    def __init__(self, recorder: Recorder, most: int = MOST) -> None:
        self.recorder, self.most = recorder, most
        self._kept: OrderedDict[Hashable, Recording] = OrderedDict()
        self.recorded = self.played = 0

    def predict(self, network: Any, batch: Batch) -> Tensor:
        """The network's answer (`network.compute`), (b c h w)."""
        if batch.shared or batch.shortcut is not None:  # what runs beside a row is another picture in every step
            return network.compute(batch)
        found = Outline()
        key = found.of((batch, network.unet))
        kept = self._kept.get(key)
        if kept is None or not found.read(kept.reads):
            seen = Seen()
            twin = seen.twin(batch)
            answer = network.compute(twin)
            if not seen.made:
                self._kept[key] = self._record(network, twin)
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
            return answer
        self._kept.move_to_end(key)
        kept.fill(found.tensors)
        self.played += 1
        return kept.play().clone()

    def _record(self, network: Any, twin: Batch) -> Recording:
        """Record a call that was computed once, of which is known what it reads."""
        found = Outline()
        found.of((twin, network.unet))
        reads = found.all()
        places = [t.clone() for t in found.tensors]  # as they lie in memory
        mine = placed(twin, {id(t): p for t, p in zip(found.tensors, places, strict=True)})
        self.recorded += 1
        play = self.recorder(lambda: network.compute(mine))
        return Recording(reads, places, list(found.tensors), play, (mine, dict(network._stacks)))

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


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
        """What was read of each cache (`Noted`), and of those that lie in them."""
        out = list[list[tuple[Hashable, Hashable]]]()
        for cache in self.caches:  # grows meanwhile
            out.append([(k, self.of(v, True)) for k, v in cache.read.items()])
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
        self.cache, self.seen, self.read = cache, seen, dict[Any, Any]()

    def __contains__(self, key: Any) -> bool:
        return key in self.cache

    def __getitem__(self, key: Any) -> Any:
        if key not in self.read:
            self.read[key] = self.seen.twin(self.cache[key], True)
        return self.read[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.seen.made = True
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
        return {k: placed(v, places) for k, v in value.read.items()}
    if isinstance(value, list | tuple):
        return type(value)(placed(v, places) for v in value)
    if isinstance(value, Mapping):
        return {k: placed(v, places) for k, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type | nn.Module) and id(value) not in places:
        twin = places[id(value)] = copy(value)
        for f in fields(value):
            object.__setattr__(twin, f.name, placed(getattr(value, f.name), places))
    return places.get(id(value), value)

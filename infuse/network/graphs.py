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
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from infuse.spoken import Batch

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
        if batch.shared:  # what runs beside a row is another picture in every step
            return network.compute(batch)
        tensors: list[Tensor] = []
        key = outline((batch, network.unet), tensors, {})
        found = self._kept.get(key)
        if found is None:
            answer = network.compute(batch)
            if outline((batch, network.unet), [], {}) == key:
                self._kept[key] = self._record(network, batch, tensors)
                while len(self._kept) > self.most:
                    self._kept.popitem(last=False)
            return answer
        self._kept.move_to_end(key)
        found.fill(tensors)
        self.played += 1
        return found.play().clone()

    def _record(self, network: Any, batch: Batch, tensors: Sequence[Tensor]) -> Recording:
        places = [t.clone() for t in tensors]  # as they lie in memory
        mine = filled(batch, iter(places), {})
        self.recorded += 1
        play = self.recorder(lambda: network.compute(mine))
        return Recording(places, list(tensors), play, (mine, dict(network._stacks)))

    def clear(self) -> None:
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


def outline(value: Any, tensors: list[Tensor], seen: dict[int, int]) -> Hashable:
    """What of a thing is no tensor; its tensors are appended in order."""
    if isinstance(value, Tensor):
        if id(value) not in seen:
            seen[id(value)] = len(tensors)
            tensors.append(value)
        return seen[id(value)], tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, nn.Module):  # and where its weights are: one that was moved is another
        return id(value), next((p.data_ptr() for p in value.parameters()), 0)
    if isinstance(value, list | tuple):
        return tuple(outline(v, tensors, seen) for v in value)
    if isinstance(value, Mapping | WeakKeyDictionary):
        return tuple(
            (id(k) if isinstance(k, nn.Module) else str(k), outline(v, tensors, seen)) for k, v in value.items()
        )
    if is_dataclass(value) and not isinstance(value, type):
        if id(value) in seen:
            return "again", seen[id(value)]
        seen[id(value)] = -len(seen)
        return type(value).__name__, *(outline(getattr(value, f.name), tensors, seen) for f in fields(value))
    return value if isinstance(value, Hashable) and not isinstance(value, slice) else repr(value)


def filled(value: Any, places: Any, seen: dict[int, Any]) -> Any:
    """The same thing with these tensors in it, in the order of `outline`."""
    if isinstance(value, Tensor) or (is_dataclass(value) and not isinstance(value, type)):
        if id(value) not in seen:
            if isinstance(value, Tensor):
                seen[id(value)] = next(places)
            else:
                twin = seen[id(value)] = copy(value)
                for f in fields(value):
                    object.__setattr__(twin, f.name, filled(getattr(value, f.name), places, seen))
        return seen[id(value)]
    if isinstance(value, nn.Module):
        return value
    if isinstance(value, list | tuple):
        return type(value)(filled(v, places, seen) for v in value)
    if isinstance(value, WeakKeyDictionary):
        out: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        for k, v in value.items():
            out[k] = filled(v, places, seen)
        return out
    if isinstance(value, Mapping):
        return {k: filled(v, places, seen) for k, v in value.items()}
    return value

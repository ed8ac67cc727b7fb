"""A call as it was, with other numbers: what a GPU did for one layout of rows is recorded, and played again for the next.

Small kernels take a GPU less time than Python needs to ask for them. Between the edges of windows only the latent, the time and
weights change; so they are written into the places that a recording reads. A layout is everything about a batch that is no
tensor: which rows, branches, adapters, how many tokens, the few numbers that Python multiplies by. Other prompts, pictures, scales,
steps and samplers are the same layout. Source: CUDA graphs as torch.cuda.graph has them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import RLock
from typing import Any, Protocol, TypeVar
from weakref import WeakSet

import torch
from torch import Tensor

from infuse.constants import HELD
from infuse.network.outlines import Outline, Seen, copied, placed
from infuse.notices import note
from infuse.spoken import Batch

T = TypeVar("T")
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

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self._made: WeakSet[Any] = WeakSet()
        """Those that are still there: with the last of them their memory goes."""

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels here, where it may take memory
            compute()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        pool = next((other.pool() for other in self._made), None)
        with torch.cuda.graph(
            graph, pool=pool, capture_error_mode="thread_local"
        ):  # others may encode and decode meanwhile
            answer = compute()
        self._made.add(graph)

        def play() -> Tensor:
            graph.replay()
            return answer

        return play


class Aside:
    """What is computed on a stream of its own while a call is recorded: small kernels of both run side by side when it is played.
    Elsewhere it is computed at once."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.stream = torch.cuda.Stream(device)

    def __call__(self, compute: Callable[[], T]) -> Callable[[], T]:
        if not torch.cuda.is_current_stream_capturing():
            return at_once(compute)
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            value = compute()

        def joined() -> T:
            torch.cuda.current_stream().wait_stream(self.stream)
            return value

        return joined


def at_once(compute: Callable[[], T]) -> Callable[[], T]:
    """Computed now; what comes back returns it."""
    value = compute()
    return lambda: value


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
    latest: Callable[[], Batch] | None = None
    """Of a recording that makes what is kept: the batch in whose caches that lies when it was played."""

    def fill(self, tensors: Sequence[Tensor]) -> None:
        for i, (place, now, before) in enumerate(zip(self.places, tensors, self.filled, strict=True)):
            if now is not before:
                place.copy_(now, non_blocking=True)
                self.filled[i] = now


class Graphs:
    """Recordings of one network's calls. What is met for the first time is computed, and recorded as soon as that makes nothing that
    would be kept (keys and values of words, embedded hints). A layout that makes such things again, for other words, has a second
    recording, which makes them too; they are copied out of it."""

    def __init__(self, recorder: Recorder, most: int = MOST) -> None:
        self.recorder, self.most = recorder, most
        self._kept: OrderedDict[Hashable, Recording] = OrderedDict()
        self._met: OrderedDict[Hashable, None] = OrderedDict()
        """Layouts whose calls made something."""
        self._refused = set[Hashable]()
        self._lock = RLock()
        """Places are filled and played by one at a time: two engines may share a network."""
        self.recorded = self.played = 0

    def predict(self, network: Any, batch: Batch) -> Tensor:
        """The network's answer (`network.compute`), (b c h w)."""
        if batch.shared or batch.shortcut is not None:  # what runs beside a row is another picture in every step
            return network.compute(batch)
        with self._lock:
            return self._answer(network, batch)

    def _answer(self, network: Any, batch: Batch) -> Tensor:
        for makes in (False, True):
            found = Outline()
            key = found.of((batch, network.unet)), makes
            kept = self._kept.get(key)
            if kept is not None and found.read(kept.reads):
                return self._play(key, kept, found)
        seen = Seen()
        twin = seen.twin(batch)
        answer = network.compute(twin)
        if not seen.made:
            self._keep((key[0], False), network, twin)
        elif key in self._met:
            self._keep(key, network, twin)
        self._met[key] = None
        while len(self._met) > 4 * self.most:
            self._met.popitem(last=False)
        return answer

    def _play(self, key: Hashable, kept: Recording, found: Outline) -> Tensor:
        self._kept.move_to_end(key)
        kept.fill(found.tensors)
        self.played += 1
        answer = kept.play().clone()
        if kept.latest is not None:
            made = Outline()
            made.of(kept.latest())
            made.read(kept.reads)
            own = {id(p): t for p, t in zip(kept.places, found.tensors, strict=True)}
            for cache, there, reads in zip(found.caches, made.caches, kept.reads, strict=True):
                read = {k for k, _ in reads}
                for k, v in list(there.items()):
                    if k not in read:
                        cache[k] = copied(v, own)
        return answer

    def _keep(self, key: tuple[Hashable, bool], network: Any, twin: Batch) -> None:
        """Record a call that was computed once. Where that cannot be, such calls go on being computed."""
        if key in self._refused:
            return
        try:
            self._kept[key] = self._record(network, twin, key[1])
        except RuntimeError as error:  # no memory for it, or an operation that cannot be recorded
            self._refused.add(key)
            note(
                f"a call could not be recorded and is computed each time ({str(error).splitlines()[0][:200]}). It takes longer; nothing else changes."
            )
            return
        while len(self._kept) > self.most:
            self._kept.popitem(last=False)

    def _record(self, network: Any, twin: Batch, makes: bool) -> Recording:
        """A call of which is known what it reads. makes: and what it makes is made again."""
        found = Outline()
        found.of((twin, network.unet))
        reads = found.all()
        places = [t.clone() for t in found.tensors]  # as they lie in memory
        at = {id(t): p for t, p in zip(found.tensors, places, strict=True)}
        mine = [placed(twin, dict(at))]

        def compute() -> Tensor:
            if makes:
                mine[0] = placed(twin, dict(at))
            return network.compute(mine[0])

        held: list[Any] = [mine, dict(network._stacks)]
        token = HELD.set(held)
        try:
            play = self.recorder(compute)
        finally:
            HELD.reset(token)
        self.recorded += 1
        return Recording(reads, places, list(found.tensors), play, held, (lambda: mine[0]) if makes else None)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._refused.clear()

    def __len__(self) -> int:
        return len(self._kept)

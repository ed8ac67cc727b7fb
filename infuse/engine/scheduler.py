"""Which jobs take the next network call? Policy only: no tensors, no clock of its own, tested in microseconds.

Jobs of one bucket (weights, latent shape) can share a call. Buckets take turns; within one, the oldest job goes first,
and as many rows fit into a call as the width allows.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Waiting:
    """A job that waits for an answer: who, in which bucket, how many rows it brings, when it came."""

    job: Hashable
    bucket: Hashable
    rows: int
    arrived: int


@dataclass
class Scheduler:
    """First come, first served within a bucket; buckets in turn, so that a large one cannot starve the others."""

    max_rows: int = 64
    _last: dict[Hashable, int] = field(default_factory=dict)
    _turn: int = 0

    def pick(self, waiting: Sequence[Waiting]) -> list[Hashable]:
        """Jobs of one bucket for the next call; at least one if any waits, even if it alone exceeds `max_rows`."""
        if not waiting:
            return []
        self._turn += 1
        bucket = min(waiting, key=lambda w: (self._last.get(w.bucket, 0), w.arrived)).bucket
        self._last = {w.bucket: self._last.get(w.bucket, 0) for w in waiting} | {bucket: self._turn}
        picked, room = [], self.max_rows
        for w in sorted((w for w in waiting if w.bucket == bucket), key=lambda w: w.arrived):
            if picked and w.rows > room:
                break
            picked.append(w.job)
            room -= w.rows
        return picked

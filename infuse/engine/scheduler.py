"""Which jobs take the next network call? Policy only: no tensors, no clock of its own, tested in microseconds.

Jobs of one bucket (weights, latent shape) can share a call. Every second call goes to the bucket of the job that has
waited longest, so that newcomers never starve it; the others go round. Within a bucket, tickets take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Waiting:
    """A job that waits for an answer: who, in which bucket, of which ticket, how many rows it brings, when it came."""

    job: Hashable
    bucket: Hashable
    ticket: Hashable
    rows: int
    arrived: int


@dataclass
class Scheduler:
    """Buckets in turn, tickets in turn, a ticket's jobs in the order of their arrival."""

    max_rows: int = 64
    _buckets: dict[Hashable, int] = field(default_factory=dict)
    """The turn in which each bucket that waits was served last, or came."""
    _tickets: dict[Hashable, int] = field(default_factory=dict)
    """How many picks of jobs lie before the last one of each ticket, or before it came."""
    _turn: int = 0
    _picks: int = 0

    def pick(self, waiting: Sequence[Waiting], width: Callable[[Hashable], int] | None = None) -> list[Hashable]:
        """Jobs of one bucket for the next call; at least one if any waits, even if it alone is wider than the call.

        width: rows that a call of this bucket may have, if it is not `max_rows`.
        """
        if not waiting:
            return []
        self._buckets = {w.bucket: self._buckets.get(w.bucket, self._turn) for w in waiting}
        self._tickets = {w.ticket: self._tickets.get(w.ticket, self._picks) for w in waiting}
        self._turn += 1
        oldest_first = sorted(waiting, key=lambda w: w.arrived)
        if self._turn % 2:
            bucket = oldest_first[0].bucket
        else:
            bucket = min(oldest_first, key=lambda w: self._buckets[w.bucket]).bucket
        self._buckets[bucket] = self._turn
        picked, room = [], self.max_rows if width is None else width(bucket)
        for w in self._in_turn([w for w in oldest_first if w.bucket == bucket]):
            if picked and w.rows > room:
                continue
            picked.append(w.job)
            room -= w.rows
            self._picks += 1
            self._tickets[w.ticket] = self._picks
        return picked

    def _in_turn(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """One job of each ticket, then a second of each, ...; first the tickets that were served longest ago."""
        jobs: dict[Hashable, list[Waiting]] = {}
        for w in sorted(waiting, key=lambda w: (self._tickets[w.ticket], w.arrived)):
            jobs.setdefault(w.ticket, []).append(w)
        rounds = ((i, rank, w) for rank, mine in enumerate(jobs.values()) for i, w in enumerate(mine))
        return [w for _, _, w in sorted(rounds, key=lambda r: r[:2])]

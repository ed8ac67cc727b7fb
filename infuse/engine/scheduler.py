"""Which jobs take the next network call? Policy only: no tensors, no clock of its own, tested in microseconds.

Jobs of one bucket (weights, latent shape) can share a call. The most urgent deadline that can still be met goes first, and
may interrupt whoever is running after any of its evaluations. Others join while the measured cost of a call says that so
more of them are done in time. Whoever is too late already waits for what is left over, but for a quarter of the time calls
carry whoever came first: they are late, not lost.

Without deadlines or costs, every second call goes to the bucket of the job that has waited longest, so that newcomers
never starve it; the others go round. Within a bucket, tickets take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heapreplace
from math import inf
from typing import NamedTuple

WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Numbers of jobs in a call that are compared, besides all of them."""
AHEAD = 64
"""Jobs for which a plan is made: the most urgent ones. Plans are made for each call, and must cost nothing beside it."""


class Waiting(NamedTuple):
    """A job that waits for an answer: who, in which bucket, of which ticket, how many rows it brings, when it came."""

    job: Hashable
    bucket: Hashable
    ticket: Hashable
    rows: int
    arrived: int
    deadline: float = inf
    """When it should be done, on the clock that `pick` is told."""
    left: int = 1
    """Evaluations that it needs, this one included."""
    cost: float | None = None
    """Work of this evaluation: its rows, and what branch networks do for them, in rows. None: its rows."""

    @property
    def work(self) -> float:
        return float(self.rows) if self.cost is None else self.cost


@dataclass
class Scheduler:
    """The most urgent first, as wide as pays; a share of the time in the order of arrival."""

    max_rows: int = 64
    share: float = 0.25
    """Of the time of calls, in which whoever came first takes part, in time or late."""
    _buckets: dict[Hashable, int] = field(default_factory=dict)
    """The turn in which each bucket that waits was served last, or came."""
    _tickets: dict[Hashable, int] = field(default_factory=dict)
    """How many picks of jobs lie before the last one of each ticket, or before it came."""
    _turn: int = 0
    _picks: int = 0
    _owed: float = 0.0
    """Seconds of calls that whoever came first has not had of this share."""

    def pick(
        self,
        waiting: Sequence[Waiting],
        width: Callable[[Hashable], int] | None = None,
        now: float = 0.0,
        seconds: Callable[[Hashable, float], float] | None = None,
    ) -> list[Hashable]:
        """Jobs of one bucket for the next call; at least one if any waits, even if it alone is wider than the call.

        width: rows that a call of this bucket may have, if it is not `max_rows`. now, seconds: the time, and what a call of
        a bucket takes for so much work; without them, deadlines are not heeded.
        """
        if not waiting:
            return []
        self._buckets = {w.bucket: self._buckets.get(w.bucket, self._turn) for w in waiting}
        self._tickets = {w.ticket: self._tickets.get(w.ticket, self._picks) for w in waiting}
        self._turn += 1
        if seconds is None or all(w.deadline == inf for w in waiting):
            bucket, line = self._by_turns(waiting)
            most = len(line)
        else:
            bucket, line, most = self._by_deadlines(waiting, now, seconds)
        self._buckets[bucket] = self._turn
        picked, room = [], self.max_rows if width is None else width(bucket)
        for w in line:
            if len(picked) == most:
                break
            if picked and w.rows > room:
                continue
            picked.append(w)
            room -= w.rows
            self._picks += 1
            self._tickets[w.ticket] = self._picks
        if seconds is not None:
            took, first = seconds(bucket, sum(w.work for w in picked)), min(waiting, key=lambda w: w.arrived)
            self._owed += self.share * took - (took if first in picked else 0)
            self._owed = min(max(self._owed, -4 * took), 4 * took)  # neither a debt nor a claim is old
        return [w.job for w in picked]

    def _by_turns(self, waiting: Sequence[Waiting]) -> tuple[Hashable, list[Waiting]]:
        oldest_first = sorted(waiting, key=lambda w: w.arrived)
        if self._turn % 2:
            bucket = oldest_first[0].bucket
        else:
            bucket = min(oldest_first, key=lambda w: self._buckets[w.bucket]).bucket
        return bucket, self._in_turn([w for w in oldest_first if w.bucket == bucket])

    def _by_deadlines(
        self, waiting: Sequence[Waiting], now: float, seconds: Callable[[Hashable, float], float]
    ) -> tuple[Hashable, list[Waiting], int]:
        """(bucket, whoever may take part, how many of them)."""
        first = min(waiting, key=lambda w: w.arrived)
        urgent = sorted(waiting, key=lambda w: (w.deadline, w.arrived))
        for w in urgent:  # not for long: those who cannot make it any more are few, or else everybody is late
            if now + w.left * seconds(w.bucket, w.work) <= w.deadline:
                lead = w
                break
        else:
            lead = first
        carried = self._owed > 0
        if carried and first.bucket != lead.bucket:
            lead = first
        mine = [w for w in urgent if w.bucket == lead.bucket]
        if all(w.ticket == lead.ticket for w in mine):  # they are waited for together
            return lead.bucket, mine, len(mine)
        kept, most = self._plan(mine, now, lambda work: seconds(lead.bucket, work))
        chosen = set(map(id, kept))
        line = kept + rounds([w for w in mine if id(w) not in chosen])
        if carried and first.bucket == lead.bucket and first not in line[:most]:
            line, most = [first, *(w for w in line if w is not first)], most + 1
        return lead.bucket, line, most

    def _plan(
        self, urgent: Sequence[Waiting], now: float, seconds: Callable[[float], float]
    ) -> tuple[list[Waiting], int]:
        """(who can be done in time, in the order of their deadlines; jobs of a call), at the width at which most are.

        For each width, jobs are laid out on so many places: each begins when a place is free, and is left out if it would be
        late. Between widths that serve as many, the one that does a job's work in the least time decides.
        """
        n, ahead = len(urgent), urgent[:AHEAD]
        each = sum(w.work for w in urgent) / n
        best: tuple[tuple[int, float], list[Waiting], int] = ((-1, 0.0), [], 1)
        for k in (*(k for k in WIDTHS if k < n), n):
            call, places, kept = seconds(k * each), [now] * k, []
            for w in ahead:
                done = places[0] + w.left * call
                if done <= w.deadline:
                    heapreplace(places, done)
                    kept.append(w)
            best = max(best, ((len(kept), -call / k), kept, k), key=lambda b: b[0])
        return best[1], best[2]

    def _in_turn(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """One job of each ticket, then a second of each, ...; first the tickets that were served longest ago."""
        return rounds(sorted(waiting, key=lambda w: (self._tickets[w.ticket], w.arrived)), sort=False)


def rounds(waiting: Sequence[Waiting], sort: bool = True) -> list[Waiting]:
    """One job of each ticket, then a second of each, ...; tickets as they come, or in the order of their arrival."""
    jobs: dict[Hashable, list[Waiting]] = {}
    for w in sorted(waiting, key=lambda w: w.arrived) if sort else waiting:
        jobs.setdefault(w.ticket, []).append(w)
    places = ((i, rank, w) for rank, mine in enumerate(jobs.values()) for i, w in enumerate(mine))
    return [w for _, _, w in sorted(places, key=lambda r: r[:2])]

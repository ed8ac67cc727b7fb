"""Which jobs take the next network call? Policy only: no tensors, no clock of its own, tested in microseconds.

Jobs of one bucket (weights, latent shape) can share a call. Each has a promise: its deadline while that can be met, and
then a second one, some times the mean work of a request later, which weighs twice. The earliest promise goes first, and may
interrupt whoever is running after any of its evaluations. Calls are as wide as keeps most promises by the measured cost of
calls; where not all can be kept, the longest of those that would still have a second one are put off. Whoever can keep
neither is served from the oldest on, but for no more than three quarters of the time: others are promised something, too.

Without deadlines or costs, every second call goes to the bucket of the job that has waited longest, so that newcomers
never starve it; the others go round. Within a bucket, tickets take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
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
    came: float = 0.0
    """When it came, on that clock."""
    alone: float = 0.0
    """Seconds that its ticket takes if it has the machine to itself."""

    @property
    def work(self) -> float:
        return float(self.rows) if self.cost is None else self.cost


@dataclass
class Scheduler:
    """The earliest promise first, as wide as pays; a share of the time for whoever can keep none."""

    max_rows: int = 64
    share: float = 0.75
    """Of the time of calls, in which the oldest of those that can keep no promise takes part, at most."""
    patience: float = 7.0
    """The second promise: done so many times the mean time of a request after what it takes alone. A queue served one by
    one at 70 % load lets one in a thousand wait for 9 to 11 (Poisson arrivals, 20 to 50 steps)."""
    _buckets: dict[Hashable, int] = field(default_factory=dict)
    """The turn in which each bucket that waits was served last, or came."""
    _tickets: dict[Hashable, int] = field(default_factory=dict)
    """How many picks of jobs lie before the last one of each ticket, or before it came."""
    _turn: int = 0
    _picks: int = 0
    _owed: float = 0.0
    """Seconds of calls that the oldest without a promise has not had of this share."""
    _alone: dict[Hashable, float] = field(default_factory=dict)
    """Seconds that each ticket which waits takes alone."""
    _mean: float | None = None
    """Of those of the last fifty or so that left."""

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
            most, oldest = len(line), None
        else:
            bucket, line, most, oldest = self._by_deadlines(waiting, now, seconds)
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
        if seconds is None or oldest is None:
            self._owed = 0.0
        else:
            took = seconds(bucket, sum(w.work for w in picked))
            self._owed += self.share * took - (took if oldest in picked else 0)
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
    ) -> tuple[Hashable, list[Waiting], int, Waiting | None]:
        """(bucket, whoever may take part, how many of them, the oldest that can keep no promise)."""
        promised, lost = self._promises(waiting, now, seconds)
        oldest = min(lost, key=lambda w: w.arrived, default=None)
        carried = oldest if oldest is not None and self._owed > 0 else None
        lead = promised[0].job if promised else oldest
        assert lead is not None, "whoever waits is promised something or lost"
        if carried is not None and carried.bucket != lead.bucket:
            lead = carried
        mine = [w for w in waiting if w.bucket == lead.bucket]
        if all(w.ticket == lead.ticket for w in mine):  # they are waited for together
            return lead.bucket, sorted(mine, key=lambda w: (w.deadline, w.arrived)), len(mine), oldest
        each, ahead = (
            sum(w.work for w in mine) / len(mine),
            [p for p in promised if p.job.bucket == lead.bucket][:AHEAD],
        )
        kept, most = plan(ahead, len(mine), lambda k: seconds(lead.bucket, k * each), now)
        chosen = set(map(id, kept))
        line = kept + rounds([w for w in mine if id(w) not in chosen])
        if carried is not None and carried.bucket == lead.bucket and carried not in line[:most]:
            line = [carried, *(w for w in line if w is not carried)]
        return lead.bucket, line, most, oldest

    def _promises(
        self, waiting: Sequence[Waiting], now: float, seconds: Callable[[Hashable, float], float]
    ) -> tuple[list[Promise], list[Waiting]]:
        """(promises that each could keep if it were alone, the earliest first; those who have none)."""
        alone = {w.ticket: w.alone for w in waiting}
        for gone in self._alone.keys() - alone.keys():
            old = self._alone[gone] if self._mean is None else self._mean
            self._mean = old + 0.02 * (self._alone[gone] - old)
        self._alone = alone
        extra = self.patience * (sum(alone.values()) / len(alone) if self._mean is None else self._mean)
        promised, lost = [], []
        for w in waiting:
            done, second = now + w.left * seconds(w.bucket, w.work), w.came + w.alone + extra
            if done <= w.deadline:
                promised.append(Promise(w.deadline, w.arrived, False, w))
            elif done <= second:
                promised.append(Promise(second, w.arrived, True, w))
            else:
                lost.append(w)
        return sorted(promised, key=lambda p: p[:2]), lost

    def _in_turn(self, waiting: Sequence[Waiting]) -> list[Waiting]:
        """One job of each ticket, then a second of each, ...; first the tickets that were served longest ago."""
        return rounds(sorted(waiting, key=lambda w: (self._tickets[w.ticket], w.arrived)), sort=False)


class Promise(NamedTuple):
    """Until when a job is done."""

    until: float
    arrived: int
    second: bool
    job: Waiting


def plan(promised: Sequence[Promise], n: int, call: Callable[[int], float], now: float) -> tuple[list[Waiting], int]:
    """(whose promise is kept, the earliest first; jobs of a call), at the width at which most are, second ones twice.

    For each width, jobs are added in the order of their promises; where one would be broken, the longest that has a second
    one left is put off (Moore 1968: the fewest are late on one machine). Between widths that keep as much, the one that does
    a job's work in the least time decides. n: jobs that wait. call: seconds of one with so many jobs.
    """
    best: tuple[tuple[int, float], list[Waiting], int] = ((-1, 0.0), [], 1)
    for k in (*(k for k in WIDTHS if k < n), n):
        took, total, kept, off = call(k), 0.0, [], set[int]()
        first: list[tuple[float, int]] = []
        second: list[tuple[float, int]] = []
        for i, p in enumerate(promised):
            own, room = p.job.left * took, p.until - now
            if own > room:
                continue
            heappush(second if p.second else first, (-own / k, i))
            kept.append(i)
            total += own / k
            # with a place for everybody they are done in their own time; else about half of the last one is done beside others
            if len(kept) - len(off) > k and total + own * (1 - 1 / k) / 2 > room:
                shorter, who = heappop(first or second)
                total += shorter
                off.add(who)
        kept = [i for i in kept if i not in off]
        value = sum(1 + promised[i].second for i in kept)
        best = max(best, ((value, -took / k), [promised[i].job for i in kept], k), key=lambda b: b[0])
    return best[1], best[2]


def rounds(waiting: Sequence[Waiting], sort: bool = True) -> list[Waiting]:
    """One job of each ticket, then a second of each, ...; tickets as they come, or in the order of their arrival."""
    jobs: dict[Hashable, list[Waiting]] = {}
    for w in sorted(waiting, key=lambda w: w.arrived) if sort else waiting:
        jobs.setdefault(w.ticket, []).append(w)
    places = ((i, rank, w) for rank, mine in enumerate(jobs.values()) for i, w in enumerate(mine))
    return [w for _, _, w in sorted(places, key=lambda r: r[:2])]

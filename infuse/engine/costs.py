"""What does a call cost? Seconds against its work, learnt for each network from the calls that the engine makes anyway.

No tensors. Work is counted in rows of the base network; a row that a branch network reads, too,
counts for more. Of each width the median of the last calls is kept, so that a pause of the machine is soon forgotten, and
what a width took for the first time (kernels are chosen, code is compiled) counts only until it is asked again.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from math import log2, prod
from statistics import median
from typing import Any

from infuse.engine.pace import BRANCH

LAST = 9
"""Calls of a width whose median counts."""
STALE = 2000
"""Calls of a bucket after which a width that nobody asked for any more is unknown again: machines change."""
OVERHEAD = 1.0
"""Before anything was measured: a call costs this many rows before its first one. Half of a guided picture's two, as on
an H100 at SD 1.5's size (1.6 + 3.1 n ms for n pairs of rows); what was measured soon replaces it."""
ROW = 0.05
"""Seconds of a row before anything was measured. Only the first call of all is judged by it."""


def width(work: float) -> float:
    """Works that are counted as one: to the half up to 16 rows, an eighth of an octave beyond."""
    return round(2 * work) / 2 if work <= 16 else 2 ** (round(8 * log2(work)) / 8)


@dataclass(eq=False)
class Curve:
    """Seconds of a call of one bucket. It never falls: a wider call is not taken to be shorter, whatever the noise says."""

    row: float = ROW
    """Seconds of a row, as long as nothing is known."""
    _seen: dict[float, deque[float]] = field(default_factory=dict)
    _asked: dict[float, deque[float]] = field(default_factory=dict)
    """The works of those calls: what is counted as one width is not quite one."""
    _first: set[float] = field(default_factory=set)
    """Widths that were asked once."""
    _when: dict[float, int] = field(default_factory=dict)
    _calls: int = 0
    _works: list[float] = field(default_factory=list)
    _times: list[float] = field(default_factory=list)

    def learn(self, work: float, seconds: float) -> None:
        """A call of this work took so long."""
        at, self._calls = width(work), self._calls + 1
        if self._calls % 100 == 0:
            for old in [w for w, when in self._when.items() if self._calls - when > STALE]:
                del self._seen[old], self._asked[old], self._when[old]
                self._first.discard(old)
        self._when[at] = self._calls
        if at not in self._seen:
            self._seen[at], self._asked[at] = deque([seconds], LAST), deque([work], LAST)
            self._first.add(at)
        else:
            if at in self._first:
                self._first.discard(at)
                self._seen[at].clear()
                self._asked[at].clear()
            self._seen[at].append(seconds)
            self._asked[at].append(work)
        sure = sorted([w for w in self._seen if w not in self._first] or self._seen)
        self._works = [median(self._asked[w]) for w in sure]
        self._times = rising([(median(self._seen[w]), len(self._seen[w])) for w in sure])

    @property
    def known(self) -> bool:
        """Has a width been asked twice?"""
        return len(self._first) < len(self._seen)

    def __call__(self, work: float) -> float:
        """Seconds of a call: between widths that were measured on a straight line, beyond them as they go on."""
        works, times = self._works, self._times
        if not works:
            return self.row * (OVERHEAD + work)
        if len(works) == 1:
            return times[0] * (OVERHEAD + work) / (OVERHEAD + works[0])
        i = bisect_right(works, work)
        if 0 < i < len(works):
            a, b = works[i - 1], works[i]
            return times[i - 1] + (times[i] - times[i - 1]) * (work - a) / (b - a)
        if i:  # wider than any: from the one of half the width, as neighbours differ by little but noise
            last, most = works[-1], times[-1]
            half = max(bisect_right(works, last / 2) - 1, 0)
            return most + (most - times[half]) / (last - works[half]) * (work - last)
        # narrower than any: a call is never cheaper by the row than it is at twice the width, nor dearer than a wider one
        first, most = works[0], times[0]
        double = min(bisect_right(works, 2 * first), len(works) - 1)
        slope = (times[double] - most) / (works[double] - first)
        return min(max(most - slope * (first - work), most * work / first), most)


def rising(times: list[tuple[float, int]]) -> list[float]:
    """The nearest numbers that never fall, of (number, weight): neighbours that do are averaged (pool adjacent violators)."""
    pools: list[tuple[float, int, int]] = []
    for seconds, weight in times:
        pools.append((seconds, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, wa, na), (b, wb, nb) = pools[-2:]
            pools[-2:] = [((a * wa + b * wb) / (wa + wb), wa + wb, na + nb)]
    return [seconds for seconds, _, n in pools for _ in range(n)]


@dataclass(eq=False)
class Costs:
    """A curve for each bucket: (network, latent shape)."""

    curves: dict[Hashable, Curve] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic
    """Seconds, for calls and deadlines."""

    def party(self) -> Party:
        """Of somebody who comes now."""
        return Party(self.clock())

    def watch(self, bucket: Hashable, jobs: Sequence[Any]) -> Callable[[Sequence[Any]], None]:
        """Time a call of these jobs: what is returned is told the answers. Calls that failed are not learnt from."""
        began, work = self.clock(), sum(cost(job) for job in jobs)

        def stop(answers: Sequence[Any]) -> None:
            if not any(isinstance(a, Exception) for a in answers):
                self.learn(bucket, work, self.clock() - began)

        return stop

    def learn(self, bucket: Hashable, work: float, seconds: float) -> None:
        self.of(bucket).learn(work, seconds)

    def seconds(self, bucket: Hashable, work: float) -> float:
        """Of one call."""
        return self.of(bucket)(work)

    def of(self, bucket: Hashable) -> Curve:
        found = self.curves.get(bucket)
        if found is None or not found._works:
            found = self.curves[bucket] = Curve(self._row(bucket))
        return found

    def _row(self, bucket: Hashable) -> float:
        """Seconds of a row that nobody has asked for: as this network takes for others, by the size of the latent."""
        if isinstance(bucket, tuple) and len(bucket) >= 2:
            for other, curve in self.curves.items():
                if curve.known and isinstance(other, tuple) and other[0] == bucket[0]:
                    return curve(1.0) / (OVERHEAD + 1) * prod(bucket[1]) / prod(other[1])
        return ROW

    def forget(self, base: Any) -> None:
        """A base has left: its place in memory may be another's."""
        gone = id(getattr(base, "network", base))
        self.curves = {k: v for k, v in list(self.curves.items()) if not isinstance(k, tuple) or k[0] != gone}


def cost(job: Any) -> float:
    """Work of a job's next evaluation, in rows: those that it brings, and what branch networks (ControlNet and its kin) do for
    them."""
    now, looks = job.now, max(len(job.windows), 1)
    spoken = [(job.sides[who], who) for who in now.weights if who in job.sides]
    asked = sum(
        1 for term in now.guidance.terms for s, who in spoken
        for e in (s.on if who in term.speaks else s.off).residuals if hasattr(e, "branch")
    )  # fmt: skip
    return job.width + BRANCH * asked * looks


@dataclass
class Party:
    """Pictures that somebody waits for together: one deadline, one turn."""

    came: float
    """When, on the engine's clock."""
    jobs: int = 0
    calls: int = 0
    """Evaluations of its pictures that cannot share a call: those of the longest one."""

    def joined_by(self, jobs: Sequence[Any]) -> Party:
        """These pictures are waited for, too."""
        self.jobs, self.calls = self.jobs + len(jobs), max(self.calls, *(job.n for job in jobs), 0)
        return self

    def deadline(self, slo: float, seconds: Callable[[float], float], each: float) -> float:
        """`slo` times what it takes alone from when it came. each: work of a picture's evaluation."""
        return self.came + slo * self.calls * seconds(each * self.jobs)

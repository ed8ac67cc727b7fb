"""Taking turns: in each round everybody runs once, so that whatever slows the machine down meets all of them.

A ratio is made within a round and its median taken over rounds; the spread is that of the rounds.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from benchmarks.asked import Request, varied
from benchmarks.contenders import Contender, Sample


@dataclass
class Budget:
    """Seconds for all that is to come. clock: when it is."""

    seconds: float
    clock: Callable[[], float] = time.perf_counter
    began: float = 0.0

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        return self.seconds - (self.clock() - self.began)


@dataclass
class Series:
    """What one contender took in a case, a sample for each round that it had a turn in."""

    samples: dict[int, Sample] = field(default_factory=dict)
    warmup: float | None = None
    """Seconds of the first turn, which does not count: loading, compiling."""
    error: str | None = None

    def values(self, of: Callable[[Sample], float]) -> dict[int, float]:
        return {r: of(s) for r, s in self.samples.items()}


def taken(
    contenders: Sequence[Contender],
    requests: Sequence[Request],
    rounds: int,
    seconds: float,
    once: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
    clock: Callable[[], float] = time.perf_counter,
    pictures: bool = False,
    patience: Mapping[str, float] | None = None,
) -> dict[str, Series]:
    """Rounds of everybody, as many as there is time for, at least one. once: who has a turn in the first round only.
    pictures: whole requests, warmed up by a whole one. patience: seconds that some take to warm up, who are left out if there
    is less time.

    Who raises is out, and the others go on.
    """
    out = {c.name: Series() for c in contenders}
    begin = clock()
    longest = 0.0
    for r in range(-1, rounds):
        if r > 0 and clock() - begin + longest > seconds:
            say(f"no time for round {r + 1} of {rounds}")
            break
        began = clock()
        for c in contenders:
            series = out[c.name]
            if series.error or (r > 0 and c.name in once):
                continue
            if r < 0 and c.name in once and not pictures:  # its warm-up would take longer than what it is for
                continue
            start = clock()
            if r < 0 and c.name in (patience or {}) and (patience or {})[c.name] > seconds - (start - begin):
                series.error = f"left out: {seconds - (start - begin):.0f} s were left, and it takes longer to warm up"
                say(f"{c.name}: {series.error}")
                continue
            try:
                asked = requests if r >= 0 or pictures else [shortest(requests)]
                sample = c.run(varied(asked, r + 1), pictures)
            except Exception as error:
                series.error = (
                    f"{type(error).__name__}: {error}\n{''.join(traceback.format_tb(error.__traceback__)[-3:])}"
                )
                say(f"{c.name}: {type(error).__name__}: {str(error)[:200]}")
                continue
            took = clock() - start
            if r < 0:
                series.warmup = took
                say(f"{c.name}: warm after {took:.1f} s")
            else:
                series.samples[r] = sample
                each = f"{sample.whole:.3g} s" if pictures else f"{sample.mean:.3g} s a step"
                say(f"round {r + 1} of {rounds}, {c.name}: {each}")
        longest = max(longest, clock() - began) if r >= 0 else 0.0
    return out


def shortest(requests: Sequence[Request]) -> Request:
    """Enough to warm up: one step with all conditions of the request that has most."""
    widest = max(requests, key=lambda r: (len(r.controls), len(r.looks)))
    return replace(widest, steps=1, controls=tuple(replace(c, start=0.0, end=1.0) for c in widest.controls))


def summed(values: Sequence[float]) -> dict[str, Any]:
    """Median, lowest, highest."""
    return {"median": median(values), "low": min(values), "high": max(values), "n": len(values)}


def ratio(a: dict[int, float], b: dict[int, float]) -> dict[str, Any] | None:
    """a / b in each round that both had a turn in."""
    both = sorted(a.keys() & b.keys())
    return summed([a[r] / b[r] for r in both]) if both else None

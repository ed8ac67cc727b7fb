"""What is the scheduler worth? Requests come at random, calls cost what a curve says, and nothing is computed: no tensors.

`python -m benchmarks.policy` compares infuse's scheduler, the class that the engine runs, with a queue served one by one
and with continuous batching that takes whoever waits. A request is good if it is done within SLO times what it takes alone;
goodput is the highest rate of requests at which nine of ten are.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from infuse.engine.costs import Costs
from infuse.engine.scheduler import Scheduler, Waiting

RATIOS = (0.1, 0.3, 0.5, 1.0, 2.0)
"""Overhead of a call to the cost of one request's two rows in it. 0.3 is SDXL at 1024 on an H100, 0.5 SD 1.5 at 512
(computed; 0.56 measured on an A100), 2 and more are calls whose launches the processor cannot keep up with."""
SLO = 3.0
GOOD = 0.9
STEPS = (20, 30, 50)
CONTROLNET = 0.35
"""Of the UNet's work (0.353 by operations at SD 1.5)."""
ADAPTER = 0.02
NAIVE = 16
"""Requests that naive batching runs at a time."""


@dataclass(eq=False)
class Request:
    """One picture, guided: what each of its calls costs, in requests without conditions."""

    number: int
    gap: float
    """Between the one before and this, at a rate of 1."""
    works: tuple[float, ...]
    branches: tuple[frozenset[int], ...]
    """ControlNets that each evaluation asks."""
    arrival: float = 0.0
    i: int = 0
    done: float = 0.0
    left: tuple[float, ...] = ()
    """Work from each evaluation to the end."""


@dataclass(frozen=True)
class Machine:
    """What a call takes: overhead + marginal for each request in it. apart: each distinct ControlNet of a call has a
    part of that overhead again, its own launches."""

    overhead: float
    marginal: float = 1.0
    apart: float = 0.0
    noise: float = 0.0

    def seconds(self, works: float, branches: int) -> float:
        return self.overhead * (1 + self.apart * branches) + self.marginal * works

    def alone(self, request: Request) -> float:
        """Seconds of a request that has the machine to itself."""
        return sum(self.seconds(w, len(b)) for w, b in zip(request.works, request.branches, strict=True))


def traffic(count: int, seed: int) -> list[Request]:
    """Poisson arrivals; 20, 30 or 50 steps, none, one or two of four ControlNets, a third of them for half of the steps,
    an IP-Adapter in three of ten."""
    draw, out = random.Random(seed), []
    for number in range(count):
        steps = draw.choice(STEPS)
        nets = {net: draw.random() < 1 / 3 for net in draw.sample(range(4), draw.choice((0, 1, 2)))}
        adapter = ADAPTER if draw.random() < 0.3 else 0.0
        heard = [frozenset(n for n, half in nets.items() if not half or i < steps // 2) for i in range(steps)]
        works = tuple(1 + adapter + CONTROLNET * len(h) for h in heard)
        left, total = [], 0.0
        for work in reversed(works):
            left.append(total := total + work)
        out.append(Request(number, draw.expovariate(1.0), works, tuple(heard), left=tuple(reversed(left))))
    return out


class Policy:
    """Whom the next call serves."""

    def pick(self, waiting: dict[int, Request], now: float) -> list[Request]:
        raise NotImplementedError

    def took(self, picked: Sequence[Request], seconds: float) -> None:
        """How long that call was."""


class Fifo(Policy):
    """One request at a time, from its first step to its last: a queue before pipelines."""

    def pick(self, waiting: dict[int, Request], now: float) -> list[Request]:
        return [next(iter(waiting.values()))]


class Naive(Policy):
    """Continuous batching: whoever came first, as many as there is room for, all in every call."""

    def pick(self, waiting: dict[int, Request], now: float) -> list[Request]:
        return [r for r, _ in zip(waiting.values(), range(NAIVE), strict=False)]


class Ours(Policy):
    """The engine's scheduler and the curve that it learns."""

    def __init__(self, slo: float = SLO, scheduler: Scheduler | None = None) -> None:
        self.slo, self.scheduler, self.costs = slo, scheduler or Scheduler(64), Costs()
        self.deadlines: dict[int, float] = {}
        self.spent, self.picks, self.widths = 0.0, 0, 0

    def pick(self, waiting: dict[int, Request], now: float) -> list[Request]:
        curve = self.costs.of(0)
        asked = [
            Waiting(r, 0, n, 2, n, r.arrival + self.slo * a, len(r.works) - r.i, 2 * r.works[r.i], r.arrival, a)
            for n, r in waiting.items() for a in (self.alone(r, curve),)
        ]  # fmt: skip
        begin = time.perf_counter()
        picked = self.scheduler.pick(asked, now=now, seconds=self.costs.seconds)
        self.spent, self.picks, self.widths = (
            self.spent + time.perf_counter() - begin,
            self.picks + 1,
            self.widths + len(picked),
        )
        return picked  # type: ignore[return-value]

    def alone(self, r: Request, curve: Callable[[float], float]) -> float:
        """As the engine does: the mean call, once for each evaluation."""
        return len(r.works) * curve(2 * r.left[0] / len(r.works))

    def took(self, picked: Sequence[Request], seconds: float) -> None:
        self.costs.learn(0, sum(2 * r.works[r.i] for r in picked), seconds)


@dataclass
class Outcome:
    """Of one run."""

    rate: float
    """Requests offered, as a part of what one by one can serve."""
    good: float
    """Part of the requests that were done in time."""
    latencies: list[float] = field(repr=False)
    waits: list[float] = field(repr=False)
    """Of each request: seconds beyond what it takes alone."""
    goods: list[bool] = field(repr=False)
    span: float = 0.0

    def plain(self, unit: float) -> dict[str, float]:
        """Figures in units of the mean time that a request takes alone."""
        figures = {f"p{q:g}": at(self.latencies, q) / unit for q in (50, 95, 99, 99.9)}
        return {
            "load": self.rate, "in_time": self.good, **figures, "longest": max(self.latencies) / unit, "p99.9_wait": at(self.waits, 99.9) / unit,
            "longest_wait": max(self.waits) / unit, "good_per_unit": sum(self.goods) / self.span * unit,
        }  # fmt: skip


def at(values: Sequence[float], percent: float) -> float:
    """A percentile: the smallest value that so many do not exceed."""
    ordered = sorted(values)
    return ordered[min(max(-int(-percent * len(ordered) // 100) - 1, 0), len(ordered) - 1)]


def run(policy: Policy, machine: Machine, requests: Sequence[Request], load: float, slo: float = SLO, seed: int = 0) -> Outcome:  # fmt: skip
    """Serve them all. load: requests offered in the mean time that one takes alone."""
    alone = {r.number: machine.alone(r) for r in requests}
    unit, draw = mean(alone.values()), random.Random(seed)
    clock = 0.0
    for r in requests:
        clock += r.gap * unit / load
        r.arrival, r.i, r.done = clock, 0, 0.0
    coming, waiting, now = deque(requests), {}, 0.0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            came = coming.popleft()
            waiting[came.number] = came
        picked = policy.pick(waiting, now)
        asked = frozenset().union(*(r.branches[r.i] for r in picked))
        seconds = machine.seconds(sum(r.works[r.i] for r in picked), len(asked)) * (1 + machine.noise * draw.random())
        now += seconds
        policy.took(picked, seconds)
        for r in picked:
            r.i += 1
            if r.i == len(r.works):
                r.done = now
                del waiting[r.number]
    latencies = [r.done - r.arrival for r in requests]
    waits = [r.done - r.arrival - alone[r.number] for r in requests]
    goods = [r.done - r.arrival <= slo * alone[r.number] for r in requests]
    return Outcome(load, mean(goods), latencies, waits, goods, now)


def goodput(make: Callable[[], Policy], machine: Machine, requests: Sequence[Request], slo: float = SLO, fine: float = 0.02) -> float:  # fmt: skip
    """The highest load at which nine of ten are done in time, to `fine`."""
    low, high = 0.1, 4.0
    while high - low > fine:
        middle = (low + high) / 2
        if run(make(), machine, requests, middle, slo).good >= GOOD:
            low = middle
        else:
            high = middle
    return low


def compared(ratio: float, requests: Sequence[Request], fine: float = 0.02) -> dict[str, Any]:
    """All policies with the same requests: goodput, latencies at 70 % of what one by one can serve, and at their own goodput."""
    machine, out = Machine(ratio), {}
    makes: dict[str, Callable[[], Policy]] = {"one by one": Fifo, "all who wait": Naive, "infuse": Ours}
    unit = mean(machine.alone(r) for r in requests)
    for name, make in makes.items():
        most = goodput(make, machine, requests, fine=fine)
        loads = {"at 0.7": 0.7, "at its goodput": most}
        out[name] = {"goodput": most} | {
            k: run(make(), machine, requests, load).plain(unit) for k, load in loads.items()
        }
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--out", type=Path, default=Path("policy.json"))
    asked = parser.parse_args(arguments)
    requests, found = traffic(asked.requests, asked.seed), {}
    print(
        f"{asked.requests} requests; times in the mean time that one takes alone; SLO {SLO:g} times what each takes alone"
    )
    print(
        f"{'overhead':>8} {'':14} goodput  gain | at 0.7: in time   p50   p95   p99 p99.9 longest | at its goodput: p50   p99 longest"
    )
    for ratio in asked.ratios:
        found[f"{ratio:g}"] = each = compared(ratio, requests)
        for name, f in each.items():
            a, b = f["at 0.7"], f["at its goodput"]
            print(
                f"{ratio:8g} {name:14} {f['goodput']:7.2f} {f['goodput'] / each['one by one']['goodput']:5.2f} | {a['in_time']:15.3f} {a['p50']:5.2f} "
                f"{a['p95']:5.1f} {a['p99']:5.1f} {a['p99.9']:5.1f} {a['longest']:7.1f} | {b['p50']:19.2f} {b['p99']:5.1f} {b['longest']:7.1f}",
                flush=True,
            )
    asked.out.write_text(
        json.dumps({"requests": asked.requests, "seed": asked.seed, "slo": SLO, "overhead": found}, indent=1)
    )


if __name__ == "__main__":
    main()

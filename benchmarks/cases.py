"""What is measured: requests, who takes part, and of which steps the seconds are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.asked import MIXED, Control, Request
from benchmarks.contenders import Contender, Sample

Of = Literal["later", "mean", "total"]
OF: Mapping[Of, Callable[[Sample], float]] = {
    "later": lambda s: s.later,
    "mean": lambda s: s.mean,
    "total": lambda s: s.total,
}


@dataclass(frozen=True)
class Case:
    """requests: all of one turn. of: seconds of a step after the first, of a step on average, or of everything.

    share: of the time that a whole run has. once: in which dtype the peer runs in the first round only, for the results to
    be compared with.
    """

    name: str
    what: str
    requests: tuple[Request, ...]
    of: Of
    share: float
    takes_part: Callable[[Contender], bool]
    once: Callable[[Contender], bool] = lambda c: False

    @property
    def unit(self) -> str:
        return "s" if self.of == "total" else "s a step"


def compiled(c: Contender) -> bool:
    return "compile" in c.name


def full(c: Contender) -> bool:
    return "float32" in c.name


def step() -> Case:
    return Case(
        "step", "a guided step, words alone", (Request(2),), "later", 0.16, lambda c: not compiled(c)
    )  # fmt: skip


def conditioned() -> Case:
    return Case(
        "controlnet_ip", "a guided step with a ControlNet and an IP-Adapter", (Request(2, controls=(Control(0),), looks=(0,)),),
        "later", 0.42, lambda c: True,
    )  # fmt: skip


def half() -> Case:
    controls = (Control(0, 0.7, end=0.5), Control(1, 0.6, end=0.5))
    return Case(
        "half", "two ControlNets that are heard in the first half of the steps", (Request(2, controls=controls),), "mean",
        0.14, lambda c: not compiled(c) and not (c.side == "infuse" and full(c)), full,
    )  # fmt: skip


def mixed() -> Case:
    return Case(
        "mixed", "four requests: 0 to 2 ControlNets, with an IP-Adapter or without, four samplers, 1 to 3 steps", MIXED,
        "total", 0.16, lambda c: not compiled(c) and not (c.side == "infuse" and full(c)), full,
    )  # fmt: skip


CASES: Mapping[str, Callable[[], Case]] = {c().name: c for c in (conditioned, step, half, mixed)}
"""In the order in which they are run: what matters most first."""

COST = "cost"
"""The case of its own: seconds against the number of conditions."""
COST_SHARE = 0.12


def grown(most_controls: int = 4, most_looks: int = 2) -> Sequence[tuple[str, Request]]:
    """The requests of `cost`: none, one ... of each kind, and one whose window is over when it counts."""
    out = [
        (f"controlnets {n}", Request(2, controls=tuple(Control(i, 0.4) for i in range(n))))
        for n in range(most_controls + 1)
    ]
    out += [(f"ip_adapters {n}", Request(2, looks=tuple(range(n)))) for n in range(1, most_looks + 1)]
    out += [("window over", Request(2, controls=(Control(0, end=0.5),)))]
    return out


def line(points: Mapping[int, float]) -> dict[str, float]:
    """Least squares: T(n) = base + slope n, and how much of the variance that explains."""
    n, mean_x, mean_y = len(points), sum(points) / len(points), sum(points.values()) / len(points)
    var = sum((x - mean_x) ** 2 for x in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points.items()) / var if n > 1 else 0.0
    base = mean_y - slope * mean_x
    rest = sum((y - base - slope * x) ** 2 for x, y in points.items())
    total = sum((y - mean_y) ** 2 for y in points.values())
    return {
        "base": base,
        "slope": slope,
        "relative": slope / base if base else 0.0,
        "r2": 1 - rest / total if total else 1.0,
    }

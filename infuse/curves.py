"""A weight is a number or a curve `{progress: value}`; a step is a stretch of a job's progress. No tensors here."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field


def _sound(curve: float | dict[float, float]) -> float | dict[float, float]:
    points = {0.0: curve} if isinstance(curve, int | float) else curve
    if not points:
        raise ValueError("an empty curve says nothing; give a number, or points such as {0: 1.0, 0.5: 0.0}")
    for at, value in points.items():
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number that can weigh anything; give a finite one")
        if not 0 <= at <= 1:
            raise ValueError(f"progress {at} lies outside of 0 (first step) to 1 (last step)")
    return curve


Curve = Annotated[float | dict[Annotated[float, Field(ge=0, le=1)], float], AfterValidator(_sound)]
"""A finite number, or {progress 0-1: value}, linear between its points and constant beyond them."""


@dataclass(frozen=True)
class Step:
    """Step `i` of `n`: progress from `begin` to `end`, in the arithmetic of diffusers' control_guidance windows."""

    i: int
    n: int

    @property
    def begin(self) -> float:
        return self.i / self.n

    @property
    def end(self) -> float:
        return (self.i + 1) / self.n


def value_at(curve: Curve, progress: float) -> float:
    """The curve's value at a progress of 0-1."""
    if not isinstance(curve, dict):
        return float(curve)
    points = sorted(curve.items())
    for (a, u), (b, v) in zip(points, points[1:], strict=False):
        if a <= progress < b:
            return u + (v - u) * (progress - a) / (b - a)
    return float(points[0][1] if progress < points[0][0] else points[-1][1])


def span(curve: Curve) -> tuple[float, float]:
    """Smallest and largest value of the curve."""
    values = curve.values() if isinstance(curve, dict) else (curve,)
    return float(min(values)), float(max(values))

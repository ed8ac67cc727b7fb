"""Of a family of cases a few run in the quick suite, and all of them in the whole one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import pytest


def some(cases: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """These cases; all but the quick ones are slow."""
    cases = list(cases)
    assert all(q in cases for q in quick), f"{quick} are not all among {cases}"
    return [
        pytest.param(*(c if isinstance(c, tuple) else (c,)), marks=() if c in quick else pytest.mark.slow)
        for c in cases
    ]


def in_turn(ones: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    """Every pair of the two; quick are as many as the longer has cases, each of which meets one of the shorter's in turn."""
    quick = {(n % len(ones), n % len(others)) for n in range(max(len(ones), len(others)))}
    return [
        pytest.param(a, b, marks=() if (i, j) in quick else pytest.mark.slow)
        for i, a in enumerate(ones)
        for j, b in enumerate(others)
    ]

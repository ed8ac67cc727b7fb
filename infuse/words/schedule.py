"""Words that change on the way: `[a:b:0.5]` is a before half of the evaluations and b after, `[a|b]` takes turns."""

from __future__ import annotations

from collections.abc import Sequence

Entries = tuple[tuple[int, str], ...]


def entries(text: str, n: int) -> Entries:
    """(end, text) in order; the last end is n."""
    return ((n, text),)


def is_scheduled(text: str) -> bool:
    """Does it say different words at different times?"""
    return False


def at(entries: Sequence[tuple[int, str]], k: int) -> str:
    """The text of evaluation k (from 0): that of the first entry with k <= end."""
    return next((text for end, text in entries if k <= end), entries[-1][1])

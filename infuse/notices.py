"""What was adjusted, or is hardly meant, reaches whoever asked for it: once for each cause, at the line that asked.

A run's notes are kept on its ticket and result; `Teller` says them as `InfuseWarning`s. What is found out in the depths of an
encoding is `note`d: whoever `gathers` around it takes it along, else it is a warning at once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock

from infuse.errors import InfuseWarning

HOME = str(Path(__file__).parent) + os.sep
MOST = 4096
"""Causes that one teller remembers; what is older is said again."""

_gathered: ContextVar[list[str] | None] = ContextVar("notes of the work under way", default=None)


class Teller:
    """Says each text once."""

    def __init__(self) -> None:
        self._told: dict[str, None] = {}
        self._lock = Lock()

    def tell(self, texts: Iterable[str]) -> None:
        """As `InfuseWarning`s, at the first line outside of infuse that led here."""
        for text in texts:
            with self._lock:
                new = text not in self._told
                self._told[text] = None
                while len(self._told) > MOST:
                    del self._told[next(iter(self._told))]
            if new:
                warnings.warn(text, InfuseWarning, stacklevel=outside())


def outside() -> int:
    """How many frames above the caller's the first one outside of infuse stands: `stacklevel` for `warnings.warn`."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(HOME):
        level, frame = level + 1, frame.f_back
    return level


@contextmanager
def gathers() -> Iterator[list[str]]:
    """What is noted inside, by this thread."""
    found: list[str] = []
    token = _gathered.set(found)
    try:
        yield found
    finally:
        _gathered.reset(token)


def note(text: str) -> None:
    """Say that something was adjusted."""
    found = _gathered.get()
    if found is None:
        warnings.warn(text, InfuseWarning, stacklevel=outside())
    elif text not in found:
        found.append(text)

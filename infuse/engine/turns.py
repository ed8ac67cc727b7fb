"""A lock that is handed on in the order in which threads came, so that a busy one cannot keep the others out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock, get_ident

from infuse.errors import InfuseError


class Turns:
    """`with turns.mine(): ...`: one thread at a time. A thread that has its turn already is refused, not stuck."""

    def __init__(self) -> None:
        self._line: deque[Lock] = deque()
        self._guard = Lock()
        self._holder: int | None = None

    @contextmanager
    def mine(self) -> Iterator[None]:
        """Raises InfuseError when entered again from inside."""
        if self._holder == get_ident():
            raise InfuseError(
                "", "a step was asked for in the middle of a step. Ask from `watch`, or from another thread."
            )
        place = Lock()
        place.acquire()
        try:
            with self._guard:
                self._line.append(place)
                first = len(self._line) == 1
            if not first:
                place.acquire()  # released by whoever leaves before us
            self._holder = get_ident()
            yield
        finally:
            with self._guard:
                if place in self._line:
                    if self._line[0] is place:
                        self._holder = None
                        if len(self._line) > 1:
                            self._line[1].release()
                    self._line.remove(place)

"""One thread at a time asks the network; a busy one steps aside for those who wait, so that it cannot keep them out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock, get_ident

from infuse.errors import InfuseError

ASIDE = 0.0005
"""Seconds for which a thread steps aside: enough for a waiting one to wake up, and little beside a network call."""


class Turns:
    """`with turns.mine(): ...`. A thread that has its turn already is refused, not stuck."""

    def __init__(self) -> None:
        self._turn, self._waiting = RLock(), set[int]()

    @contextmanager
    def mine(self, timeout: float | None = None) -> Iterator[bool]:
        """True when it is this thread's turn, False if it has not come within `timeout` seconds.

        Raises InfuseError when entered again from inside.
        """
        if self._turn._is_owned():  # type: ignore[attr-defined]  as the standard library's Condition asks it
            raise InfuseError(
                "", "a step was asked for in the middle of a step. Ask from `watch`, or from another thread."
            )
        self._waiting.add(get_ident())
        try:
            came = self._turn.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        finally:
            self._waiting.discard(get_ident())
        try:
            yield came
        finally:
            if came:
                self._turn.release()
        if self._waiting:
            time.sleep(ASIDE)

"""Names of jobs sort by arrival and cannot be guessed: UUIDs of version 7 (RFC 9562, 5.7), as 32 hexadecimal digits."""

from __future__ import annotations

from secrets import randbits
from threading import Lock
from uuid import UUID


class Ids:
    """48 bits of milliseconds, 12 that count within one (method 1 of 6.2), 62 random ones.

    Within one `Ids` each is greater than all before it, whatever the clock does; ids of two processes are in the order of
    their milliseconds.
    """

    def __init__(self) -> None:
        self._lock, self._last = Lock(), 0

    def new(self, now: float) -> str:
        """now: seconds since 1970."""
        with self._lock:
            self._last = stamp = max(int(now * 1000) << 12, self._last + 1)
        value = (stamp >> 12) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << 62 | randbits(62)
        return UUID(int=value).hex

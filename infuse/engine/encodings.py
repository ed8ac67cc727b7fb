"""What conditions were encoded to, kept for recipes to come: by content, without the voice, in which nothing is encoded.

Keyed by the base itself and by the versions of what a condition names: a name may come to mean something else.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from infuse.conditions.base import Condition
from infuse.encoders.kit import Kit
from infuse.notices import gathers, note
from infuse.ports import Sides
from infuse.recipe import digest


@dataclass(eq=False)
class Encodings:
    """At most `most` encodings of at most `most_bytes`; those used longest ago go first."""

    most: int
    most_bytes: int
    _kept: dict[Hashable, tuple[Sides, int, list[str]]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _left: int = 0
    """How often something has left the store."""

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def sizes(self) -> list[int]:
        """Bytes of each, the one used longest ago first."""
        return [size for _, size, _ in list(self._kept.values())]

    @property
    def nbytes(self) -> int:
        return sum(self.sizes)

    def of(self, condition: Condition, kit: Kit) -> Sides:
        """What a condition says on this canvas, in full voice. Two who ask at once may both encode: the same comes out."""
        versions = tuple(kit.store.versions(c) for c in (condition, *getattr(condition, "regions", ())))
        beside: tuple[Hashable, ...] = tuple((h.digest, fit) for h, fit in kit.openings) if condition.HOLE else ()
        beside += (kit.worded,) if condition.WORDS else ()
        key = (kit.base, kit.size, kit.frames, type(condition), digest(condition, voiced=False), versions, beside)
        with self._lock:
            found, left = self._kept.get(key), self._left
        if found is None:
            with gathers() as notes:
                sides = condition.encode(kit)
            found = (sides, sides.nbytes, notes)
        sides = found[0]
        for text in found[2]:  # to whoever asked this time
            note(text)
        with self._lock:
            self._kept.pop(key, None)
            if left != self._left:  # what left meanwhile may be in here
                return sides
            self._kept[key] = found
            while self._kept and (len(self._kept) > self.most or self.nbytes > self.most_bytes):
                del self._kept[next(iter(self._kept))]
        return sides

    def forget(self, thing: Any) -> None:
        """Drop whatever holds this base or module: it has left the store, and its memory must go."""

        def modules(entry: Any) -> tuple[Any, ...]:
            """What it speaks through, and the module whose twin that is (`network.twins`)."""
            branch = getattr(entry, "branch", None)
            original = getattr(branch, "twin_of", None)
            return (branch, original()) if original else (branch,)

        def holds(key: Any, sides: Sides) -> bool:
            said = (sides.on, sides.off)
            return key[0] is thing or any(
                thing in (e.adapter for e in p.decoupled)
                or any(thing in modules(e) for e in p.residuals)
                or any(thing is e.network for e in p.edits)
                for p in said
            )

        with self._lock:
            self._left += 1
            self._kept = {k: v for k, v in self._kept.items() if not holds(k, v[0])}

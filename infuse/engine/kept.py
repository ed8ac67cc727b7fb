"""What was loaded, each thing once, until room is needed: a lock per thing, and the least recently used leaves first.

Knows nothing of weights: a `Key` says what a thing is, a function loads it, another one says how large it is.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from itertools import count
from threading import Lock
from typing import Any
from weakref import WeakMethod, WeakValueDictionary, ref

from infuse.notices import note


@dataclass(frozen=True)
class Key:
    """What a thing is. `version` is what it was made from: a file in a state, or an object."""

    what: Hashable
    version: Hashable
    place: tuple[Any, ...] = ()
    """dtype, device."""
    beside: ref[Any] | None = None
    """The base that it was made for. Weak: a base that everybody else has dropped is not kept for this."""

    @property
    def orphan(self) -> bool:
        return self.beside is not None and self.beside() is None

    def made_from(self, thing: Any) -> bool:
        return self.version is thing or (self.beside is not None and self.beside() is thing)


@dataclass(eq=False)
class Entry:
    """A loaded thing."""

    key: Key
    thing: Any
    digest: str
    """sha256 of the files that it was loaded from, taken then."""
    names: set[str]
    """What it was asked for as."""
    used: int = 0


class _Turn:
    """Whose turn it is to load one thing."""

    def __init__(self) -> None:
        self.lock = Lock()


@dataclass(eq=False)
class Kept:
    """Loaded things. No lock is held while something loads or leaves but that thing's own; look-ups never wait.

    size: bytes of several things. guests: what others brought: counted, never thrown out. memory: bytes that may be kept,
    None for no limit. free: called once things have left, to give their memory back at once. park: what left for want of room, as it
    may wait elsewhere, or None; back: the same again where its key says; spare: bytes that there are for it now.
    """

    size: Callable[..., int]
    guests: Callable[[], Iterable[Any]] = tuple
    memory: int | None = None
    free: Callable[[], Any] = gc.collect
    park: Callable[[Any], Any] | None = None
    back: Callable[[Any, Key], Any] | None = None
    spare: Callable[[], int] = int
    on_leave: list[Callable[[Any], None]] = field(default_factory=list)
    _entries: dict[Key, Entry] = field(default_factory=dict)
    _parked: dict[Key, Entry] = field(default_factory=dict)
    """What waits elsewhere, the longest first."""
    _coming: dict[Key, int] = field(default_factory=dict)
    """Bytes of what is loading now."""
    _turns: WeakValueDictionary[Key, _Turn] = field(default_factory=WeakValueDictionary)
    _clock: count[int] = field(default_factory=count)
    _lock: Lock = field(default_factory=Lock)
    """Of the dictionaries; held for look-ups and book-keeping alone."""

    @property
    def entries(self) -> list[Entry]:
        """What is here now, the least recently used first."""
        with self._lock:
            return sorted(self._entries.values(), key=lambda e: e.used)

    @property
    def parked(self) -> list[Entry]:
        """What waits elsewhere, the longest first."""
        with self._lock:
            return list(self._parked.values())

    @property
    def held(self) -> int:
        """Bytes of everything here, guests included."""
        return self.size(*self.guests(), *(e.thing for e in self.entries))

    def look(self, key: Key, name: str) -> Entry | None:
        """It, if it is here. It and the base beside it count as used now."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._touch(entry, name)
            return entry

    def once(self, key: Key, name: str, load: Callable[[], tuple[Any, str]], expected: Callable[[], int]) -> Any:
        """It, loaded if it is not here: `load` gives it with its digest, `expected` says beforehand how many bytes it takes.

        Threads that ask for the same thing wait for one load. If that fails, its error is whose load it was, and the next tries.
        """
        if entry := self.look(key, name):
            return entry.thing
        with self._lock:
            turn = self._turns.get(key)
            if turn is None:
                turn = self._turns[key] = _Turn()
        if self.memory is not None:
            coming = expected()
            with self._lock:
                self._coming[key] = coming
        try:
            self._make_room(key)  # before it is read: two models side by side may be more than there is
            with turn.lock:
                if entry := self.look(key, name):
                    return entry.thing
                thing, digest = self._again(key) or load()
                with self._lock:
                    self._entries[key] = Entry(key, thing, digest, {name}, next(self._clock))
                    self._coming.pop(key, None)
        finally:
            with self._lock:
                self._coming.pop(key, None)
        self.drop(lambda e: e.key.orphan or _replaced_by(e.key, key))
        self._make_room(key)
        return thing

    def drop(self, gone: Callable[[Entry], bool]) -> None:
        """Let go of these, and of everything made from them."""
        with self._lock:
            self._parked = {k: e for k, e in self._parked.items() if not gone(e)}
            left = [x for e in list(self._entries.values()) if gone(e) for x in self._remove(e)]
        self._leave(left)

    def dismiss(self, guest: Any) -> None:
        """A guest has left: let go of what was made from it, and tell everybody."""
        with self._lock:
            left = [x for e in list(self._entries.values()) if e.key.made_from(guest) for x in self._remove(e)]
        self._leave([*left, guest])

    def _touch(self, entry: Entry, name: str) -> None:
        entry.names.add(name)
        entry.used = next(self._clock)
        base = entry.key.beside and entry.key.beside()
        for other in self._entries.values():
            if base is not None and other.thing is base:
                other.used = next(self._clock)

    def _remove(self, entry: Entry) -> list[Any]:
        """Out of the dictionary with it and its kin; under the lock."""
        if self._entries.pop(entry.key, None) is None:
            return []
        kin = [e for e in self._entries.values() if e.key.made_from(entry.thing)]
        return [entry.thing, *(x for e in kin for x in self._remove(e))]

    def _make_room(self, key: Key) -> None:
        """Least recently used first, until everything fits; the thing of this key and the base beside it stay."""
        if self.memory is None:
            return
        base, left, idle = key.beside and key.beside(), [], list[Entry]()
        with self._lock:
            while (total := self._total()) > self.memory:
                others = [e for e in self._entries.values() if e.key != key and (base is None or e.thing is not base)]
                if not others:
                    break
                idle.append(min(others, key=lambda e: e.used))
                left += self._remove(idle[-1])
                del others
            alone = key in self._entries and total > self.memory
        self._wait(idle)
        self._leave(left)
        if alone:
            note(f"models take {total / 2**30:.3g} GiB, more than the limit of {self.memory / 2**30:.3g} GiB: "
                 "what is left cannot leave now. Raise the limit, or unload what you added.")  # fmt: skip

    def _wait(self, idle: list[Entry]) -> None:
        """Put what leaves where it may wait, while there is memory for it; what waits longest gives way. Empties the list."""
        while idle:
            entry = idle.pop(0)
            if self.park is None or entry.key.beside is not None:  # what was made for a base has no use without it
                continue
            need = self.size(entry.thing)
            while need > self.spare() and self._parked:
                with self._lock:
                    del self._parked[next(iter(self._parked))]
                self.free()
            copy = self.park(entry.thing) if need <= self.spare() else None
            if copy is not None:
                with self._lock:
                    self._parked[entry.key] = Entry(entry.key, copy, entry.digest, entry.names)
            del entry, copy

    def _again(self, key: Key) -> tuple[Any, str] | None:
        """What has waited elsewhere, as it was, with its digest."""
        with self._lock:
            entry = self._parked.pop(key, None)
        return None if entry is None or self.back is None else (self.back(entry.thing, key), entry.digest)

    def _total(self) -> int:
        coming = sum(n for k, n in self._coming.items() if k not in self._entries)
        return coming + self.size(*self.guests(), *(e.thing for e in self._entries.values()))

    def _leave(self, things: list[Any]) -> None:
        if not things:
            return
        while things:  # emptied on the way: what is still named here would not be freed
            for tell in list(self.on_leave):
                tell(things[0])
            del things[0]
        self.free()


def _replaced_by(old: Key, new: Key) -> bool:
    """The same file in an earlier state: nobody can ask for it any more."""
    path = getattr(new.version, "path", None)
    same = path is not None and getattr(old.version, "path", None) == path
    return same and old.version != new.version and old.what == new.what


def weakly(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """A bound method that does not keep whom it belongs to."""
    weak = WeakMethod(method)
    return lambda thing: (found := weak()) and found(thing)

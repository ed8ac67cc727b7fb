"""One database, SQLite or PostgreSQL: transactions that are whole or nothing, and letters where it does not do its part.

SQLite: a write-ahead log, so that readers never wait for the writer. `synchronous=FULL`: with NORMAL a killed process loses
nothing either, but a machine that loses its power forgets what it acknowledged last; a job takes seconds, so it can
afford the fsync of each commit. Writers begin with BEGIN IMMEDIATE: what they read before they write is then still true,
and two of them wait for each other at the door, not in the middle.

PostgreSQL: rows are locked where they are read (FOR UPDATE); those that only one may have are looked for among the rows
that nobody holds (SKIP LOCKED). SQLite has no such words and needs none: SQLAlchemy leaves them out there.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Connection, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError

from infuse.errors import cut
from infuse.server.letters import StoreError

SYNCHRONOUS = "FULL"
KNOWN = ("sqlite", "postgresql")


class Database:
    """url: SQLAlchemy's. patience: seconds that somebody waits for others' locks. clock: seconds since 1970 for tests; else
    PostgreSQL's own, since the clocks of several machines differ, or this machine's.

    Raises StoreError for an address that means no database of ours.
    """

    def __init__(self, url: str, patience: float = 10.0, clock: Callable[[], float] | None = None) -> None:
        try:
            address = make_url(url)
        except ArgumentError:
            raise StoreError("store", f"{url!r} is no address of a database. Name a folder, or postgresql://user@host/name.") from None  # fmt: skip
        kind = address.get_backend_name()
        if kind not in KNOWN:
            raise StoreError("store", f"a store lies in SQLite or PostgreSQL, not in {kind}. Name a folder, or postgresql://user@host/name.")  # fmt: skip
        self.name = address.render_as_string(hide_password=True)
        self.patience, self.clock = patience, clock
        if kind == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
            if find_spec("psycopg") is None:
                raise StoreError("store", 'PostgreSQL is spoken to by psycopg, which is not installed: pip install "infuse[serve]".')  # fmt: skip
        self.engine = create_engine(address, pool_size=16, max_overflow=16, pool_timeout=patience)
        event.listen(self.engine, "connect", self._sqlite if kind == "sqlite" else self._postgresql)
        if kind == "sqlite":
            event.listen(self.engine, "begin", _begin)

    def close(self) -> None:
        self.engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that changes nothing. Raises StoreError."""
        with self._letters(), self.engine.connect() as c, c.begin():
            yield c

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction: all of it when it ends well, nothing of it otherwise. Raises StoreError."""
        with self._letters(), self.engine.connect().execution_options(writing=True) as c, c.begin():
            yield c

    def now(self, c: Connection, given: float | None = None) -> float:
        """The time that was given, or what the clock says."""
        if given is not None:
            return given
        if self.clock is None and c.dialect.name == "postgresql":
            return float(c.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return (self.clock or time.time)()

    # ── the two kinds ───────────────────────────────────────────────────────────────────────────────────────────────

    def _sqlite(self, connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver's guess
        for said in (f"busy_timeout={int(self.patience * 1000)}", "journal_mode=WAL", f"synchronous={SYNCHRONOUS}", "foreign_keys=ON"):  # fmt: skip
            self._patiently(lambda said=said: connection.execute(f"PRAGMA {said}").close())

    def _patiently(self, act: Callable[[], None]) -> None:
        """Becoming a WAL database is the one thing for which SQLite does not wait by itself."""
        until = time.monotonic() + self.patience
        while True:
            try:
                return act()
            except Exception as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _postgresql(self, connection: Any, _: Any) -> None:
        connection.execute(f"SET lock_timeout = {int(self.patience * 1000)}")
        connection.execute("SET synchronous_commit = on")  # whatever the server's default is
        connection.commit()

    @contextmanager
    def _letters(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise  # ours to foresee
        except DBAPIError as error:
            raise StoreError("store", self._what(error)) from error

    def _what(self, error: DBAPIError) -> str:
        said = str(error.orig).strip().partition("\n")[0].lower()
        state = getattr(error.orig, "sqlstate", None)
        match said, state:
            case (text, "55P03" | "40P01") | (text, None) if state or "locked" in text or "busy" in text:
                return (f"the database {self.name} is held by another program, and {self.patience:g} s of waiting did not help. Close what "
                        "writes to it (a shell, a backup, a hung server), and ask again; nothing was changed.")  # fmt: skip
            case (text, "53100") | (text, None) if state or "full" in text:
                return full(f"the database {self.name}")
            case (text, _) if "not a database" in text or "malformed" in text:
                return f"{self.name} is broken, or no SQLite database. Name another store, or bring this one back from a backup."
            case (text, _) if "readonly" in text or "read-only" in text or "unable to open" in text:
                return f"the database {self.name} cannot be opened for writing. Check that its folder is there and yours to write."
            case _:
                return f"the database {self.name} did not do its part ({cut(said, 300)}). See that it runs, and ask again; nothing was changed."


def full(what: str) -> str:
    """The letter's text when a disk has no room."""
    return f"the disk of {what} is full. Make room on it, or let the store keep less (sweep), and ask again; nothing was half written."


def _begin(c: Connection) -> None:
    c.exec_driver_sql("BEGIN IMMEDIATE" if c.get_execution_options().get("writing") else "BEGIN")


def added(c: Connection, table: Table, **row: Any) -> None:
    """Insert a row unless there is one of its primary key already."""
    kinds = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    c.execute(kinds[c.dialect.name](table).values(**row).on_conflict_do_nothing())


@contextmanager
def writes(what: str) -> Iterator[None]:
    """Files are written inside: a full disk, or a folder that is not ours, is a letter."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError("store", full(what)) from error
        raise StoreError("store", f"{what} cannot be written ({error.strerror}). Check that the folder is there and yours to write.") from error  # fmt: skip

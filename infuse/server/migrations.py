"""A database knows the version of its tables. An older one takes the steps that it lacks; a newer one is left alone.

A new database is made from the tables as they are today. `STEPS[n]` brings one of version n - 1 to n, and is never
changed once it was published.
"""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection, insert, inspect, select, text, update

from infuse.server.letters import StoreError
from infuse.server.tables import about, schema

FIRST = 1
STEPS: dict[int, Callable[[Connection], None]] = {}


def newest() -> int:
    return FIRST + len(STEPS)


def version(c: Connection) -> int | None:
    """None of an empty database. Raises StoreError of one that holds other tables."""
    names = set(inspect(c).get_table_names())
    if about.name in names:
        found = c.execute(select(about.c.value).where(about.c.key == "schema")).scalar()
        if found is not None:
            return int(found)
    if names & set(schema.tables):
        raise StoreError(
            "store", "this database holds tables of another program. Name a new file, or an empty database."
        )
    return None


def bring_up(c: Connection) -> None:
    """Make the tables, or bring them to this version, within the caller's transaction. Raises StoreError."""
    if c.dialect.name == "postgresql":  # one opener at a time; SQLite's writers are one at a time anyway
        c.execute(text("SELECT pg_advisory_xact_lock(20261127)"))
    found, wanted = version(c), newest()
    if found is None:
        schema.create_all(c)
        c.execute(insert(about), [{"key": "schema", "value": str(wanted)}, {"key": "files", "value": ""}])
        return
    if found > wanted:
        raise StoreError("store", f"this store was written by a newer infuse (its tables are of version {found}, this infuse knows {wanted}). "
                                  "Update infuse, or name another store.")  # fmt: skip
    for step in range(found + 1, wanted + 1):
        STEPS[step](c)
    if found < wanted:
        c.execute(update(about).where(about.c.key == "schema").values(value=str(wanted)))

"""What happened to a job, one event after another, for whoever watches now or comes back later.

Ids grow by one within a job, under the lock of its row, so that nobody who asks for what came after an id misses any. Of
steps and previews only the newest is kept: a job of a thousand steps has one row of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from infuse.errors import cut
from infuse.server.jobs import Event
from infuse.server.tables import events, jobs

WORKERS = ("step", "preview", "warning")
"""What a worker tells; all others are told by what is done to a job: queued, started, done, failed, cancelled."""
OVERWRITTEN = ("step", "preview")
LONGEST = 4000
"""Characters of an event's data."""


def tell(c: Connection, job: str, kind: str, now: float, data: Mapping[str, Any] | None = None) -> int:
    """Write an event; its id. The caller's transaction changes the job's row, or has locked it."""
    id = c.execute(
        update(jobs).where(jobs.c.id == job).values(told=jobs.c.told + 1).returning(jobs.c.told)
    ).scalar_one()
    if kind in OVERWRITTEN:
        c.execute(delete(events).where(events.c.job == job, events.c.kind == kind))
    text = json.dumps({k: cut(v, LONGEST // 2) if isinstance(v, str) else v for k, v in (data or {}).items()})
    if len(text) > LONGEST:
        text = json.dumps({"said": cut(text, LONGEST // 2)})
    c.execute(insert(events).values(job=job, id=id, kind=kind, at=now, data=text))
    return id


def after(c: Connection, job: str, id: int, most: int) -> list[Event]:
    rows = c.execute(
        select(events).where(events.c.job == job, events.c.id > id).order_by(events.c.id).limit(most)
    ).all()
    return [Event(r.job, r.id, r.kind, r.at, json.loads(r.data)) for r in rows]

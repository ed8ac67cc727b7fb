"""Who works on what, and until when. A worker that dies says nothing; its lease ends, and the job runs again.

Each lease of a job has a number, greater than those before it (a fencing token). Whoever speaks with an older one is
refused, however late it wakes up; whoever holds the newest is heard even past its time, as long as nobody else was given
the job. All functions run inside of the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, select, update

from infuse.server.history import tell
from infuse.server.jobs import COLUMNS, Job, Lease, job_of, look
from infuse.server.letters import LeaseLost, StoreError, UnknownJob, problem
from infuse.server.tables import jobs
from infuse.server.turns import Quota, due, fitting, line, place

FREE = {"worker": None, "leased_until": None}


def claim(c: Connection, worker: str, n: int, seconds: float, quota: Quota, now: float) -> list[Lease]:
    """Up to n waiting jobs, whose turn it is."""
    expire(c, now)
    waiting = line(quota)
    picked: dict[str, list[str]] = {}
    rows = c.execute(
        select(jobs.c.id, jobs.c.owner)
        .join(waiting, waiting.c.id == jobs.c.id)
        .where(jobs.c.state == "waiting", due(waiting))  # the state once more: PostgreSQL asks it again of a row that has changed
        .order_by(waiting.c.turn, waiting.c.served, jobs.c.id)
        .limit(n)
        .with_for_update(of=jobs, skip_locked=True)
    ).all()  # fmt: skip
    for id, owner in rows:
        picked.setdefault(owner, []).append(id)
    fit = set(fitting(c, picked, quota))
    return [_begun(c, id, worker, seconds, now) for id, _ in rows if id in fit]


def _begun(c: Connection, id: str, worker: str, seconds: float, now: float) -> Lease:
    said = {"state": "running", "worker": worker, "started": now, "leased_until": now + seconds,
            "attempts": jobs.c.attempts + 1, "fence": jobs.c.fence + 1}  # fmt: skip
    fence = c.execute(update(jobs).where(jobs.c.id == id).values(**said).returning(jobs.c.fence)).scalar_one()
    job = look(c, id)
    tell(c, id, "started", now, {"attempt": job.attempts})
    return Lease(look(c, id), fence, now + seconds, seconds)


def held(c: Connection, lease: Lease) -> Job:
    """The job as it is now, locked. Raises LeaseLost if it is not this worker's any more."""
    try:
        job = look(c, lease.job.id, lock=True)
    except UnknownJob:
        raise LeaseLost("job", f"job {lease.job.id} was deleted. Drop what was made for it.") from None
    if job.state != "running" or fence_of(c, job.id) != lease.fence:
        raise LeaseLost("job", f"job {job.id} is {job.state} and not this worker's any more: its lease ended at {lease.until:.0f}. Drop what "
                               "was made for it, and claim again.")  # fmt: skip
    return job


def fence_of(c: Connection, id: str) -> int:
    return c.execute(select(jobs.c.fence).where(jobs.c.id == id)).scalar_one()


def renew(c: Connection, lease: Lease, seconds: float, now: float) -> Lease:
    held(c, lease)
    c.execute(update(jobs).where(jobs.c.id == lease.job.id).values(leased_until=now + seconds))
    return replace(lease, job=look(c, lease.job.id), until=now + seconds, seconds=seconds)


def end(c: Connection, id: str, state: str, now: float, data: Mapping[str, Any] | None = None, **values: Any) -> None:
    """The last word on a job, which nobody holds from now on."""
    c.execute(update(jobs).where(jobs.c.id == id).values(state=state, ended=now, cancelling=0, **FREE, **values))
    tell(c, id, state, now, data)


def fail(c: Connection, id: str, told: Mapping[str, Any], now: float) -> None:
    end(c, id, "failed", now, {"error": dict(told)}, error=json.dumps(dict(told)))


def again(c: Connection, id: str, why: str, now: float, **values: Any) -> None:
    """It waits once more, where it stood before."""
    c.execute(update(jobs).where(jobs.c.id == id).values(state="waiting", ended=None, error=None, **FREE, **values))
    tell(c, id, "queued", now, {"place": place(c, id), "why": why})


def undone(c: Connection, job: Job, told: Mapping[str, Any], why: str, now: float) -> None:
    """An attempt came to nothing: cancelled if that was wished for, else once more if any attempts are left."""
    if job.cancelling:
        end(c, job.id, "cancelled", now)
    elif job.attempts < job.most_attempts:
        again(c, job.id, why, now)
    else:
        fail(c, job.id, told, now)


def expire(c: Connection, now: float) -> list[Job]:
    """Jobs whose lease has ended wait again, or have failed after their last attempt; as they were before."""
    rows: Iterable[Any] = c.execute(
        select(*COLUMNS)
        .where(jobs.c.state == "running", jobs.c.leased_until < now)
        .order_by(jobs.c.id)
        .with_for_update(skip_locked=True)
    ).all()
    ended = [job_of(row) for row in rows]
    for job in ended:
        lost = StoreError("", f"the worker {job.worker} began it for the {job.attempts}. time of {job.most_attempts}, and was not heard of again: it was "
                              "killed, lost its machine or hangs. Look into its log (memory is the usual reason); retry the job to "
                              "have it after all.")  # fmt: skip
        undone(c, job, problem(lost), f"the worker {job.worker} was not heard of again", now)
    return ended

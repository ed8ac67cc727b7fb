"""What may go: jobs that ended long ago, the oldest ones when there is too much, and files that nobody names.

A file stays as long as any row names it: a result, an upload, or the recipe of another job. Jobs that wait or run are
never touched. Rows go first and files after them, in a transaction of its own, so that a kill between both leaves files
too many, never too few.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select, union_all

from infuse.server.jobs import ENDED
from infuse.server.tables import about, blobs, jobs, results, uses


@dataclass(frozen=True)
class Keep:
    """How long, and how much. None: for ever, any number."""

    seconds: float | None = None
    """Since a job ended, or a file was uploaded."""
    bytes: int | None = None
    """Of all results and uploads together."""


@dataclass(frozen=True)
class Swept:
    """What a sweep did."""

    expired: int = 0
    """Leases that had ended."""
    jobs: int = 0
    blobs: int = 0
    bytes: int = 0
    """Freed on disk."""


def guard(c: Connection, alone: bool = False) -> None:
    """Whoever names files in rows passes together with others of its kind, and never with a sweep, which is alone."""
    c.execute(select(about.c.value).where(about.c.key == "files").with_for_update(read=not alone))


def old(c: Connection, before: float) -> tuple[int, int]:
    """Delete jobs that ended, and blobs that came, before a time; how many of each."""
    ids = c.execute(select(jobs.c.id).where(jobs.c.state.in_(ENDED), jobs.c.ended < before)).scalars().all()
    for id in ids:
        c.execute(delete(jobs).where(jobs.c.id == id))
    unused = blobs.c.sha256.not_in(select(uses.c.sha256))
    return len(ids), c.execute(delete(blobs).where(blobs.c.at < before, unused)).rowcount


def too_much(c: Connection, most: int) -> tuple[int, int]:
    """Delete the oldest ended jobs, and unused blobs of their age, until what is left has at most so many bytes; how many of each."""
    named = union_all(select(results.c.sha256, results.c.bytes), select(blobs.c.sha256, blobs.c.bytes)).subquery()
    sizes: dict[str, int] = dict(
        map(tuple, c.execute(select(named.c.sha256, func.max(named.c.bytes)).group_by(named.c.sha256)))
    )
    total = sum(sizes.values())
    if total <= most:
        return 0, 0
    held = Counter(c.execute(select(named.c.sha256)).scalars().all())
    held.update(c.execute(select(uses.c.sha256)).scalars().all())
    # (when, job or None, blob or None, files that it names)
    found: list[tuple[float, str | None, tuple[str, str] | None, list[str]]] = []
    made: dict[str, list[str]] = {}
    for job, sha256 in [*c.execute(select(results.c.job, results.c.sha256)), *c.execute(select(uses.c.job, uses.c.sha256))]:  # fmt: skip
        made.setdefault(job, []).append(sha256)
    for id, ended in c.execute(select(jobs.c.id, jobs.c.ended).where(jobs.c.state.in_(ENDED))):
        if id in made:
            found.append((ended, id, None, made[id]))
    unused = blobs.c.sha256.not_in(select(uses.c.sha256))
    for sha256, owner, at in c.execute(select(blobs.c.sha256, blobs.c.owner, blobs.c.at).where(unused)):
        found.append((at, None, (sha256, owner), [sha256]))
    deleted, gone = 0, 0
    for _, job, blob, files in sorted(found, key=lambda f: f[0]):
        if total <= most:
            break
        if job is not None:
            c.execute(delete(jobs).where(jobs.c.id == job))
            deleted += 1
        elif blob is not None:
            c.execute(delete(blobs).where(blobs.c.sha256 == blob[0], blobs.c.owner == blob[1]))
            gone += 1
        for sha256 in files:
            held[sha256] -= 1
            if not held[sha256]:
                total -= sizes.get(sha256, 0)
    return deleted, gone


def named(c: Connection) -> set[str]:
    """Every file that a row names."""
    return set(c.execute(union_all(*(select(t.c.sha256) for t in (results, blobs, uses)))).scalars().all())

"""The durable queue: what was asked, by whom, how far it is, and what came of it. It knows no recipes and no networks.

Whatever is acknowledged is on disk. A job is `waiting`, `running` in a worker's hands until its lease ends, and then `done`,
`failed` or `cancelled`; a worker that is killed lets its lease end, and the job waits again where it stood. Any number of
processes may use one store. Files (results, uploads) lie in a folder by their hash, rows in SQLite beside them, or in PostgreSQL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update

from infuse.server import history, keeping, leases, turns
from infuse.server.database import added
from infuse.server.jobs import COLUMNS, ENDED, STATES, Blob, Event, Job, Page, Request, State, Stored, job_of, look
from infuse.server.keeping import Swept
from infuse.server.letters import KeyTaken, UnknownJob, WrongState
from infuse.server.tables import blobs, jobs, owners, requests, results, uses
from infuse.server.work import Work

ATTEMPTS = 3
"""How often a job is begun before it has failed."""
FRESH = 3600.0
"""Seconds for which a file that no row names yet is somebody's who is about to name it."""


@dataclass(frozen=True)
class Ask:
    """A job to be. `asked` is the recipe's digest as it came, which an idempotency key stands for; `digest` the same with its
    random seed drawn; `uses` are the hashes of files that it names."""

    recipe: Mapping[str, Any]
    asked: str
    digest: str
    uses: Sequence[str] = ()
    dialect: str = "v1"
    beside: Any = None
    """What its dialect needs to answer, as plain data."""
    priority: int = 0
    """The higher, the sooner, among its owner's."""
    deadline: float | None = None
    """Seconds since 1970 by which it is wanted: among jobs of one priority the earlier goes first."""


class Store(Work):
    """A store as those see it who ask, and who look after it (`Opened` says how it is opened; `Work`, what workers do)."""

    # ── who asks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def submit(
        self, ask: Ask, owner: str = "", key: str | None = None, attempts: int = ATTEMPTS, made_with: str | None = None
    ) -> tuple[Job, bool]:
        """The job, and whether it is a new one.

        key: an idempotency key; whoever comes again with it gets the same job. made_with: a digest of the weights as they are now;
        if this owner has had the same recipe made with them, the answer is that one's, at once.
        Raises KeyTaken if the key stands for another recipe, QuotaError if no more may wait, UnknownJob of a file that is not there.
        """
        with self.database.writing() as c:
            now = self.database.now(c)
            turns.known(c, owner)
            if key is not None:
                mine = jobs.c.owner == owner, jobs.c.key == key
                if (row := c.execute(select(*COLUMNS, jobs.c.asked).where(*mine)).first()) is not None:
                    if row.asked != ask.asked:
                        raise KeyTaken("key", f"the idempotency key {key[:60]!r} stands for another recipe (job {row.id}). Use a new key for a new "
                                              "recipe.")  # fmt: skip
                    return job_of(row), False
            keeping.guard(c)
            for sha256 in ask.uses:
                self._mine(c, sha256, owner)
            twin = None if made_with is None else self._twin(c, ask.digest, owner, made_with)
            if twin is None:
                turns.room_to_wait(c, owner, self.quota)
            id = self._ids.new(now)
            c.execute(insert(jobs).values(
                id=id, owner=owner, state="waiting" if twin is None else "done", asked=ask.asked, digest=ask.digest, dialect=ask.dialect,
                made_with=made_with if twin else None, priority=ask.priority, deadline=ask.deadline, key=key, created=now,
                started=None if twin is None else now, ended=None if twin is None else now, most_attempts=attempts,
            ))  # fmt: skip
            beside = None if ask.beside is None else json.dumps(ask.beside)
            c.execute(insert(requests).values(job=id, recipe=json.dumps(dict(ask.recipe)), beside=beside))
            for sha256 in dict.fromkeys(ask.uses):
                c.execute(insert(uses).values(job=id, sha256=sha256))
            if twin is None:
                history.tell(c, id, "queued", now, {"place": turns.place(c, id)})
            else:
                for row in twin:
                    c.execute(insert(results).values(job=id, number=row.number, sha256=row.sha256,
                                                     media_type=row.media_type, bytes=row.bytes, seed=row.seed))  # fmt: skip
                history.tell(c, id, "done", now, {"results": len(twin), "from": twin[0].job})
            return look(c, id), True

    def _mine(self, c: Any, sha256: str, owner: str) -> None:
        own = select(results.c.sha256).join(jobs, jobs.c.id == results.c.job).where(jobs.c.owner == owner)
        uploaded = select(blobs.c.sha256).where(blobs.c.owner == owner, blobs.c.sha256 == sha256)
        known = c.execute(uploaded).first() or c.execute(own.where(results.c.sha256 == sha256)).first()
        if known is None or not self.files.there(sha256):
            raise UnknownJob("", f"there is no file sha256:{sha256[:64]} of this key. Upload it first (POST /blobs), or again.")  # fmt: skip

    def _twin(self, c: Any, digest: str, owner: str, made_with: str) -> list[Stored] | None:
        """Results of the newest job that asked for the same, if all of them are still what they were."""
        same = jobs.c.digest == digest, jobs.c.owner == owner, jobs.c.state == "done", jobs.c.made_with == made_with
        id = c.execute(select(jobs.c.id).where(*same).order_by(jobs.c.id.desc()).limit(1)).scalar()
        found = [] if id is None else _results(c, id)
        return found if found and all(self.files.whole(r.sha256) for r in found) else None

    def job(self, id: str, owner: str | None = None) -> Job:
        """owner: whose it must be; None is anybody's. Raises UnknownJob."""
        with self.database.reading() as c:
            return look(c, id, owner)

    def jobs(
        self, owner: str | None = None, states: Sequence[State] = STATES, after: str | None = None, most: int = 50
    ) -> Page:
        """The newest first. after: the last id of the page before."""
        asked = select(*COLUMNS).where(jobs.c.state.in_(states))
        if owner is not None:
            asked = asked.where(jobs.c.owner == owner)
        if after is not None:
            asked = asked.where(jobs.c.id < after)
        with self.database.reading() as c:
            rows = c.execute(asked.order_by(jobs.c.id.desc()).limit(most + 1)).all()
        found = [job_of(row) for row in rows[:most]]
        return Page(found, found[-1].id if len(rows) > most else None)

    def place(self, id: str, owner: str | None = None) -> int | None:
        """How many are served before it, and itself; None of a job that does not wait. Raises UnknownJob."""
        with self.database.reading() as c:
            look(c, id, owner)
            return turns.place(c, id)

    def request(self, id: str, owner: str | None = None) -> Request:
        """What was asked. Raises UnknownJob."""
        with self.database.reading() as c:
            look(c, id, owner)
            row = c.execute(select(requests).where(requests.c.job == id)).one()
        return Request(json.loads(row.recipe), None if row.beside is None else json.loads(row.beside))

    def events(self, id: str, after: int = 0, owner: str | None = None, most: int = 100) -> list[Event]:
        """What happened after an event, in order. Raises UnknownJob."""
        with self.database.reading() as c:
            look(c, id, owner)
            return history.after(c, id, after, most)

    def cancel(self, id: str, owner: str | None = None) -> Job:
        """A waiting job is cancelled at once; of a running one its worker is told (`Lease.cancelled`). Twice is as good as once.
        Raises UnknownJob, and WrongState of a job that is done or has failed."""
        with self.database.writing() as c:
            job = look(c, id, owner, lock=True)
            if job.state == "waiting":
                leases.end(c, id, "cancelled", self.database.now(c))
            elif job.state == "running":
                c.execute(update(jobs).where(jobs.c.id == id).values(cancelling=1))
            elif job.state != "cancelled":
                raise WrongState("job", f"job {id} is {job.state} already. There is nothing left to cancel.")
            return look(c, id)

    def retry(self, id: str, owner: str | None = None) -> Job:
        """A job that failed or was cancelled waits again, at the end of its owner's line no later than its arrival says.
        Raises UnknownJob, QuotaError, and WrongState of any other."""
        with self.database.writing() as c:
            job = look(c, id, owner, lock=True)
            if job.state not in ("failed", "cancelled"):
                raise WrongState(
                    "job", f"job {id} is {job.state}. Only what failed or was cancelled can be tried again."
                )
            turns.known(c, job.owner)
            turns.room_to_wait(c, job.owner, self.quota)
            c.execute(delete(results).where(results.c.job == id))
            leases.again(c, id, "retried", self.database.now(c), attempts=0)
            return look(c, id)

    def results(self, id: str, owner: str | None = None) -> list[Stored]:
        """What it made, in the order of the seeds; nothing before it is done. Raises UnknownJob."""
        with self.database.reading() as c:
            look(c, id, owner)
            return _results(c, id)

    def read(self, stored: Stored) -> bytes:
        """Raises StoreError if the file is gone, or not what was written."""
        return self.files.read(stored.sha256, f"result {stored.number} of job {stored.job}")

    def previewed(self, id: str, owner: str | None = None) -> bytes | None:
        """The newest preview of a running job. Raises UnknownJob."""
        self.job(id, owner)
        return self.files.previewed(id)

    def upload(self, data: bytes, media_type: str, owner: str = "") -> Blob:
        """Keep a file that recipes can name by its hash. The same file twice is one."""
        sha256 = self.files.put(data)
        with self.database.writing() as c:
            keeping.guard(c)
            turns.known(c, owner)
            now = self.database.now(c)
            added(c, blobs, sha256=sha256, owner=owner, media_type=media_type, bytes=len(data), at=now)
            c.execute(update(blobs).where(blobs.c.sha256 == sha256, blobs.c.owner == owner).values(at=now))
        return Blob(sha256, owner, media_type, len(data), now)

    def file(self, sha256: str, owner: str = "") -> bytes:
        """An upload or result of this owner. Raises UnknownJob, StoreError."""
        with self.database.reading() as c:
            self._mine(c, sha256, owner)
        return self.files.read(sha256, f"the file sha256:{sha256[:12]}...")

    # ── who looks after it ──────────────────────────────────────────────────────────────────────────────────────────

    def limit(self, owner: str, waiting: int | None = None, running: int | None = None) -> None:
        """An owner's own quota; None: that of the store."""
        with self.database.writing() as c:
            turns.known(c, owner)
            c.execute(update(owners).where(owners.c.owner == owner).values(most_waiting=waiting, most_running=running))

    def counts(self) -> dict[State, int]:
        """How many jobs there are of each state."""
        with self.database.reading() as c:
            rows = c.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state)).all()
        found: dict[str, int] = {state: n for state, n in rows}  # noqa: C416  rows are no tuples to pyright
        return {state: found.get(state, 0) for state in STATES}

    def delete(self, id: str, owner: str | None = None) -> None:
        """Forget a job that has ended; its files go with the next sweep. Raises UnknownJob, WrongState."""
        with self.database.writing() as c:
            job = look(c, id, owner, lock=True)
            if job.state not in ENDED:
                raise WrongState("job", f"job {id} is {job.state}. Cancel it first.")
            c.execute(delete(jobs).where(jobs.c.id == id))

    def sweep(self, fresh: float = FRESH) -> Swept:
        """End leases whose time is over, delete what `keep` lets go, and files that nobody names and nobody has written for
        `fresh` seconds."""
        with self.database.writing() as c:
            now = self.database.now(c)
            expired = len(leases.expire(c, now))
            gone = (0, 0) if self.keep.seconds is None else keeping.old(c, now - self.keep.seconds)
            more = (0, 0) if self.keep.bytes is None else keeping.too_much(c, self.keep.bytes)
        freed = 0
        with self.database.writing() as c:
            keeping.guard(c, alone=True)
            named = keeping.named(c)
            freed = sum(self.files.remove(sha256) for sha256 in self.files.idle(fresh) if sha256 not in named)
            running = set(c.execute(select(jobs.c.id).where(jobs.c.state == "running")).scalars())
        self.files.tidy(running, fresh)
        return Swept(expired, gone[0] + more[0], gone[1] + more[1], freed)


def _results(c: Any, id: str) -> list[Stored]:
    rows = c.execute(select(results).where(results.c.job == id).order_by(results.c.number)).all()
    return [Stored(r.job, r.number, r.sha256, r.media_type, r.bytes, r.seed) for r in rows]

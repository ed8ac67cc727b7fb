"""What workers do with a store: take jobs whose turn it is, say how far they are, and bring what they made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, insert, update

from infuse.errors import RecipeError, WeightsError
from infuse.server import history, keeping, leases
from infuse.server.jobs import Job, Lease, Made, look
from infuse.server.letters import problem
from infuse.server.opened import Opened
from infuse.server.tables import jobs, results


class Work(Opened):
    """A store as its workers see it. Whoever speaks of a job that is not its own any more reads LeaseLost, and drops what it made."""

    def claim(self, worker: str, n: int = 1, seconds: float = 60.0) -> list[Lease]:
        """Up to n jobs whose turn it is, for so long unless renewed; those whose lease has ended wait again before."""
        with self.database.writing() as c:
            return leases.claim(c, worker, n, seconds, self.quota, self.database.now(c))

    def renew(self, lease: Lease, seconds: float | None = None) -> Lease:
        """Hold it on, and hear whether it was cancelled. Raises LeaseLost."""
        with self.database.writing() as c:
            return leases.renew(c, lease, seconds or lease.seconds, self.database.now(c))

    def tell(self, lease: Lease, kind: str, data: Mapping[str, Any] | None = None, preview: bytes | None = None) -> int:
        """A step, preview or warning of a job that is held; the event's id. Raises LeaseLost, ValueError of another kind."""
        if kind not in history.WORKERS:
            raise ValueError(f"{kind!r} is told by the store itself; a worker tells {', '.join(history.WORKERS)}")
        if preview is not None:
            self.files.preview(lease.job.id, preview)
        with self.database.writing() as c:
            leases.held(c, lease)
            return history.tell(c, lease.job.id, kind, self.database.now(c), data)

    def done(self, lease: Lease, made: Sequence[Made], made_with: str = "") -> Job:
        """What it made is on disk, and the job done. made_with: a digest of its weights. Raises LeaseLost, StoreError."""
        kept = [self.files.put(m.data) for m in made]
        with self.database.writing() as c:
            keeping.guard(c)
            leases.held(c, lease)
            id = lease.job.id
            c.execute(delete(results).where(results.c.job == id))
            for n, (sha256, m) in enumerate(zip(kept, made, strict=True)):
                c.execute(insert(results).values(
                    job=id, number=n, sha256=sha256, media_type=m.media_type, bytes=len(m.data), seed=m.seed,
                ))  # fmt: skip
            leases.end(c, id, "done", self.database.now(c), {"results": len(made)}, made_with=made_with)
            job = look(c, id)
        self.files.forget_preview(id)
        return job

    def failed(self, lease: Lease, error: BaseException) -> Job:
        """It cannot be made. A letter about the recipe or its weights is final; whatever else may go better the next time, if any is left.
        Raises LeaseLost."""
        with self.database.writing() as c:
            job, now = leases.held(c, lease), self.database.now(c)
            if isinstance(error, RecipeError | WeightsError) and not job.cancelling:
                leases.fail(c, job.id, problem(error), now)
            else:
                leases.undone(c, job, problem(error), str(problem(error)["fact"]), now)
            return look(c, job.id)

    def stopped(self, lease: Lease, why: str = "its worker was stopped") -> Job:
        """Its worker leaves it: cancelled if that was wished, else it waits again, and this attempt does not count.
        Raises LeaseLost."""
        with self.database.writing() as c:
            job, now = leases.held(c, lease), self.database.now(c)
            if job.cancelling:
                leases.end(c, job.id, "cancelled", now)
            else:
                leases.again(c, job.id, why, now, attempts=max(0, job.attempts - 1))
            return look(c, job.id)

    def gone(self, worker: str) -> list[Job]:
        """This worker is known to be dead: what it held waits again now, as if its leases had ended."""
        with self.database.writing() as c:
            now = self.database.now(c)
            c.execute(
                update(jobs).where(jobs.c.state == "running", jobs.c.worker == worker).values(leased_until=now - 1)
            )
            return leases.expire(c, now)

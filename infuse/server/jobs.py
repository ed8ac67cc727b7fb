"""What the store says of a job: frozen records, read from rows, with no way back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, select

from infuse.server.letters import UnknownJob
from infuse.server.tables import jobs

State = Literal["waiting", "running", "done", "failed", "cancelled"]
STATES: tuple[State, ...] = get_args(State)
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Job:
    """One request, as the store knows it now. Times are seconds since 1970."""

    id: str
    """32 hexadecimal digits; those of later jobs are greater."""
    owner: str
    """Whose key asked; "" where keys are not asked for."""
    state: State
    digest: str
    """`Recipe.digest`, its random seed drawn."""
    dialect: str
    priority: int
    """The higher, the sooner, among one owner's."""
    deadline: float | None
    key: str | None
    """The idempotency key that it was submitted with."""
    created: float
    started: float | None
    """When its newest attempt began."""
    ended: float | None
    attempts: int
    """How often it was begun since it was submitted, or retried."""
    most_attempts: int
    error: Mapping[str, Any] | None
    """`kind`, `field`, `fact` and `remedy` of what it failed by."""
    worker: str | None
    """Who holds it."""
    leased_until: float | None
    cancelling: bool
    """It was cancelled while it runs, and its worker has not heard of it yet."""
    told: int
    """The id of its newest event."""

    @property
    def ended_well(self) -> bool:
        return self.state == "done"


@dataclass(frozen=True)
class Lease:
    """A job in one worker's hands, until a time."""

    job: Job
    fence: int
    """Grows with each lease of the job: whoever holds an older one is refused."""
    until: float
    seconds: float
    """How long it is renewed for."""

    @property
    def cancelled(self) -> bool:
        """Whoever holds it should stop, and call `stopped`."""
        return self.job.cancelling


@dataclass(frozen=True)
class Request:
    """What was asked: the recipe as plain data, and what its dialect needs to answer besides."""

    recipe: dict[str, Any]
    beside: Any = None


@dataclass(frozen=True)
class Made:
    """A file that a job made."""

    data: bytes
    media_type: str = "image/png"
    seed: int | None = None


@dataclass(frozen=True)
class Stored:
    """A result as it is kept; `Store.read` gives its bytes."""

    job: str
    number: int
    """From 0, in the order of the seeds."""
    sha256: str
    media_type: str
    bytes: int
    seed: int | None


@dataclass(frozen=True)
class Blob:
    """An upload. A recipe names it `sha256:<its sha256>`."""

    sha256: str
    owner: str
    media_type: str
    bytes: int
    at: float


@dataclass(frozen=True)
class Event:
    """Something happened to a job. Ids of one job grow; those of overwritten steps are missing."""

    job: str
    id: int
    kind: str
    at: float
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Page:
    """Some jobs of a list, and where the next page begins (None: this is the last)."""

    jobs: Sequence[Job]
    after: str | None


COLUMNS = [jobs.c[f.name] for f in fields(Job)]


def job_of(row: Row[Any]) -> Job:
    said = {f.name: getattr(row, f.name) for f in fields(Job)}
    error = said["error"]
    return Job(**{**said, "error": None if error is None else json.loads(error), "cancelling": bool(said["cancelling"])})  # fmt: skip


def look(c: Connection, id: str, owner: str | None = None, lock: bool = False) -> Job:
    """The job; with `lock` nobody else changes it until the transaction ends. Raises UnknownJob."""
    asked = select(*COLUMNS).where(jobs.c.id == id)
    row = c.execute(asked.with_for_update() if lock else asked).first()
    if row is None or owner not in (None, row.owner):
        raise UnknownJob("job", f"there is no job {id[:40]!r}. See the list of jobs; what is old is deleted in time.")
    return job_of(row)

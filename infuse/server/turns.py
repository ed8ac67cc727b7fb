"""Whose turn is it: owners take turns, and within one owner's jobs priority counts, then deadline, then arrival.

A job's turn is how many jobs its owner would have running with it. The lowest turns are served first, so that whoever has
a thousand jobs waiting delays somebody with one by at most one job; among equals goes who was served longest ago.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, Subquery, func, or_, select, update

from infuse.server.database import added
from infuse.server.letters import QuotaError
from infuse.server.tables import jobs, owners


@dataclass(frozen=True)
class Quota:
    """How many jobs an owner may have at once; None: any number."""

    waiting: int | None = None
    running: int | None = None


def line(quota: Quota) -> Subquery:
    """All waiting jobs: `id`, `turn`, `served`, and `most`, the turn from which their owner has to wait."""
    running = (
        select(jobs.c.owner, func.count().label("n")).where(jobs.c.state == "running").group_by(jobs.c.owner).subquery()
    )
    own = func.row_number().over(
        partition_by=jobs.c.owner, order_by=(jobs.c.priority.desc(), jobs.c.deadline.asc().nulls_last(), jobs.c.id)
    )
    return (
        select(
            jobs.c.id,
            (own + func.coalesce(running.c.n, 0)).label("turn"),
            owners.c.served,
            func.coalesce(owners.c.most_running, quota.running).label("most"),
        )
        .join(owners, owners.c.owner == jobs.c.owner)
        .outerjoin(running, running.c.owner == jobs.c.owner)
        .where(jobs.c.state == "waiting")
        .subquery()
    )


def due(waiting: Subquery) -> ColumnElement[bool]:
    return or_(waiting.c.most.is_(None), waiting.c.turn <= waiting.c.most)


def place(c: Connection, id: str) -> int | None:
    """How many go before it, and itself: 1 is next. None of a job that does not wait."""
    waiting = line(Quota())
    number = func.row_number().over(order_by=(waiting.c.turn, waiting.c.served, waiting.c.id)).label("number")
    ordered = select(waiting.c.id, number).subquery()
    return c.execute(select(ordered.c.number).where(ordered.c.id == id)).scalar()


def known(c: Connection, owner: str) -> None:
    """This owner has a row, and nobody else counts its jobs until the transaction ends."""
    added(c, owners, owner=owner, served=0)
    c.execute(select(owners.c.owner).where(owners.c.owner == owner).with_for_update())


def counted(c: Connection, owner: str, state: str) -> int:
    return c.execute(select(func.count()).where(jobs.c.owner == owner, jobs.c.state == state)).scalar_one()


def room_to_wait(c: Connection, owner: str, quota: Quota) -> None:
    """Raises QuotaError if one more job may not wait. The owner is locked by `known`."""
    own = c.execute(select(owners.c.most_waiting).where(owners.c.owner == owner)).scalar()
    most = quota.waiting if own is None else own
    if most is not None and (n := counted(c, owner, "waiting")) >= most:
        raise QuotaError("", f"{n} jobs of this key wait already, and {most} may. Submit it again when some of them have begun, or cancel some.")  # fmt: skip


def fitting(c: Connection, picked: dict[str, list[str]], quota: Quota) -> list[str]:
    """Of jobs that were picked for each owner those that may run, and the owners' turns taken.

    Two workers of PostgreSQL may pick at once, each without what the other did; here they pass one after the other.
    """
    fit: list[str] = []
    for owner in sorted(picked):  # always in this order, so that no two wait for each other
        own = c.execute(select(owners.c.most_running).where(owners.c.owner == owner).with_for_update()).scalar()
        most = quota.running if own is None else own
        room = len(picked[owner]) if most is None else max(0, most - counted(c, owner, "running"))
        fit += picked[owner][:room]
        if room:
            newest = select(func.max(owners.c.served)).scalar_subquery()
            c.execute(update(owners).where(owners.c.owner == owner).values(served=newest + 1))
    return fit

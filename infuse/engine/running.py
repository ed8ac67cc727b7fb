"""A picture in line: its job, whose it is, and what the scheduler is told of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from infuse.encoders.kit import Base
from infuse.engine.costs import Costs, Party, cost
from infuse.engine.job import Job
from infuse.engine.scheduler import Waiting
from infuse.engine.ticket import Ticket


@dataclass(eq=False)
class Running:
    """One of a ticket's pictures."""

    job: Job
    base: Base
    ticket: Ticket
    arrived: int
    party: Party

    @property
    def bucket(self) -> Hashable:
        return (id(self.base.network), self.job.shape)

    def waiting(self, costs: Costs, slo: float | None) -> Waiting:
        """slo: its party should be done within so many times what it takes alone; None: it has no deadline."""
        if slo is None:
            return Waiting(self, self.bucket, id(self.ticket), self.job.width, self.arrived)
        work = cost(self.job)
        until = self.party.deadline(slo, costs.of(self.bucket), work)
        left = self.job.n - self.job.i
        return Waiting(self, self.bucket, id(self.party), self.job.width, self.arrived, until, left, work)

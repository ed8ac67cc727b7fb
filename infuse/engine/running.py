"""A picture in line: its job, whose it is, and what the scheduler is told of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from math import inf

from infuse.encoders.kit import Base
from infuse.engine.costs import Costs, Party, cost
from infuse.engine.job import Job
from infuse.engine.scheduler import Waiting
from infuse.engine.ticket import Ticket
from infuse.errors import RecipeError

SLO = 3.0
"""A request should be done in so many times what it takes alone."""


def urgency(slo: float | str | None, device: str) -> float | None:
    """`auto`: SLO on a CPU. A GPU's calls return before they are done, so that nothing is known of their cost yet: by turns.

    Raises RecipeError under `slo` for what is no positive number.
    """
    if slo == "auto":
        return SLO if device == "cpu" else None
    if slo is None or (isinstance(slo, int | float) and not isinstance(slo, bool) and 0 < slo < inf):
        return slo
    raise RecipeError("slo", f"{slo!r} is not a number above 0. Say how many times what it takes alone a request may take; None: by turns.")  # fmt: skip


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
        same = (id(self.base.network), self.job.shape)
        return same if self.job.shortcut is None else (*same, self.job.shortcut)

    def leave(self) -> None:
        """It is given up, and what was kept for it."""
        self.base.network.constants.clear()
        self.job.memory.clear()

    def waiting(self, costs: Costs, slo: float | None) -> Waiting:
        """slo: its party should be done within so many times what it takes alone; None: it has no deadline."""
        if slo is None:
            return Waiting(self, self.bucket, id(self.ticket), self.job.width, self.arrived)
        work = cost(self.job)
        until = self.party.deadline(slo, costs.of(self.bucket), work)
        left, came = self.job.n - self.job.i, self.party.came
        alone = (until - came) / slo
        return Waiting(self, self.bucket, id(self.party), self.job.width, self.arrived, until, left, work, came, alone)

"""A crowd at one engine: requests drawn by chance, what befalls each of them, and the threads that bring them.

A request is known by its seeds, which no other has: whoever meets a job of it deep inside of the engine can tell whose it
is. So its fate is settled before it is submitted, and nothing here races with the threads that step.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import random
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn import SIZES as SIZES
from drawn import Draw
from drawn import calls as calls
from drawn import engine as engine
from drawn import parts as parts

from infuse import Cancelled, CapacityError, Recipe
from infuse.batch import Row
from infuse.engine import placement
from infuse.engine.engine import Engine
from infuse.engine.job import Job
from infuse.engine.ticket import Ticket

CLOSE = 1e-10


# ── what befalls it ─────────────────────────────────────────────────────────────────────────────────────────────────

FAILURES = ("encode", "start", "rows", "network", "memory", "solver", "decode")
"""Where a request fails, or one of its jobs."""
WATCH, IN_WATCH, BY_USER = "its watch breaks", "cancelled in its watch", "cancelled by its user"
MANY = 10
"""Seeds from one request to the next."""


class Doom(RuntimeError):
    pass


@dataclass(frozen=True)
class Request:
    """A recipe and its fate, which strikes the job of seed `struck` when so much of it (0-1) is done."""

    number: int
    recipe: Recipe
    fate: str
    struck: int
    when: float

    @property
    def told(self) -> str:
        return f"request {self.number} was to fail"

    @property
    def doom(self) -> Doom:
        return Doom(self.told)

    def is_doom(self, error: BaseException) -> bool:
        kind = CapacityError if self.fate == "memory" else Doom
        return self.fate in FAILURES and isinstance(error, kind) and self.told in str(error)


def requests(seed: int, count: int, **how: tuple[int, ...]) -> list[Request]:
    """One in ten fails somewhere, one in ten is given up, and of some the watch breaks."""
    draw, out = Draw(random.Random(seed), **how), []
    for number in range(count):
        recipe = draw.recipe(MANY * number)
        (kind,) = draw.dice.choices(("fails", "given up", WATCH, "fine"), (0.1, 0.1, 0.05, 0.75))
        fate = {"fails": draw.one(*FAILURES), "given up": draw.one(IN_WATCH, BY_USER)}.get(kind, kind)
        struck = recipe.seed + draw.dice.randrange(recipe.count)
        out.append(Request(number, recipe, fate, struck, draw.dice.random()))
    return out


@dataclass(frozen=True, eq=False)
class Doomed(Row):
    """A row that the network cannot answer."""

    why: Callable[[], Exception] = Doom


@contextmanager
def fated(made: Engine, asked: Sequence[Request], room: int) -> Iterator[None]:
    """In here every request meets its fate, and the memory is enough for `room` rows at a time."""
    by_seed = {r.struck: r for r in asked}
    of_recipe = {r.recipe.seed: r for r in asked}
    job, asking, loop = (sys.modules[f"infuse.engine.{name}"] for name in ("job", "asking", "engine"))
    own = {"solve": job.solve, "rows": Job.rows, "evaluate": asking.evaluate, "developed": loop.developed}
    encode = made.encode

    def of(seed: int, *fates: str) -> Request | None:
        request = by_seed.get(seed)
        return request if request is not None and request.fate in fates else None

    def encoded(resolved: Any, kit: Any) -> Any:
        request = of_recipe[resolved.asked.seed]
        if request.fate == "encode":
            raise request.doom
        return encode(resolved, kit)

    def solved(plan: Any, x: Any, generator: torch.Generator, hold: Any = None) -> Any:
        solver, request = own["solve"](plan, x, generator, hold), of(generator.initial_seed(), "start", "solver")
        if request is not None and request.fate == "start":
            raise request.doom
        return solver if request is None else failing(solver, int(request.when * len(plan.timesteps)), request)

    def rows(of_job: Job) -> list[Row]:
        said, request = own["rows"](of_job), of(of_job.seed, "rows", "network", "memory")
        if request is None or of_job.i < int(request.when * of_job.n):
            return said
        if request.fate == "rows":
            raise request.doom
        full = request.fate == "memory"
        return [*said[:-1], Doomed(**vars(said[-1]), why=lambda: torch.OutOfMemoryError(request.told) if full else request.doom)]  # fmt: skip

    def evaluated(network: Any, said: Sequence[Row], *how: Any) -> Any:
        for row in said:
            if isinstance(row, Doomed):
                raise row.why()
        if len(said) > room:
            raise torch.OutOfMemoryError("there are too many rows")
        return own["evaluate"](network, said, *how)

    def decoded(base: Any, of_job: Job, size: tuple[int, int]) -> Any:
        if request := of(of_job.seed, "decode"):
            raise request.doom
        return own["developed"](base, of_job, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "encode", encoded)
        patch.setattr(job, "solve", solved)
        patch.setattr(Job, "rows", rows)
        patch.setattr(asking, "evaluate", evaluated)
        patch.setattr(loop, "developed", decoded)
        yield


def failing(solver: Any, at: int, request: Request) -> Iterator[Any]:
    """A solver that breaks when it is sent the answer to evaluation `at`."""
    query = next(solver)
    for _ in range(at):
        query = solver.send((yield query))
    yield query
    raise request.doom


# ── who asks ────────────────────────────────────────────────────────────────────────────────────────────────────────

WAYS = {"run": 1, "run_all": 3, "submit": 3, "patient": 1, "await": 3, "leave": 2}
"""How requests are brought -> how many at most together."""


@dataclass(eq=False)
class Crowd:
    """Threads that bring requests to an engine, and what became of each."""

    engine: Engine
    alone: Mapping[int, np.ndarray]
    """Number of a request -> its latents when it is run alone."""
    seed: int = 0
    ends: dict[int, str] = field(default_factory=dict)
    """Number -> survived, failed or cancelled."""
    ways: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)
    furthest: float = 0.0
    events: int = 0
    peak: int = 0
    """Requests in line at a time, as their users saw it."""
    _tickets: list[tuple[Request, Ticket]] = field(default_factory=list)
    _left: list[tuple[Request, Ticket]] = field(default_factory=list)
    _timers: list[threading.Timer] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def wave(self, asked: Sequence[Request], threads: int = 4, seconds: float = 180) -> None:
        """Bring these and wait until all is quiet."""
        until = time.monotonic() + seconds
        dice = [random.Random(f"{self.seed} {asked[0].number} {i}") for i in range(threads)]
        users = [
            threading.Thread(target=self._user, args=(asked[i::threads], dice[i]), daemon=True) for i in range(threads)
        ]
        for user in users:
            user.start()
        for user in users:
            user.join(max(until - time.monotonic(), 0.1))
        if stuck := [u for u in users if u.is_alive()]:
            frames = sys._current_frames()
            pytest.fail("stuck:\n" + "\n".join("".join(traceback.format_stack(frames[u.ident or 0])) for u in stuck))
        for timer in self._timers:
            timer.join()
        for request, ticket in self._left:
            self._met(request, lambda t=ticket: t.result(timeout=max(until - time.monotonic(), 1)))
        for request, ticket in self._tickets:
            self._warned(request, ticket)
        for kept in (self._left, self._tickets, self._timers):
            kept.clear()

    def _user(self, asked: Sequence[Request], dice: random.Random) -> None:
        rest = list(asked)
        while rest:
            way = dice.choice(list(WAYS))
            some = [rest.pop(0) for _ in range(min(dice.randint(1, WAYS[way]), len(rest)))]
            with self._lock:
                self.ways[way] += len(some)
            try:
                getattr(self, f"_{way}")(some, dice)
            except BaseException as error:
                self.complaints.append(f"{way} of {[(r.number, r.fate) for r in some]}: {error!r}")

    # ways of asking

    def _run(self, some: Sequence[Request], dice: random.Random) -> None:
        (request,) = some
        self._met(request, lambda: self.engine.run(request.recipe, self._watch(request, dice)))

    def _run_all(self, some: Sequence[Request], dice: random.Random) -> None:
        """Whoever fails ends it for all of them; what the others came to is seen by their watch."""
        seen: dict[int, Ticket] = {}
        watches = {r.recipe.seed: self._watch(r, dice, always=True) for r in some}

        def watch(ticket: Ticket) -> None:
            seen[ticket.recipe.seed] = ticket
            watches[ticket.recipe.seed](ticket)

        try:
            found: list[Any] = list(self.engine.run_all(*(r.recipe for r in some), watch=watch))
        except Exception as error:
            found = [error] * len(some)
        whose = [r for r, f in zip(some, found, strict=True) if self._own(r, f)]
        if isinstance(found[0], Exception) and not whose:
            self.complaints.append(f"run_all of {[(r.number, r.fate) for r in some]} ended with {found[0]!r}")
        for request, result in zip(some, found, strict=True):
            if request in whose or not isinstance(result, Exception):
                self._end(request, result)
            elif request.recipe.seed in seen:
                self._met(request, seen[request.recipe.seed].result, taken_along=any(r.fate == "encode" for r in whose))
            else:
                self._end(request, Cancelled("", "nobody saw it"), taken_along=True)

    @staticmethod
    def _own(request: Request, found: Any) -> bool:
        return isinstance(found, Exception) and (
            request.is_doom(found) or (isinstance(found, Cancelled) and request.fate == IN_WATCH)
        )

    def _submitted(self, some: Sequence[Request], dice: random.Random) -> list[tuple[Request, Ticket]]:
        out = []
        for request in some:
            try:
                out.append((request, self.engine.submit(request.recipe, self._watch(request, dice))))
            except Exception as error:
                self._end(request, error)
        self._tickets += out
        return out

    def _submit(self, some: Sequence[Request], dice: random.Random) -> None:
        """Results are asked for in any order."""
        mine = self._submitted(some, dice)
        dice.shuffle(mine)
        for request, ticket in mine:
            if request.fate == BY_USER:
                self.engine.help(ticket, timeout=dice.random() / 20)
                ticket.cancel()
            self._met(request, ticket.result)

    def _patient(self, some: Sequence[Request], dice: random.Random) -> None:
        """Looks in again and again, and does something else in between."""
        for request, ticket in self._submitted(some, dice):
            looks = 0
            while not ticket.finished:
                with suppress(TimeoutError, Doom, CapacityError, Cancelled):
                    ticket.result(timeout=dice.random() / 50)
                looks += 1
                if looks == 2 and request.fate == BY_USER:
                    ticket.cancel()
            self._met(request, ticket.result)

    def _await(self, some: Sequence[Request], dice: random.Random) -> None:
        mine = self._submitted(some, dice)

        async def awaited(request: Request, ticket: Ticket) -> Any:
            if request.fate == BY_USER:
                with suppress(TimeoutError):
                    return await asyncio.wait_for(ticket, dice.random() / 20)  # type: ignore[arg-type]
            return await ticket

        async def gathered() -> list[Any]:
            return await asyncio.gather(*(awaited(r, t) for r, t in mine), return_exceptions=True)

        for (request, _), found in zip(mine, asyncio.run(gathered()), strict=True):
            self._end(request, found)

    def _leave(self, some: Sequence[Request], dice: random.Random) -> None:
        """Goes away: the steps of others will do."""
        for request, ticket in self._submitted(some, dice):
            if request.fate == BY_USER:
                self._timers.append(threading.Timer(dice.random() / 20, ticket.cancel))
                self._timers[-1].start()
            self._left.append((request, ticket))

    # what they see

    def _watch(self, request: Request, dice: random.Random, always: bool = False) -> Any:
        if request.fate not in (WATCH, IN_WATCH) and not always and dice.random() < 0.5:
            return None
        before = [0]

        def watch(ticket: Ticket) -> None:
            self.events, self.peak = self.events + 1, max(self.peak, len({r.ticket for r in self.engine._running}))
            if not before[0] < ticket.done <= ticket.total:
                self.complaints.append(f"{request.number} was told {ticket.done} of {ticket.total} after {before[0]}")
            before[0] = ticket.done
            ticket.preview()
            if ticket.progress > request.when and request.fate == WATCH:
                raise request.doom
            if ticket.progress > request.when and request.fate == IN_WATCH:
                ticket.cancel()

        return watch

    def _met(self, request: Request, ask: Callable[[], Any], taken_along: bool = False) -> None:
        try:
            found = ask()
        except Exception as error:
            found = error
        self._end(request, found, taken_along)

    def _end(self, request: Request, found: Any, taken_along: bool = False) -> None:
        """Was that its own end? `taken_along`: it may also have been given up with those that it came with."""
        said = repr(found)
        if isinstance(found, Cancelled):
            end, good = "cancelled", taken_along or request.fate in (IN_WATCH, BY_USER)
        elif isinstance(found, BaseException):
            end, good = "failed", request.is_doom(found)
        else:
            apart = float(np.abs(found.latents.numpy() - self.alone[request.number]).max())
            end, good, said = "survived", request.fate not in FAILURES and apart < CLOSE, f"{apart} from its run alone"
            self.furthest = max(self.furthest, apart)
        with self._lock:
            if not good or request.number in self.ends:
                self.complaints.append(f"{request.number} ({request.fate}, {request.recipe.scheduler}): {end}, {said}")
            self.ends[request.number] = end

    def _warned(self, request: Request, ticket: Ticket) -> None:
        """A broken watch is told to its own ticket, and to no other."""
        told = [w for w in ticket.warnings if "watch raised" in w]
        if len(told) != (request.fate == WATCH) or not all(request.told in w for w in told):
            self.complaints.append(f"{request.number} ({request.fate}) was warned of {told}")


def alone(asked: Sequence[Request]) -> dict[int, np.ndarray]:
    """Latents of those who may survive, each on an engine of its own."""
    return {r.number: engine().run(r.recipe).latents.numpy() for r in asked if r.fate not in FAILURES}


# ── what stays ──────────────────────────────────────────────────────────────────────────────────────────────────────


def resident() -> int:
    """Bytes of memory that this process uses: pages that the allocator keeps free go back first."""
    gc.collect()
    placement.trim()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@contextmanager
def tidy() -> Iterator[None]:
    """In here the C library gives back what is freed (glibc: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD).

    Otherwise it keeps for each thread as much as that once used, and a process grows for a long time of which nothing is in use.
    """
    tell = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)
    tell(-3, 2**17), tell(-1, 2**17)
    yield
    tell(-3, 2**25), tell(-1, 2**26)  # where glibc's own dynamic thresholds end


def tensors() -> int:
    gc.collect()
    return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

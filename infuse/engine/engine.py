"""The engine: any number of jobs, one network call for whoever is due. Read `step`; the rest is reception and delivery.

It keeps no threads of its own. Whoever waits for a request helps with whatever is due; loading, encoding and decoding are
done by those who need them, outside of the turn in which the network is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from threading import Lock, get_ident
from typing import Any
from weakref import finalize

import torch

from infuse.batch import Row
from infuse.conditions import AnyCondition
from infuse.conditions.lora import Lora
from infuse.encoders.kit import Kit
from infuse.engine.asking import Asking, alone_too_large, compiling, out_of_memory
from infuse.engine.costs import Costs, Party
from infuse.engine.digests import order_of
from infuse.engine.dressing import dress_of, state
from infuse.engine.encodings import Encodings
from infuse.engine.finish import developed, finished
from infuse.engine.job import Job, ground
from infuse.engine.kept import weakly
from infuse.engine.model_store import ModelStore
from infuse.engine.places import admitted
from infuse.engine.preview import Previews
from infuse.engine.resolve import Resolved, resolve
from infuse.engine.result import Result
from infuse.engine.running import Running, urgency
from infuse.engine.scheduler import Scheduler
from infuse.engine.series import each
from infuse.engine.ticket import Ticket
from infuse.engine.turns import Turns
from infuse.engine.wording import named_in
from infuse.errors import InfuseError, RecipeError, under
from infuse.notices import Teller, gathers
from infuse.ports import Sides, one_claim
from infuse.recipe import Recipe
from infuse.timetable import PROMPT

INTERRUPTED = InfuseError("", "it was interrupted in the middle of a step. Run it again.")


class Engine:
    """Runs recipes on models that it keeps loaded. Safe to use from several threads.

    model: what recipes mean that name none. dtype ("auto": by base and machine), device: as people write them; memory: what loaded
    models may take ("8GB"), beyond which those used longest ago leave. max_rows: rows of a network call (frames, of clips).
    row_width: pad every network call to this many rows of one structure, so that float32 results do not depend, to the
    last bit, on whatever runs beside them. None: calls are as wide as the work. preview: a TAESD that shows what becomes of
    a picture; None: one beside the model, else a linear map. cache, cache_bytes: how many encoded conditions are kept for
    recipes to come, and how much memory they may take. slo: a request should be done in so many times what it takes alone,
    the most urgent goes first; None: in turns; "auto": 3 on a CPU. compile: "graphs" records a GPU's calls and plays them
    again; "max", which "auto" is, has kernels for what is between products, too; "off" asks anew. clock: for estimates.

    Raises RecipeError for a dtype or device that is not there, and for other values that mean nothing.
    """

    def __init__(
        self,
        model: str = "tabletop",
        *,
        store: ModelStore | None = None,
        dtype: torch.dtype | str | None = None,
        device: str | torch.device | None = None,
        memory: int | str | None = None,
        offline: bool | None = None,
        max_rows: int = 64,
        row_width: int | None = None,
        preview: str | None = None,
        cache: int = 256,
        cache_bytes: int = 2**30,
        slo: float | str | None = "auto",
        compile: str = "auto",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if store is not None and (dtype, device, memory, offline) != (None,) * 4:
            raise RecipeError("store", "it has a dtype, device and memory of its own. Say them when you make the store.")  # fmt: skip
        self.model, self.clock = model, clock
        self.store = store or ModelStore(dtype, device, memory, offline)
        self.asking = Asking(max_rows, row_width, compiling(compile))
        self.scheduler, self.costs = Scheduler(row_width or max_rows), Costs()
        self.slo = urgency(slo, self.store.device_name)
        self.encodings = Encodings(cache, cache_bytes)
        for forget in map(weakly, (self.encodings.forget, self.asking.forget, self.costs.forget)):
            self.store.on_leave.append(forget)
            finalize(self, self.store.on_leave.remove, forget)
        self._running: list[Running] = []
        self._arrivals, self._lock, self._turns = count(), Lock(), Turns()
        self._telling: set[int] = set()
        """Threads that are inside of a watch."""
        self._teller = Teller()
        self.previews = Previews(self.store, preview, self.tell)

    # ── reception ───────────────────────────────────────────────────────────────────────────────────────────────────

    def __call__(
        self, prompt: str, *conditions: AnyCondition, watch: Callable[[Ticket], None] | None = None, **fields: Any
    ) -> Result:
        """The short way: `sd("a red cube", ControlNet(...), IPAdapter(...), steps=20, seed=7)`."""
        if conditions and "conditions" in fields:
            raise RecipeError("conditions", f"{len(conditions)} came before the fields, and the field conditions came, too. Give all of them in "
                                            "one way.")  # fmt: skip
        return self.run(Recipe(**{"prompt": prompt, "conditions": conditions, **fields}), watch=watch)

    def run(self, recipe: Recipe | Resolved, watch: Callable[[Ticket], None] | None = None) -> Result:
        """Submit a recipe and help until it is done, together with whatever else is under way."""
        return self.run_all(recipe, watch=watch)[0]

    def run_all(self, *recipes: Recipe | Resolved, watch: Callable[[Ticket], None] | None = None) -> list[Result]:
        """Several recipes side by side, each equal to its run alone. Whatever ends this early takes all of them along."""
        tickets: list[Ticket] = []
        party = self.costs.party()  # waited for together
        try:
            for recipe in recipes:
                tickets.append(self.submit(recipe, watch, help=True, party=party))
            self.help(*tickets)
            return [t.result() for t in tickets]
        except BaseException:
            for ticket in tickets:
                ticket.cancel()
            raise

    def each(self, recipe: Recipe | Resolved, watch: Callable[[Ticket], None] | None = None) -> Iterator[Result]:
        """One result for each of a recipe's pictures as soon as it is done, in the order of their seeds; `watch` gets a ticket
        for each of them. Whoever ceases to iterate leaves the rest unmade."""
        resolved = self.check(recipe) if isinstance(recipe, Recipe) else recipe
        return each(self, resolved, self.asking.row_width or self.asking.most, watch)

    def check(self, recipe: Recipe) -> Resolved:
        """What the recipe would do, from headers alone; raises RecipeError, WeightsError or CapacityError. What it warns of is
        said as InfuseWarnings, too."""
        recipe = admitted(self.store, recipe)
        view = self.store.view(recipe.model or self.model)
        resolved = resolve(recipe, view, self.asking.row_width or self.asking.most)
        self.tell(resolved.warnings)
        return resolved

    def tell(self, warnings: Iterable[str]) -> None:
        """Say what was adjusted or is hardly meant: each text once, as an InfuseWarning at the line that asked."""
        self._teller.tell(warnings)

    def submit(
        self,
        recipe: Recipe | Resolved,
        watch: Callable[[Ticket], None] | None = None,
        help: bool = False,
        party: Party | None = None,
    ) -> Ticket:
        """Resolve (unless `check` has), load, encode, and put a recipe's pictures in line. It moves on whenever anybody steps.

        help: this thread is about to wait for it, and delivers its events; else whoever steps does.
        """
        resolved = self.check(recipe) if isinstance(recipe, Recipe) else recipe
        dress = dress_of(resolved.asked)
        if state(self.store, str(resolved.asked.model), dress) != resolved.version:  # the model has been replaced since
            resolved = self.check(resolved.asked)
        with torch.no_grad(), gathers() as notes:
            base = self.store.base(str(resolved.asked.model))
            self.asking.prepare(base.network)
            holes = tuple(hole for c in resolved.speakers.values() for hole in c.openings())
            base = self.store.merged(
                base, tuple(c for c in resolved.speakers.values() if isinstance(c, Lora) and c.merge)
            )
            base = self.store.dressed(base, dress)
            kit = Kit(base, resolved.size, self.store, resolved.frames, resolved.windows, holes, resolved.wording)
            ones = resolved.alone() if resolved.differ else (resolved,)
            kits = [kit if one.wording == kit.wording else replace(kit, wording=one.wording, _said={}) for one in ones]
            each = [self.encode(one, k) for one, k in zip(ones, kits, strict=True)]
            below = [ground(k, s, one.timetable) for one, k, s in zip(ones, kits, each, strict=True)]
            weights = self.store.digests(resolved.asked, named_in(resolved.speakers, resolved.wording))
        shape = (base.spec.latent_channels, *((resolved.frames,) if base.spec.frames else ()), *kit.grid)
        net, seeds = base.network, resolved.asked.seeds
        said = list(zip(ones, each, below, strict=True)) * (1 if resolved.differ else len(seeds))
        jobs = [
            Job(one.plan, one.timetable, s, ground, seed, shape, net.dtype, net.device, resolved.windows, one.shortcuts)
            for (one, s, ground), seed in zip(said, seeds, strict=True)
        ]
        helpers = [get_ident()] if help else []
        ticket = Ticket(resolved, self, jobs, watch, weights, [*resolved.warnings, *notes], helpers)
        party = (party or self.costs.party()).joined_by(jobs)
        with self._lock:
            self._running += [Running(j, base, ticket, next(self._arrivals), party) for j in jobs]
        return ticket

    def encode(self, resolved: Resolved, kit: Kit) -> dict[str, Sides]:
        """Everybody's sides: texts in recipe order, the rest in an order that does not depend on the recipe's."""
        said: dict[str, Sides] = {}
        for who, condition in resolved.speakers.items():
            with under("" if who == PROMPT else who):
                said[who] = condition.spoken(self.encodings.of(condition, kit), kit)
        one_claim(said, frozenset(s.name for s in kit.spec.channel_slots if s.exclusive))
        order = order_of({who: resolved.speakers[who] for who, s in said.items() if not s.on.context})
        return dict(sorted(said.items(), key=lambda kv: (not kv[1].on.context, order.get(kv[0], ()))))

    def unload(self, model: str) -> int:
        """Give a model's memory back (bytes); jobs under way keep theirs until they are done. WeightsError if it is not loaded."""
        return self.store.unload(model)

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> bool:
        """One network call for whoever is due: pick, rows, collate, predict, combine, answer. False if nobody waits."""
        moved = self._step()
        self._deliver(events=get_ident() not in self._telling)  # no watch of a stranger's inside of a watch
        return moved

    def _step(self, timeout: float | None = None) -> bool:
        with self._turns.mine(timeout) as came, torch.no_grad():
            asked = [(r, rows) for r in (self._pick() if came else ()) if (rows := self._rows(r))]
            answers = iter(self._ask(asked))
            for r, rows in asked:
                self._answer(r, [next(answers) for _ in rows])
        return bool(asked)

    def help(self, *tickets: Ticket, timeout: float | None = None) -> bool:
        """Step until these are finished, or `timeout` seconds have passed; True if they are."""
        me, until = get_ident(), None if timeout is None else time.monotonic() + timeout
        for t in tickets:
            t.helpers.append(me)
        try:
            self._deliver()
            while waiting := [t for t in tickets if not t.finished]:
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    return False
                if not self._step(left):  # somebody else is decoding or encoding what we wait for
                    waiting[0]._finished.wait(min(0.02, 0.02 if left is None else max(left, 0)))
                self._deliver()
            for t in tickets:  # others may have finished it, to whom its watch was no affair
                self._tell(t)
            return True
        finally:
            for t in tickets:
                t.helpers.remove(me)

    def _pick(self) -> list[Running]:
        with self._lock:
            self._running = [r for r in self._running if not r.ticket.finished]
            due = [r for r in self._running if r.job.latent is None]
        waiting = [r.waiting(self.costs, self.slo) for r in due]
        known = None if self.slo is None else self.costs.seconds
        return self.scheduler.pick(waiting, self.asking.width, self.costs.clock(), known)  # type: ignore[return-value]

    def _rows(self, r: Running) -> list[Row]:
        with self._blame(r):
            r.ticket.begin()
            return r.job.rows()
        return []

    def _ask(self, asked: Sequence[tuple[Running, list[Row]]]) -> list[torch.Tensor | Exception]:
        if not asked:
            return []
        first = asked[0][0]
        narrow, stop = self.asking.width(first.bucket), self.costs.watch(first.bucket, [r.job for r, _ in asked])
        answers = self.asking.ask(first.base.network, first.bucket, [row for _, rows in asked for row in rows])
        stop(answers)
        if (now := self.asking.width(first.bucket)) < narrow:
            for ticket in {r.ticket for r, _ in asked}:
                ticket.warnings.append(
                    f"the memory was not enough for {narrow} rows at a time; such calls have {now} from now on."
                )
        return answers

    def _answer(self, r: Running, answers: Sequence[torch.Tensor | Exception]) -> None:
        with self._blame(r):
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
            r.job.answer(torch.stack(list(answers)))  # type: ignore[arg-type]
            if r.job.latent is not None:
                r.base.network.constants.clear()
            r.ticket.advance()

    @contextmanager
    def _blame(self, r: Running) -> Iterator[None]:
        """What goes wrong for one job is its ticket's, and nobody else's. An interruption goes on to whoever asked for it."""
        try:
            yield
        except BaseException as error:
            stop = isinstance(error, KeyboardInterrupt)
            if out_of_memory(error):
                error = alone_too_large(error)
            r.ticket.finish(error=INTERRUPTED if stop else error)
            self.leave(r.ticket)
            if stop:
                raise

    # ── delivery ────────────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self, ticket: Ticket) -> None:
        """Whatever this ticket has in line is given up."""
        with self._lock:
            for r in (r for r in self._running if r.ticket is ticket):
                r.leave()
            self._running = [r for r in self._running if r.ticket is not ticket]

    def _deliver(self, events: bool = False) -> None:
        """Events and pictures, outside of all locks: of tickets that this thread waits for, and of those that nobody does.

        Of these it tells `events` only if it was asked to: whoever waits for something else need not pay for their watch.
        """
        with self._lock:
            tickets: dict[Ticket, list[Running]] = {}
            for r in self._running:
                if r.ticket.mine or not r.ticket.helpers:
                    tickets.setdefault(r.ticket, []).append(r)
        for ticket, parts in tickets.items():
            if ticket.mine or events:
                self._tell(ticket)
            if all(r.job.latent is not None for r in parts):
                self._finish(ticket, parts)

    def _tell(self, ticket: Ticket) -> None:
        """Its events, if there are any that nobody was told of."""
        outermost = get_ident() not in self._telling
        self._telling.add(get_ident())
        try:
            ticket.announce()
        finally:
            if outermost:
                self._telling.discard(get_ident())

    def _finish(self, ticket: Ticket, parts: Sequence[Running]) -> None:
        """Decode what is complete; one thread does. It stays in line until it is done: an interrupted one is done again."""
        me = get_ident()
        try:
            with self._lock:
                if not ticket.finished and ticket.claimed is None:
                    ticket.claimed = me
            if ticket.claimed == me:
                with torch.no_grad():
                    ticket.finish(finished(ticket, parts[0].base, [r.job for r in parts], developed))
                self.leave(ticket)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            ticket.finish(error=alone_too_large(error) if out_of_memory(error) else error)
            self.leave(ticket)
        finally:
            if ticket.claimed == me:
                ticket.claimed = None

"""The engine: any number of jobs, one network call for whoever is due. Read `step`; the rest is reception and delivery."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from threading import RLock
from typing import Any

import torch

from infuse.batch import collate
from infuse.conditions import AnyCondition
from infuse.encoders.kit import Base, Kit
from infuse.engine.check import Report, check, speakers
from infuse.engine.events import Result, Ticket
from infuse.engine.job import PROMPT, Job, ground, windows
from infuse.engine.model_store import ModelStore
from infuse.engine.scheduler import Scheduler, Waiting
from infuse.errors import InfuseError, RecipeError, under
from infuse.network.unet import Network
from infuse.ports import Sides, one_claim
from infuse.recipe import Recipe, digest
from infuse.solvers import plan


@dataclass(eq=False)
class _Running:
    job: Job
    base: Base
    ticket: Ticket
    arrived: int

    @property
    def bucket(self) -> Hashable:
        return (self.base.name, self.job.shape)


class Engine:
    """Runs recipes on models that it keeps loaded. Safe to use from several threads.

    row_width: pad every network call to this many rows, so that float32 results do not depend, to the last bit, on
    how many jobs run beside each other. None: calls are as wide as the work.
    cache, cache_bytes: how many encoded conditions are kept for recipes to come, and how much memory they may take; those
    used longest ago go first.
    """

    def __init__(
        self,
        model: str = "tabletop",
        *,
        store: ModelStore | None = None,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        max_rows: int = 64,
        row_width: int | None = None,
        cache: int = 256,
        cache_bytes: int = 2**30,
    ) -> None:
        self.model = model
        self.store = store or ModelStore(dtype=dtype, device=device)
        self.scheduler, self.row_width = Scheduler(row_width or max_rows), row_width
        self.cache, self.cache_bytes = cache, cache_bytes
        self._encoded: dict[Hashable, Sides] = {}
        self._running: list[_Running] = []
        self._finished: dict[Ticket, dict[int, _Running]] = {}
        self._arrivals = count()
        self._lock = RLock()

    # ── reception ───────────────────────────────────────────────────────────────────────────────────────────────────

    def __call__(
        self, prompt: str, *conditions: AnyCondition, watch: Callable[[Ticket], None] | None = None, **fields: Any
    ) -> Result:
        """The short way: `sd("a red cube", ControlNet(...), IPAdapter(...), steps=20, seed=7)`."""
        return self.run(
            Recipe(**{"model": self.model, "prompt": prompt, "conditions": conditions, **fields}), watch=watch
        )

    def run(self, recipe: Recipe, watch: Callable[[Ticket], None] | None = None) -> Result:
        """Submit a recipe and help until it is done, together with whatever else is under way."""
        return self.run_all(recipe, watch=watch)[0]

    def run_all(self, *recipes: Recipe, watch: Callable[[Ticket], None] | None = None) -> list[Result]:
        """Several recipes side by side, each equal to its run alone."""
        tickets = [self.submit(r, watch) for r in recipes]
        while not all(t.finished for t in tickets):
            self.step()
        return [t.result() for t in tickets]

    def check(self, recipe: Recipe) -> Report:
        """What the recipe would do, from headers alone; raises RecipeError, WeightsError or CapacityError."""
        return check(recipe, self.store, self.scheduler.max_rows)

    def submit(self, recipe: Recipe, watch: Callable[[Ticket], None] | None = None) -> Ticket:
        """Check, load, encode, and put a recipe's pictures in line. It moves on whenever anybody calls `step`."""
        report = self.check(recipe)
        with self._lock, torch.no_grad():
            base = self.store.base(recipe.model)
            kit = Kit(base, report.size, self.store, report.frames, windows(report.frames, base.spec.frames))
            sides = self.encode(recipe, kit, report.steps)
            jobs = [self._job(recipe, kit, sides, report, recipe.seed + i).start() for i in range(recipe.count)]
            ticket = Ticket(recipe, sum(j.n for j in jobs), watch)
            self._running += [_Running(j, base, ticket, next(self._arrivals)) for j in jobs]
        return ticket

    def encode(self, recipe: Recipe, kit: Kit, steps: int | None = None) -> dict[str, Sides]:
        """Everybody's sides: texts in recipe order, the rest in an order that does not depend on the recipe's."""
        everyone = speakers(recipe, steps or recipe.steps)
        digests = {who: digest(c) for who, c in everyone.items()}
        said: dict[str, Sides] = {}
        for who, condition in everyone.items():
            key = (kit.base.name, kit.base.digest, kit.size, kit.frames, type(condition).__name__, digests[who])
            with under("" if who == PROMPT else who):
                said[who] = self._encoded.get(key) or condition.sides(kit)
            self._encoded = {**{k: v for k, v in self._encoded.items() if k != key}, key: said[who]}
        self._forget()
        one_claim(said, frozenset(s.name for s in kit.spec.channel_slots if s.exclusive))
        return dict(
            sorted(said.items(), key=lambda kv: (not kv[1].on.context, "" if kv[1].on.context else digests[kv[0]]))
        )

    def _forget(self) -> None:
        """Drop what was used longest ago, until the rest is few and small enough."""
        sizes = [s.nbytes for s in self._encoded.values()]
        while len(sizes) > self.cache or sum(sizes) > self.cache_bytes:
            del self._encoded[next(iter(self._encoded))]
            del sizes[0]

    def _job(self, recipe: Recipe, kit: Kit, sides: dict[str, Sides], report: Report, seed: int) -> Job:
        width, height = report.size
        spec, net = kit.spec, kit.base.network
        f = spec.vae_factor
        own = {f"conditions.{i}": c.guided for i, c in enumerate(recipe.conditions) if c.guided is not None}
        return Job(
            plan(report.choice, kit.base.scheduler, recipe.steps, report.strength),
            sides,
            spec.guidance if recipe.guidance is None else recipe.guidance,
            own,
            recipe.guidance_rescale,
            torch.Generator("cpu").manual_seed(seed),
            ground(kit, [s.on for s in sides.values()]),
            (spec.latent_channels, *((report.frames,) if spec.frames else ()), height // f, width // f),
            net.dtype,
            net.device,
            windows(report.frames, spec.frames),
        )

    # ── the loop ────────────────────────────────────────────────────────────────────────────────────────────────────

    @torch.no_grad()
    def step(self) -> None:
        """One network call: pick, rows, collate, predict, combine, answer."""
        with self._lock:
            running = self._pick()
            groups = [r.job.rows() for r in running]
            if not running:
                return
            with self._blame(running):
                answers = self._predict(running[0].base.network, [row for rows in groups for row in rows])
                for r, part in zip(running, answers.split([len(g) for g in groups]), strict=True):
                    r.job.answer(part)
                    r.ticket.advance()
            self._deliver()

    def _predict(self, network: Network, rows: list[Any]) -> torch.Tensor:
        """All rows' answers; clips in several calls, if they are more than fit into one, so that memory stays flat."""
        frames = rows[0].x.shape[1] if rows[0].x.ndim == 4 else 1
        if frames == 1:
            padding = max(0, (self.row_width or 0) - len(rows))
            return network.predict(collate(rows + rows[-1:] * padding, network.spec))[: len(rows)]
        n = max(1, self.scheduler.max_rows // frames)
        parts = [rows[i : i + n] for i in range(0, len(rows), n)]
        return torch.cat([network.predict(collate(part, network.spec)) for part in parts])

    def _pick(self) -> list[_Running]:
        for r in [r for r in self._running if r.ticket.cancelled]:
            self._drop(r.ticket, error=InfuseError("", "the request was cancelled"))
        waiting = [Waiting(r, r.bucket, r.job.width, r.arrived) for r in self._running]
        return self.scheduler.pick(waiting)  # type: ignore[return-value]

    # ── delivery ────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _blame(self, running: list[_Running]) -> Any:
        """A failed call is an answer to those who were in it, and to nobody else."""
        try:
            yield
        except Exception as error:
            for r in running:
                self._drop(r.ticket, error=error)

    def _drop(self, ticket: Ticket, error: BaseException) -> None:
        self._running = [r for r in self._running if r.ticket is not ticket]
        self._finished.pop(ticket, None)
        if not ticket.finished:
            ticket.finish(error=error)

    def _deliver(self) -> None:
        """Decode the pictures of tickets that are complete."""
        for r in [r for r in self._running if r.job.latent is not None]:
            self._running.remove(r)
            self._finished.setdefault(r.ticket, {})[r.arrived] = r
        for ticket, parts in list(self._finished.items()):
            if len(parts) == ticket.recipe.count:
                done = [parts[k] for k in sorted(parts)]
                with self._blame(done):
                    ticket.finish(self._result(ticket, done))
                self._finished.pop(ticket, None)

    def _result(self, ticket: Ticket, parts: list[_Running]) -> Result:
        from infuse.engine.finish import clips, pictures

        latents, jobs = torch.stack([r.job.latent for r in parts if r.job.latent is not None]), [r.job for r in parts]
        finite(latents, ticket.recipe)
        made = clips(parts[0].base, latents, jobs) if parts[0].base.spec.frames else ()
        images = [clip[0] for clip in made] or pictures(parts[0].base, latents, jobs)
        return Result(tuple(images), ticket.recipe, latents, self.store.digests(ticket.recipe), tuple(made))


def finite(latents: torch.Tensor, recipe: Recipe) -> None:
    """Raises RecipeError if a picture came out as no picture: what is saved is never made of NaN."""
    bad = [recipe.seed + i for i, z in enumerate(latents) if not z.isfinite().all()]
    if bad:
        raise RecipeError("", f"the network's answers became infinite or NaN (seed {', '.join(map(str, bad))}). Weights and guidance far above "
                              "1 do that, and half precision with some models; lower them, or use bfloat16 or float32.")  # fmt: skip

"""One worker of a store: threads that take jobs whose turn it is, and make them side by side in shared calls of one engine.

What a job names by its hash is read from the store's files, and nothing else from this machine. A heart beats beside: it renews
leases, hears of cancellations, and lets go of what another worker was given meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from infuse.engine.engine import Engine
from infuse.engine.ticket import Ticket
from infuse.errors import Cancelled
from infuse.media.reading import BY_HASH, STRICT, Reading
from infuse.recipe import Recipe
from infuse.server.jobs import Lease, Made
from infuse.server.letters import LeaseLost, StoreError
from infuse.server.store import Ask, Store

IDLE = 0.2
"""Seconds between looks for a job when there is none."""
NEWS = 0.5
"""Seconds between two steps of a job that are told."""


def limits_of(store: Store, limits: Reading = STRICT) -> Reading:
    """The policy for recipes that come over a wire: files by their hash, out of this store."""
    return replace(limits, inputs=(store.files.folder,))


def ask(recipe: Mapping[str, Any], limits: Reading, **more: Any) -> Ask:
    """A recipe as plain data, as a job to be: checked by itself, its random seed drawn. more: fields of `Ask`.

    Raises RecipeError or CapacityError for what is wrong without looking at any model.
    """
    said = Recipe.load(dict(recipe), reading=limits)
    drawn = said.seeded()
    sources = (getattr(found, "named", None) or str(getattr(found, "source", "")) for _, found in said.pictures())
    uses = tuple(dict.fromkeys(s.removeprefix(BY_HASH) for s in sources if s.startswith(BY_HASH)))
    return Ask(drawn.model_dump(mode="json"), said.digest, drawn.digest, uses, **more)


class Worker:
    """store, engine: jobs of the one, made by the other. name: stable over restarts, so that what it held when it was killed waits
    again as soon as it is back. hands: jobs at a time. lease: seconds, renewed all along. limits: what recipes may read.
    """

    def __init__(
        self,
        store: Store,
        engine: Engine,
        name: str = "worker",
        hands: int = 4,
        lease: float = 60.0,
        limits: Reading = STRICT,
    ) -> None:
        self.store, self.engine, self.name, self.seconds = store, engine, name, lease
        self.limits = limits_of(store, limits)
        self._held: dict[str, tuple[Lease, Ticket | None]] = {}
        self._lock, self._stopping = Lock(), Event()
        self._threads = [Thread(target=self._hand, name=f"{name} hand {i}", daemon=True) for i in range(hands)]
        self._threads.append(Thread(target=self._heart, name=f"{name} heart", daemon=True))

    def start(self) -> Worker:
        """Begin to work, in threads of its own. Raises StoreError."""
        self.store.gone(self.name)
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, patience: float = 30.0) -> None:
        """Begin nothing more; what is under way goes back to the line, without counting as an attempt."""
        self._stopping.set()
        with self._lock:
            tickets = [ticket for _, ticket in self._held.values() if ticket is not None]
        for ticket in tickets:
            ticket.cancel()
        until = time.monotonic() + patience
        for thread in self._threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ── hands ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _hand(self) -> None:
        while not self._stopping.is_set():
            try:
                leases = self.store.claim(self.name, 1, self.seconds)
            except StoreError:  # locked, or away for a moment: nothing is lost by asking again
                leases = []
            for lease in leases:
                self._serve(lease)
            if not leases:
                self._stopping.wait(IDLE)

    def _serve(self, lease: Lease) -> None:
        """One job from its recipe to its files. Whatever goes wrong is said to the store, or nobody is there to hear it."""
        id = lease.job.id
        with self._lock:
            self._held[id] = lease, None
        try:
            try:
                self.store.done(lease, *self._made(lease))
            except Cancelled:
                self.store.stopped(lease)
            except LeaseLost:
                raise
            except Exception as error:
                self.store.failed(lease, error)
        except (LeaseLost, StoreError):
            pass  # another's by now; or its lease ends, and it is made again
        finally:
            with self._lock:
                self._held.pop(id, None)

    def _made(self, lease: Lease) -> tuple[list[Made], str]:
        """(files, digest of the weights)."""
        told = 0.0

        def watch(ticket: Ticket) -> None:
            nonlocal told
            if (now := time.monotonic()) - told >= NEWS:
                told = now
                self.store.tell(
                    lease, "step", {"step": ticket.done, "of": ticket.total, "seconds_left": ticket.seconds_left}
                )

        recipe = Recipe.load(self.store.request(lease.job.id).recipe, reading=self.limits)
        ticket = self.engine.submit(recipe, watch, help=True)
        with self._lock:
            self._held[lease.job.id] = lease, ticket
        if self._stopping.is_set():
            ticket.cancel()
        result = ticket.result()
        for text in ticket.warnings:
            self.store.tell(lease, "warning", {"text": text})
        with tempfile.TemporaryDirectory() as folder:
            paths = result.save(Path(folder) / ("made.mp4" if result.frames else "made.png"))
            files = [(p.read_bytes(), mimetypes.guess_type(p.name)[0] or "application/octet-stream") for p in paths]
        weights = hashlib.sha256(json.dumps(dict(ticket.weights), sort_keys=True).encode()).hexdigest()
        return [Made(data, kind, seed) for (data, kind), seed in zip(files, result.recipe.seeds, strict=True)], weights

    # ── the heart ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _heart(self) -> None:
        while not self._stopping.wait(self.seconds / 3):
            self.beat()

    def beat(self) -> None:
        """Renew every lease; give up what was cancelled, or is another's."""
        with self._lock:
            held = list(self._held.values())
        for lease, ticket in held:
            try:
                over = self.store.renew(lease).cancelled
            except LeaseLost:
                over = True
            except StoreError:
                continue
            if over and ticket is not None:
                ticket.cancel()

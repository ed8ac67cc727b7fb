"""What a caller holds while a request runs: a ticket, to be asked, awaited, looked at or cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event, Lock, get_ident
from typing import Any, Protocol

from infuse.engine.asking import again, bare, first_line
from infuse.engine.job import Job
from infuse.engine.resolve import Resolved
from infuse.engine.result import Result
from infuse.errors import Cancelled
from infuse.recipe import Recipe


class Helper(Protocol):
    """The engine, as a ticket knows it."""

    clock: Callable[[], float]

    def help(self, *tickets: Ticket, timeout: float | None = None) -> bool: ...
    def leave(self, ticket: Ticket) -> None: ...
    def tell(self, warnings: Iterable[str]) -> None: ...


@dataclass(eq=False)
class Ticket:
    """One submitted recipe. `result()` and `await` help until it is done; so does anybody who steps the engine."""

    resolved: Resolved
    engine: Helper
    jobs: list[Job]
    """Its pictures in the making, in the order of their seeds."""
    watch: Callable[[Ticket], None] | None = None
    """Called after each network call that moved this ticket on, outside of all locks; what it raises is a warning."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Model name -> sha256 of what was loaded for it."""
    warnings: list[str] = field(default_factory=list)
    """What was adjusted, is hardly meant, or went wrong without ending the request. Said as InfuseWarnings, too."""
    helpers: list[int] = field(default_factory=list)
    """Threads that wait for this ticket: they deliver its events and decode its pictures, and nobody else then does."""
    done: int = 0
    """Evaluations so far, of all its pictures."""
    claimed: int | None = None
    """The thread that is decoding its pictures."""
    _began: float | None = None
    _news: bool = False
    _watching: bool = False
    _finished: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)
    _result: Result | None = None
    _error: BaseException | None = None

    @property
    def recipe(self) -> Recipe:
        return self.resolved.asked

    @property
    def total(self) -> int:
        """Evaluations of all its pictures."""
        return len(self.resolved.timetable) * self.recipe.count

    @property
    def progress(self) -> float:
        """0 to 1."""
        return self.done / self.total

    @property
    def seconds_left(self) -> float | None:
        """What is left at the pace so far; None before the first evaluation."""
        if self._began is None or not self.done:
            return None
        return (self.engine.clock() - self._began) / self.done * (self.total - self.done)

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    @property
    def cancelled(self) -> bool:
        return isinstance(self._error, Cancelled)

    def preview(self) -> tuple[Any, ...]:
        """PIL images of the pictures that have begun, as far as they have come; of a clip its middle frame.

        A linear map of the denoised estimate, so it costs next to nothing; or what the engine's small decoder makes of it.
        """
        from infuse.engine.preview import denoised, preview

        seen, previews = [], getattr(self.engine, "previews", None)
        began = any(job.last is not None for job in self.jobs)
        decoder = previews.decoder(str(self.recipe.model), self.resolved.spec) if previews and began else None
        for job in self.jobs:
            if (last := job.last) is not None:
                z = denoised(*last, job.plan.scheduler.alphas_cumprod, self.resolved.spec.prediction)
                seen.append(preview(z, self.resolved.spec.family, decoder))
        return tuple(seen)

    def cancel(self) -> None:
        """Give it up at once; `result` then raises Cancelled. A request that is finished stays so."""
        self.finish(error=Cancelled("", "the request was cancelled. Submit it again to have it after all."))
        self.engine.leave(self)

    def result(self, timeout: float | None = None) -> Result:
        """Help until it is done; the result, or the error that ended the request. TimeoutError after `timeout` seconds."""
        if not self.engine.help(self, timeout=timeout):
            raise TimeoutError("the request is still running")
        self.engine.tell(self.warnings)
        if self._error is not None:
            raise again(self._error)
        assert self._result is not None
        return self._result

    def __await__(self) -> Generator[Any, None, Result]:
        return self._awaited().__await__()

    async def _awaited(self) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self.result)
        except asyncio.CancelledError:
            self.cancel()
            raise

    # ── what the engine tells it ────────────────────────────────────────────────────────────────────────────────────

    def advance(self) -> None:
        """One of its pictures had an answer."""
        self.done, self._news = self.done + 1, True

    def begin(self) -> None:
        if self._began is None:
            self._began = self.engine.clock()

    def finish(self, result: Result | None = None, error: BaseException | None = None) -> None:
        """The first word is the last."""
        with self._lock:
            if self.finished:
                return
            self._result, self._error = result, None if error is None else bare(error)
            self.jobs = []
            self._finished.set()

    @property
    def mine(self) -> bool:
        """Does this thread wait for it?"""
        return get_ident() in self.helpers

    def announce(self) -> None:
        """Tell whoever watches, once however much has happened. What `watch` raises ends the watching, not the request."""
        with self._lock:
            if self._watching:
                return
            self._watching = True
        try:
            while (watch := self._told()) is not None:
                watch(self)
        except BaseException as error:
            # an exit asked for by one's own watch is meant; by a stranger's, whom this thread only helps, it is not
            if isinstance(error, KeyboardInterrupt) or (self.mine and not isinstance(error, Exception)):
                raise
            self.watch = None
            self.warnings.append(
                f"watch raised {type(error).__name__} ({first_line(error)}) and is not called any more; the request went on."
            )
        finally:
            self._watching = False

    def _told(self) -> Callable[[Ticket], None] | None:
        """Whom to tell, if there is news; from now on it is old."""
        with self._lock:
            if self._news and self.watch is not None:
                self._news = False
                return self.watch
            self._watching = False
            return None

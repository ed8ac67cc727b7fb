"""Nobody is harmed by a neighbour: a failure is its own job's, events come after the step, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from some import in_turn, some

import mix
from infuse import Cancelled, CapacityError, Recipe
from infuse.engine.engine import Engine
from infuse.engine.job import Job
from infuse.engine.ticket import Ticket
from infuse.errors import InfuseError

CLOSE = 1e-10
RECIPES = [
    Recipe(model="tiny", prompt=f"{i} cats", seed=i, steps=4, scheduler=s, width=16, height=16)
    for i, s in enumerate(("DDIM", "Euler a", "UniPC"))
]


class Broken(RuntimeError):
    pass


def broken(*_: Any, **__: Any) -> Any:
    raise Broken("on purpose")


@cache
def _solo(number: int) -> torch.Tensor:
    return mix.engine().run(RECIPES[number]).latents


def solo(recipe: Recipe) -> torch.Tensor:
    return _solo(RECIPES.index(recipe))


def equal(ticket: Ticket, recipe: Recipe) -> bool:
    return float((ticket.result().latents - solo(recipe)).abs().max()) < CLOSE


def finished(engine: Engine, *tickets: Ticket) -> None:
    for _ in range(200):
        if not all(t.finished for t in tickets):
            engine.step()
    assert all(t.finished for t in tickets) and not engine._running


def calls(engine: Engine) -> int:
    return engine.store.base("tiny").network.calls


# ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_failing_watch_is_a_warning_of_its_own_ticket() -> None:
    engine, seen = mix.engine(), []

    def watch(ticket: Ticket) -> None:
        seen.append(ticket.done)
        raise ConnectionError("the socket is closed")

    tickets = [engine.submit(RECIPES[0]), engine.submit(RECIPES[1], watch), engine.submit(RECIPES[2])]
    finished(engine, *tickets)
    assert all(equal(t, r) for t, r in zip(tickets, RECIPES, strict=True))
    assert seen == [1], "a watch that failed is not called again"
    assert "the socket is closed" in tickets[1].result().warnings[-1] and "ConnectionError" in tickets[1].warnings[-1]
    assert not tickets[0].warnings and not tickets[2].warnings


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", some(["rows", "answer", "start", "network", "decode"], quick=["rows", "network", "decode"])
)
def test_a_failing_job_is_an_answer_to_its_own_ticket(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = mix.engine()
    good, bad, more = (engine.submit(r) for r in RECIPES)
    job = bad.jobs[0]
    for _ in range(0 if where == "start" else 2):
        engine.step()
    if where in ("rows", "answer", "start"):
        setattr(job, where, broken)
    elif where == "network":  # of all rows in the call, one cannot be predicted
        spoiled(job)
    else:
        developed = sys.modules["infuse.engine.engine"].developed
        monkeypatch.setattr(
            "infuse.engine.engine.developed", lambda base, j, size: broken() if j is job else developed(base, j, size)
        )
    finished(engine, good, bad, more)
    assert equal(good, RECIPES[0]) and equal(more, RECIPES[2])
    with pytest.raises(RuntimeError, match="shapes|sizes|mat1" if where == "network" else "on purpose"):
        bad.result()


def spoiled(job: Job) -> None:
    """Its tokens have another width from now on: collate cannot stack them, alone or together."""
    rows = job.rows

    def wrong() -> Any:
        from dataclasses import replace

        out = []
        for row in rows():
            hint = tuple(replace(t, values=t.values.double()[:, :5]) for t in row.ports.context)
            out.append(replace(row, ports=replace(row.ports, context=hint)))
        return out

    job.rows = wrong  # type: ignore[method-assign]


def narrow(engine: Engine, limit: int, error: Callable[[], BaseException]) -> list[int]:
    """The network's memory is enough for `limit` rows from now on; the widths that were tried."""
    network, tried = engine.store.base("tiny").network, []
    predict = type(network).predict

    def limited(batch: Any) -> Any:
        tried.append(len(batch.x))
        if len(batch.x) > limit:
            raise error()
        return predict(network, batch)

    network.predict = limited  # type: ignore[method-assign]
    return tried


@pytest.fixture(autouse=True)
def _roomy() -> Any:
    yield
    mix.engine().store.base("tiny").network.__dict__.pop("predict", None)


OUT = {
    "python": MemoryError,
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(OUT, quick=["cpu"]))
def test_running_out_of_memory_makes_calls_narrower_and_is_remembered(kind: str) -> None:
    engine = mix.engine()
    tickets = [engine.submit(r) for r in RECIPES]
    tried = narrow(engine, 4, OUT[kind])
    finished(engine, *tickets)
    assert all(equal(t, r) for t, r in zip(tickets, RECIPES, strict=True))
    assert tried[0] == 6 and max(tried[1:]) <= 4, f"tried {tried}: the limit is learned once"
    assert all("not enough for" in t.warnings[-1] for t in tickets)
    again = engine.submit(RECIPES[0])
    finished(engine, again)
    assert max(tried[1:]) <= 4


@pytest.mark.slow
def test_only_what_fails_alone_fails_for_want_of_memory() -> None:
    engine = mix.engine()
    large = Recipe(model="tiny", steps=2, width=64, height=64)
    good, bad = engine.submit(RECIPES[0]), engine.submit(large)
    network = engine.store.base("tiny").network
    predict = type(network).predict

    def limited(batch: Any) -> Any:
        if batch.x.shape[-1] > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(network, batch)

    network.predict = limited  # type: ignore[method-assign]
    finished(engine, good, bad)
    assert equal(good, RECIPES[0])
    with pytest.raises(CapacityError, match="alone"):
        bad.result()


@pytest.mark.slow
def test_a_failed_ticket_keeps_no_tensors_alive() -> None:
    engine, alive = mix.engine(), []
    network = engine.store.base("tiny").network

    def predict(batch: Any) -> Any:
        large = torch.zeros(1000)
        alive.append(weakref.ref(large))
        try:
            raise ValueError("inside")
        except ValueError as inner:
            raise Broken(f"with {len(large)} numbers in its frame") from inner

    network.predict = predict  # type: ignore[method-assign]
    ticket = engine.submit(RECIPES[0])
    finished(engine, ticket)
    gc.collect()
    assert alive and not any(ref() is not None for ref in alive)
    with pytest.raises(Broken, match="1000") as caught:
        ticket.result()
    assert any("in predict" in note for note in caught.value.__notes__), "the frames go along as a text"


# ── leaving early ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_whoever_leaves_takes_its_own_tickets_along() -> None:
    engine = mix.engine()
    with pytest.raises(InfuseError):
        engine.run_all(RECIPES[0], Recipe(model="tiny", width=33_000))
    assert not engine._running
    before = calls(engine)
    engine.run(RECIPES[0])
    assert calls(engine) - before == 4


def interrupt(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_in_a_watch_ends_its_run_and_nobody_else() -> None:
    engine = mix.engine()
    other = engine.submit(RECIPES[1])
    with pytest.raises(KeyboardInterrupt):
        engine.run(RECIPES[0], watch=interrupt)
    assert [r.ticket for r in engine._running] == [other]
    finished(engine, other)
    assert equal(other, RECIPES[1])


@pytest.mark.slow
@pytest.mark.parametrize("where", some(["network", "scheduler", "table", "decode"], quick=["network"]))
def test_ctrl_c_inside_of_a_step_leaves_no_half_answered_job(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = mix.engine()
    other = engine.submit(RECIPES[1])
    mine = engine.submit(RECIPES[0])
    engine.step()
    if where == "network":
        engine.store.base("tiny").network.predict = interrupt  # type: ignore[method-assign,assignment]
    elif where == "scheduler":
        scheduler = other.jobs[0]._solver.gi_frame.f_locals["scheduler"]  # type: ignore[union-attr]
        monkeypatch.setattr(scheduler, "step", interrupt)  # of Euler a, which draws and so has no table
    elif where == "table":
        monkeypatch.setattr("infuse.solver_tables._sum", interrupt)
    else:
        monkeypatch.setattr("infuse.engine.engine.developed", interrupt)
    with pytest.raises(KeyboardInterrupt):
        for _ in range(20):
            engine.step()
    engine.store.base("tiny").network.__dict__.pop("predict", None)
    monkeypatch.undo()
    rest = [t for t in (other, mine) if not t.finished]
    finished(engine, *rest)
    for ticket, recipe in ((other, RECIPES[1]), (mine, RECIPES[0])):
        if ticket in rest:
            assert equal(ticket, recipe)
        else:
            with pytest.raises(InfuseError, match="interrupted"):
                ticket.result()
    assert len(rest) == {"network": 2, "scheduler": 1, "table": 1, "decode": 2}[where], "decoding is done again"
    third = engine.submit(RECIPES[2])
    finished(engine, third)
    assert equal(third, RECIPES[2])


def test_a_cancelled_job_raises_cancelled_at_once() -> None:
    engine = mix.engine()
    stay, leave = engine.submit(RECIPES[0]), engine.submit(RECIPES[1])
    engine.step()
    leave.cancel()
    with pytest.raises(Cancelled):
        leave.result()
    assert leave.cancelled and [r.ticket for r in engine._running] == [stay]
    finished(engine, stay)
    stay.cancel()
    assert equal(stay, RECIPES[0]) and not stay.cancelled, "what is done stays done"


# ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_a_run_inside_of_a_watch_works() -> None:
    engine, inner = mix.engine(), []

    def watch(ticket: Ticket) -> None:
        if not inner:
            inner.append(engine.run(RECIPES[1], watch=lambda t: None).latents)

    other = engine.submit(RECIPES[2])
    outer = engine.run(RECIPES[0], watch=watch)
    finished(engine, other)
    assert float((inner[0] - solo(RECIPES[1])).abs().max()) < CLOSE
    assert float((outer.latents - solo(RECIPES[0])).abs().max()) < CLOSE and equal(other, RECIPES[2])


def test_a_result_asked_for_in_its_own_watch_works() -> None:
    engine, found = mix.engine(), []
    ticket = engine.submit(RECIPES[0], lambda t: found or found.append(t.result().latents))
    assert torch.equal(ticket.result().latents, found[0])


def test_a_step_inside_of_a_step_is_refused() -> None:
    engine = mix.engine()
    network = engine.store.base("tiny").network
    predict, refused = type(network).predict, []

    def nested(batch: Any) -> Any:
        with pytest.raises(InfuseError, match="in the middle of a step") as caught:
            engine.step()
        refused.append(caught.value)
        return predict(network, batch)

    network.predict = nested  # type: ignore[method-assign]
    ticket = engine.submit(RECIPES[0])
    finished(engine, ticket)
    del network.__dict__["predict"]
    assert len(refused) == 4 and equal(ticket, RECIPES[0])


def test_watching_sees_every_call_of_a_lone_run_and_its_preview() -> None:
    engine, seen = mix.engine(), []

    def watch(ticket: Ticket) -> None:
        seen.append((ticket.done, ticket.progress, ticket.seconds_left, [p.size for p in ticket.preview()]))

    engine.run(RECIPES[0], watch=watch)
    assert [s[:2] for s in seen] == [(i, i / 4) for i in (1, 2, 3, 4)]
    assert all(s[2] is not None and s[2] >= 0 for s in seen) and seen[-1][2] == 0
    assert all(len(s[3]) == 1 and s[3][0][0] == s[3][0][1] for s in seen)


def test_the_clock_is_an_argument() -> None:
    ticks = iter(range(0, 1000, 10))
    engine, left = mix.engine(clock=lambda: float(next(ticks))), []
    ticket = engine.submit(RECIPES[0])
    assert ticket.seconds_left is None
    finished_at = [engine.step(), ticket.seconds_left]
    left.append(finished_at[1])
    assert left == [30.0], "10 s for one of four"


# ── several at once ─────────────────────────────────────────────────────────────────────────────────────────────────


def others(engine: Engine, hold: threading.Event, hurry: Callable[[], Any]) -> float:
    """Seconds that somebody else's run takes while `hurry` is busy in another thread; `hold` says that it is."""
    thread = threading.Thread(target=hurry)
    thread.start()
    assert hold.wait(10)
    start = time.monotonic()
    engine.run(RECIPES[1])
    took = time.monotonic() - start
    thread.join()
    return took


SLOW = 1.5


@pytest.mark.slow
@pytest.mark.parametrize("what", some(["load", "encode", "decode", "watch"], quick=["load"]))
def test_what_takes_its_time_does_not_hold_up_others(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, hold = mix.engine(), threading.Event()
    engine.run(RECIPES[1])
    me = threading.local()

    def slowly(made: Any) -> Any:
        def slow(*args: Any, **named: Any) -> Any:
            if getattr(me, "slow", False):
                hold.set()
                time.sleep(SLOW)
            return made(*args, **named)

        return slow

    if what == "load":
        monkeypatch.setattr(engine.store, "base", slowly(engine.store.base))
    elif what == "encode":
        monkeypatch.setattr(engine.encodings, "of", slowly(engine.encodings.of))
    elif what == "decode":
        monkeypatch.setattr("infuse.engine.engine.developed", slowly(sys.modules["infuse.engine.engine"].developed))

    def hurry() -> None:
        me.slow = True
        engine.run(RECIPES[0], watch=slowly(lambda t: None) if what == "watch" else None)

    assert others(engine, hold, hurry) < SLOW


@pytest.mark.slow
def test_a_ticket_can_be_awaited() -> None:
    engine = mix.engine()

    async def both() -> list[Any]:
        return await asyncio.gather(*(engine.submit(r) for r in RECIPES[:2]))

    found = asyncio.run(both())
    assert all(float((f.latents - solo(r)).abs().max()) < CLOSE for f, r in zip(found, RECIPES, strict=False))


@pytest.mark.slow
def test_giving_up_waiting_gives_up_the_ticket() -> None:
    engine = mix.engine()
    ticket = engine.submit(Recipe(model="tiny", steps=500))

    async def impatient() -> None:
        await asyncio.wait_for(ticket, 0.2)  # type: ignore[arg-type]

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert ticket.cancelled and not engine._running


def test_a_timeout_is_no_end() -> None:
    engine = mix.engine()
    ticket = engine.submit(RECIPES[0])
    with pytest.raises(TimeoutError):
        ticket.result(timeout=0)
    assert equal(ticket, RECIPES[0])


# ── odd moments ─────────────────────────────────────────────────────────────────────────────────────────────────────


class Speechless(RuntimeError):
    def __str__(self) -> str:
        raise ValueError("it cannot even say so")


def circle() -> Exception:
    """Two errors that are each other's cause."""
    first, second = Broken("on purpose"), Broken("because of it")
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.parametrize(
    ("where", "error"),
    in_turn(["answer", "watch"], [Speechless(), circle(), SystemExit(3), GeneratorExit()]),
    ids=lambda v: v if isinstance(v, str) else type(v).__name__,
)
def test_whatever_is_raised_is_its_own_request_s(where: str, error: BaseException) -> None:
    engine = mix.engine()

    def strange(*_: Any) -> None:
        raise error

    bad = engine.submit(RECIPES[0], strange if where == "watch" else None)
    good = engine.submit(RECIPES[1])
    if where == "answer":
        bad.jobs[0].answer = strange  # type: ignore[method-assign]
    finished(engine, bad, good)
    assert equal(good, RECIPES[1])
    if where == "watch":
        assert type(error).__name__ in bad.warnings[-1] and equal(bad, RECIPES[0])
    else:
        with pytest.raises(type(error)):
            bad.result()


@pytest.mark.slow
def test_one_that_is_too_large_alone_does_not_narrow_the_others() -> None:
    engine = mix.engine()
    tickets = [engine.submit(r) for r in RECIPES]
    heavy = tickets[1].jobs[0]
    rows = heavy.rows
    marked: list[int] = []

    def marking() -> Any:
        out = rows()
        marked[:] = [id(r.x) for r in out]
        return out

    heavy.rows = marking  # type: ignore[method-assign]
    network = engine.store.base("tiny").network
    predict, tried = type(network).predict, []

    def limited(batch: Any) -> Any:
        tried.append(len(batch.x))
        if any(torch.equal(x, y) for x in batch.x for y in [heavy._query[0]] if heavy._query is not None):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return predict(network, batch)

    network.predict = limited  # type: ignore[method-assign]
    finished(engine, *tickets)
    del network.__dict__["predict"]
    with pytest.raises(CapacityError):
        tickets[1].result()
    assert equal(tickets[0], RECIPES[0]) and equal(tickets[2], RECIPES[2])
    assert tried[-3:] == [4, 4, 4] and not engine.asking.narrowed, f"the others go on side by side: {tried}"


def test_whoever_waits_for_something_else_does_not_pay_for_a_stranger_s_watch() -> None:
    engine, told = mix.engine(), []
    stranger = engine.submit(RECIPES[0], lambda t: (told.append(t.done), time.sleep(0.5))[0])
    start = time.monotonic()
    engine.run(RECIPES[1])
    assert not told and time.monotonic() - start < 2
    assert equal(stranger, RECIPES[0]) and told == [4], "told when it is asked for"


@pytest.mark.slow
def test_an_idle_engine_keeps_no_ticket_and_a_store_no_engine() -> None:
    engine = mix.engine()
    tickets = [engine.submit(r) for r in RECIPES]
    engine.step()
    alive = [weakref.ref(t) for t in tickets]
    for ticket in tickets:
        ticket.cancel()
    del tickets, ticket
    gc.collect()
    assert not any(ref() for ref in alive)
    other = Engine("tiny", store=engine.store)
    before, kept = len(engine.store.on_leave), weakref.ref(other.encodings)
    del other
    gc.collect()
    assert kept() is None and len(engine.store.on_leave) == before - 2


def test_a_result_that_was_asked_for_in_vain_can_be_had_by_others() -> None:
    engine = mix.engine()
    ticket = engine.submit(RECIPES[0])
    threads = [threading.Thread(target=lambda: pytest.raises(TimeoutError, ticket.result, timeout=0)) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not ticket.helpers and equal(ticket, RECIPES[0])


@pytest.mark.slow
def test_an_asked_for_error_keeps_nobody_s_frames() -> None:
    engine = mix.engine()
    ticket = engine.submit(RECIPES[0])
    ticket.jobs[0].answer = broken  # type: ignore[method-assign]

    def asks() -> weakref.ref[Any]:
        large = torch.zeros(10)
        with pytest.raises(Broken):
            ticket.result()
        return weakref.ref(large)

    alive = asks()
    gc.collect()
    assert alive() is None and ticket._error is not None and ticket._error.__traceback__ is None

"""Nobody is harmed by a neighbour: a failure is its own job's, events come after the step, and nothing stays behind."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from solo import RECIPES, equal, finished
from some import in_turn, some

import mix
from infuse import CapacityError, Recipe
from infuse.engine.engine import Engine
from infuse.engine.job import Job
from infuse.engine.ticket import Ticket


class Broken(RuntimeError):
    pass


def broken(*_: Any, **__: Any) -> Any:
    raise Broken("on purpose")


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
    engine = mix.engine(slo=None)  # by turns: how wide calls are is not a matter of what they cost
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
    before = len(engine.store.on_leave)
    other = Engine("tiny", store=engine.store)
    kept = weakref.ref(other.encodings)
    assert len(engine.store.on_leave) > before
    del other
    gc.collect()
    assert kept() is None and len(engine.store.on_leave) == before


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

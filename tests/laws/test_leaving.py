"""Whoever leaves, watches or waits is nobody else's affair."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from solo import CLOSE, RECIPES, equal, finished, solo
from some import some

import mix
from infuse import Cancelled, Recipe
from infuse.engine.engine import Engine
from infuse.engine.ticket import Ticket
from infuse.errors import InfuseError


def calls(engine: Engine) -> int:
    return engine.store.base("tiny").network.calls


@pytest.fixture(autouse=True)
def _roomy() -> Any:
    yield
    mix.engine().store.base("tiny").network.__dict__.pop("predict", None)


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

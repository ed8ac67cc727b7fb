"""Whose turn is it? Policy without tensors: nobody is starved, by newcomers, by crowds, or by those who need more room."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from infuse.engine.scheduler import Scheduler, Waiting


@dataclass(eq=False)
class Toy:
    """A job of some calls."""

    bucket: str
    ticket: str
    left: int
    rows: int = 2


def served(
    jobs: list[Toy], turns: int, arriving: Callable[[int], list[Toy]] = lambda turn: [], room: int = 8
) -> list[list[Toy]]:
    """Who was picked in each turn."""
    scheduler, out, arrived = Scheduler(room), [], {id(j): i for i, j in enumerate(jobs)}
    for turn in range(turns):
        for new in arriving(turn):
            arrived[id(new)] = len(arrived)
            jobs.append(new)
        picked: list[Toy] = scheduler.pick([Waiting(j, j.bucket, j.ticket, j.rows, arrived[id(j)]) for j in jobs])  # type: ignore[assignment]
        out.append(picked)
        for job in picked:
            job.left -= 1
        jobs = [j for j in jobs if j.left]
    return out


def test_nobody_waits_for_nothing() -> None:
    assert Scheduler().pick([]) == []


@pytest.mark.slow
def test_newcomers_of_new_shapes_do_not_starve_an_old_job() -> None:
    old = Toy("512", "old", 10_000)
    picked = served([old], 1000, lambda turn: [Toy(f"shape {turn}", f"one step {turn}", 1)])
    count = sum(old in p for p in picked)
    assert count >= 450, f"picked {count} times of 1000"
    assert sum(old not in p for p in picked) >= 450, "and newcomers are served, too"


def test_one_picture_does_not_wait_behind_a_ticket_of_many() -> None:
    crowd = [Toy("512", "crowd", 4) for _ in range(24)]
    single = Toy("512", "single", 4)
    picked = served([*crowd, single], 60)
    assert [single in p for p in picked[:4]] == [True] * 4
    assert all(j.left == 0 for j in crowd)


def test_a_ticket_s_first_pictures_are_done_first() -> None:
    crowd = [Toy("512", "crowd", 4) for _ in range(24)]
    picked = served(list(crowd), 4)
    assert all(p == crowd[:4] for p in picked), "four pictures are done before the fifth takes memory"


def test_tickets_rotate_when_there_are_more_than_a_call_can_hold() -> None:
    many = [Toy("512", f"{i}", 100) for i in range(10)]
    counts = Counter(j.ticket for p in served(many, 50) for j in p)
    assert max(counts.values()) - min(counts.values()) <= 1


def test_a_wide_job_among_narrow_ones_gets_its_turn() -> None:
    wide = Toy("512", "wide", 10, rows=7)
    narrow = [Toy("512", f"{i}", 1000) for i in range(4)]
    count = sum(wide in p for p in served([*narrow, wide], 40))
    assert count == 10


def test_one_that_is_wider_than_a_call_goes_alone() -> None:
    huge = Toy("512", "huge", 1, rows=100)
    assert served([huge], 1) == [[huge]]


def test_two_shapes_share_calls_evenly() -> None:
    picked = served([Toy("512", "a", 1000), Toy("768", "b", 1000)], 100)
    counts = Counter(p[0].bucket for p in picked)
    assert abs(counts["512"] - counts["768"]) <= 50


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_bucket_may_be_narrower_than_the_rest(width: int) -> None:
    jobs = [Toy("512", f"{i}", 1, rows=1) for i in range(8)]
    waiting = [Waiting(j, j.bucket, j.ticket, j.rows, i) for i, j in enumerate(jobs)]
    assert len(Scheduler(8).pick(waiting, lambda bucket: width)) == width

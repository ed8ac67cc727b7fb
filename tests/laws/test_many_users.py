"""Many users at one engine: whatever they ask for and whatever befalls the others, each has what it would have alone.

Other seeds: `CROWD_SEEDS="4 5 6" pytest tests/laws/test_many_users.py -s` prints what happened.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import crowd
import pytest

SEEDS = [int(s) for s in os.environ.get("CROWD_SEEDS", "1").split()]
KEPT = 48
"""Encodings that are kept: fewer than are asked for, so that some leave."""
ROOM = 16
"""Rows for which there is memory: fewer than come together."""


@pytest.fixture(autouse=True)
def _restless() -> Iterator[None]:
    """Threads change places more often than usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(before / 3)
    yield
    sys.setswitchinterval(before)


def all_have_their_own(seed: int, count: int, waves: int, **how: tuple[int, ...]) -> list[tuple[int, int]]:
    """(bytes, tensors) after each wave, when nobody is there any more."""
    asked, start = crowd.requests(seed, count, **how), crowd.calls()
    alone = crowd.alone(asked)
    apart, made, left = crowd.calls() - start, crowd.engine(cache=KEPT), []
    users, threads = crowd.Crowd(made, alone, seed), threading.active_count()
    with crowd.fated(made, asked, ROOM):
        for i in range(waves):
            users.wave(asked[i * count // waves : (i + 1) * count // waves])
            assert not users.complaints, "\n".join(users.complaints)
            assert not made._running and not made._turns._waiting and not made._telling
            with made._turns.mine(timeout=0) as free:
                assert free
            assert threading.active_count() == threads
            assert len(made.encodings) <= KEPT and made.encodings.nbytes <= made.encodings.most_bytes
            assert (
                len(made.scheduler._tickets) <= count / waves and len(made.scheduler._buckets) <= len(crowd.SIZES) + 5
            )
            assert len(made.asking.narrowed) <= len(crowd.SIZES) + 5
            for base in crowd.parts()[0].values():  # how much they hold depends on who came last
                made.encodings.forget(base)
            left.append((crowd.resident(), crowd.tensors()))
    ends = Counter(users.ends.values())
    assert len(users.ends) == count and ends["survived"] > 0.7 * count and ends["failed"] > 0.02 * count
    assert crowd.Crowd(made, alone, seed).engine.run(asked[0].recipe.model_copy(update={"conditions": ()})).images
    pictures = sum(r.recipe.count for r in asked)
    print(
        f"\nseed {seed}: {count} requests, {pictures} jobs; {dict(ends)}; at most {users.furthest:.1e} from alone; "
        f"{crowd.calls() - start - apart} calls, {apart} alone; at most {users.peak} at a time, {users.events} events\n"
        f"ways {dict(users.ways)}\nfates {dict(Counter(r.fate for r in asked))}\nmodels {dict(Counter(r.recipe.model for r in asked))}\n"
        f"conditions {dict(Counter(c.kind for r in asked for c in r.recipe.conditions))}\n(MB, tensors) {[(m // 10**6, t) for m, t in left]}"
    )
    return left


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_sixty_jobs(seed: int) -> None:
    all_have_their_own(seed, 28, 1, steps=(2,), counts=(1, 2, 3, 4))


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_four_hundred_requests_and_memory_is_flat(seed: int) -> None:
    with crowd.tidy():
        left = all_have_their_own(seed, 400, 8)
    for kind in zip(*left[3:], strict=True):
        assert max(kind) <= 1.02 * min(kind), f"it grows: {left}"

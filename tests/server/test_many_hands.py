"""Many processes on one store, some of which are killed: every job is done once, and nothing is lost."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from databases import KINDS, address

from infuse.server.store import Ask, Store
from infuse.server.turns import Quota

WORKER = """
import hashlib, sys, time
from infuse.server.jobs import Made
from infuse.server.letters import LeaseLost
from infuse.server.store import Store
store = Store(sys.argv[1], sys.argv[2], patience=30)
name = sys.argv[3]
while True:
    leases = store.claim(name, 2, seconds=1.5)
    for lease in leases:
        prompt = store.request(lease.job.id).recipe["prompt"]
        try:
            for i in range(4):
                store.tell(lease, "step", {"step": i}, preview=b"small")
                time.sleep(0.01)
            store.done(lease, [Made(hashlib.sha512(f"{prompt} {i}".encode()).digest() * 200) for i in range(2)], "w")
        except LeaseLost:
            pass
    if not leases:
        time.sleep(0.05)
"""


def made(prompt: str, i: int) -> bytes:
    import hashlib

    return hashlib.sha512(f"{prompt} {i}".encode()).digest() * 200


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_killed_workers_lose_nothing(kind: str, tmp_path: Path) -> None:
    where, files, dice = address(kind, tmp_path), tmp_path / "files", random.Random(3)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def started(n: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", WORKER, where, files, f"worker {n}"], env=environment)

    with Store(where, files, patience=30) as store:
        ids = [
            store.submit(Ask({"prompt": f"p{i}"}, f"a{i}", f"d{i}"), f"owner {i % 3}", attempts=50)[0].id
            for i in range(60)
        ]
        hands, kills = [started(n) for n in range(3)], 0
        until = time.monotonic() + 150
        try:
            while store.counts()["done"] < len(ids) and time.monotonic() < until:
                time.sleep(dice.uniform(0.1, 0.6))
                if kills < 25:
                    n = dice.randrange(len(hands))
                    hands[n].kill()
                    hands[n].wait()
                    kills += 1
                    hands[n] = started(100 + kills)
        finally:
            for hand in hands:
                hand.kill()
                hand.wait()
        assert store.counts() == {"waiting": 0, "running": 0, "done": len(ids), "failed": 0, "cancelled": 0}
        assert kills >= 10
        for i, id in enumerate(ids):
            found = store.results(id)
            assert [store.read(r) for r in found] == [made(f"p{i}", n) for n in range(2)]
            told = store.events(id, most=999)
            assert [e.kind for e in told].count("done") == 1 and told[-1].kind == "done"
            assert [e.id for e in told] == sorted({e.id for e in told})
        store.sweep(fresh=0)
        left = [p for p in files.rglob("*") if p.is_file()]
        assert len(left) == 2 * len(ids), "what killed writers left is swept"


@pytest.mark.parametrize("kind", KINDS)
def test_claims_at_once_give_each_job_to_one(kind: str, tmp_path: Path) -> None:
    where = address(kind, tmp_path)
    with Store(where, tmp_path / "files", quota=Quota(running=5), patience=30) as store:
        for i in range(24):
            store.submit(Ask({}, str(i), str(i)), f"owner {i % 2}")
        with ThreadPoolExecutor(8) as hands:
            got = [lease.job for found in hands.map(lambda n: store.claim(f"w{n}", 3), range(8)) for lease in found]
        assert len({j.id for j in got}) == len(got)
        most = Counter(j.owner for j in got)
        assert all(n <= 5 for n in most.values()), "an owner's quota holds, whoever claims at once"
        more = store.claim("last", 99)
        assert Counter(j.owner for j in [*got, *(lease.job for lease in more)]) == {"owner 0": 5, "owner 1": 5}


@pytest.mark.parametrize("kind", KINDS)
def test_one_key_from_many_hands_is_one_job(kind: str, tmp_path: Path) -> None:
    where = address(kind, tmp_path)
    with Store(where, tmp_path / "files", patience=30) as store, ThreadPoolExecutor(8) as hands:
        asked = Ask({"prompt": "x"}, "x", "x")
        found = list(hands.map(lambda _: store.submit(asked, "ann", key="same"), range(16)))
        assert len({job.id for job, _ in found}) == 1 and sum(new for _, new in found) == 1

"""The durable queue: nothing that was acknowledged is lost, nothing is answered twice, and everybody gets a turn."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import KINDS, Clock, opened

from infuse.errors import RecipeError
from infuse.server.jobs import Made
from infuse.server.keeping import Keep
from infuse.server.letters import KeyTaken, LeaseLost, QuotaError, StoreError, UnknownJob, WrongState
from infuse.server.store import Ask, Store
from infuse.server.turns import Quota


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with opened(request.param, tmp_path, clock=clock) as found:
        yield found


def ask(text: str = "a red cube", **more: Any) -> Ask:
    return Ask({"prompt": text}, f"asked {text}", f"drawn {text}", **more)


PICTURE = Made(b"pixels", seed=7)


def test_a_job_from_its_arrival_to_its_picture(store: Store) -> None:
    job, new = store.submit(ask(beside={"shape": "b64"}), "ann")
    assert new and job.state == "waiting" and job.owner == "ann" and store.place(job.id) == 1
    assert store.request(job.id).recipe == {"prompt": "a red cube"} and store.request(job.id).beside == {"shape": "b64"}
    (lease,) = store.claim("one")
    assert (
        lease.job.id == job.id
        and lease.job.state == "running"
        and lease.job.attempts == 1
        and store.place(job.id) is None
    )
    assert not store.claim("two")
    for step in range(50):
        store.tell(lease, "step", {"step": step, "of": 50})
    store.tell(lease, "preview", {"step": 49}, preview=b"small")
    store.tell(lease, "warning", {"text": "427 x 640"})
    assert store.previewed(job.id) == b"small"
    done = store.done(lease, [PICTURE, Made(b"more", "video/mp4")], "weights 1")
    assert done.state == "done" and done.ended_well and done.worker is None and store.previewed(job.id) is None
    first, second = store.results(job.id)
    assert (first.number, first.seed, first.media_type, first.bytes) == (0, 7, "image/png", 6) and second.number == 1
    assert store.read(first) == b"pixels" and store.read(second) == b"more"
    told = store.events(job.id)
    assert [e.kind for e in told] == ["queued", "started", "step", "preview", "warning", "done"]
    assert told[2].data == {"step": 49, "of": 50} and [e.id for e in told] == sorted({e.id for e in told})
    assert store.events(job.id, after=told[3].id) == told[4:]
    assert store.counts() == {"waiting": 0, "running": 0, "done": 1, "failed": 0, "cancelled": 0}


def test_what_is_there_is_there_after_a_restart(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        first, second = (store.submit(ask(t))[0] for t in ("one", "two"))
        (lease,) = store.claim("worker")
        store.done(lease, [PICTURE])
    with Store(tmp_path) as store:
        assert store.job(first.id).state == "done" and store.job(second.id).state == "waiting"
        assert store.read(store.results(first.id)[0]) == b"pixels"


def test_an_idempotency_key_is_one_job(store: Store) -> None:
    job, _ = store.submit(ask(), "ann", key="k")
    assert store.submit(ask(), "ann", key="k") == (job, False)
    assert store.submit(ask(), "bob", key="k")[1], "another's key is another key"
    with pytest.raises(KeyTaken, match=f"key: the idempotency key 'k' stands for another recipe .job {job.id}."):
        store.submit(ask("a ball"), "ann", key="k")


def test_the_same_recipe_again_is_answered_from_the_store(store: Store) -> None:
    job, _ = store.submit(ask(), "ann")
    store.done(store.claim("w")[0], [PICTURE], "weights 1")
    same, new = store.submit(ask(), "ann", made_with="weights 1")
    assert new and same.id != job.id and same.state == "done" and store.read(store.results(same.id)[0]) == b"pixels"
    assert store.events(same.id)[-1].data == {"results": 1, "from": job.id}
    for who, with_what in (("ann", "weights 2"), ("bob", "weights 1"), ("ann", None)):
        assert store.submit(ask(), who, made_with=with_what)[0].state == "waiting"
    store.files.place(store.results(job.id)[0].sha256).write_bytes(b"rotten")
    assert store.submit(ask(), "ann", made_with="weights 1")[0].state == "waiting", "a broken file answers nobody"


def test_who_dies_loses_its_lease(store: Store, clock: Clock) -> None:
    job, _ = store.submit(ask(), attempts=2)
    (dead,) = store.claim("one", seconds=30)
    clock.now += 29
    assert not store.claim("two")
    clock.now += 2
    (alive,) = store.claim("two", seconds=30)
    assert alive.job.id == job.id and alive.job.attempts == 2 and alive.fence > dead.fence
    for late in (
        lambda: store.done(dead, [Made(b"other pixels")]),
        lambda: store.tell(dead, "step"),
        lambda: store.renew(dead),
        lambda: store.failed(dead, ValueError("no")),
        lambda: store.stopped(dead),
    ):
        with pytest.raises(LeaseLost, match="not this worker's any more"):
            late()
    store.done(alive, [PICTURE])
    assert [store.read(r) for r in store.results(job.id)] == [b"pixels"]
    with pytest.raises(LeaseLost):
        store.done(alive, [PICTURE])


def test_a_lease_is_renewed_and_late_work_nobody_else_has_counts(store: Store, clock: Clock) -> None:
    store.submit(ask())
    (lease,) = store.claim("one", seconds=30)
    clock.now += 25
    lease = store.renew(lease)
    clock.now += 25
    assert not store.claim("two")
    clock.now += 60
    assert store.done(lease, [PICTURE]).state == "done"


def test_after_the_last_attempt_it_has_failed(store: Store, clock: Clock) -> None:
    job, _ = store.submit(ask(), attempts=2)
    for _ in range(2):
        assert len(store.claim("one", seconds=30)) == 1
        clock.now += 31
    assert not store.claim("one")
    job = store.job(job.id)
    assert job.state == "failed" and job.error is not None and job.error["kind"] == "StoreError"
    assert "one began it for the 2. time of 2" in job.error["fact"] and "memory" in job.error["remedy"]
    assert store.retry(job.id).state == "waiting" and store.claim("one")[0].job.attempts == 1


def test_a_letter_is_final_and_another_fault_is_tried_again(store: Store) -> None:
    job, _ = store.submit(ask())
    failed = store.failed(store.claim("w")[0], RecipeError("steps", "0 is too few. Say 1 or more."))
    assert failed.state == "failed" and failed.error == {
        "kind": "RecipeError", "field": "steps", "fact": "0 is too few.", "remedy": "Say 1 or more."}  # fmt: skip
    assert store.events(job.id)[-1].data == {"error": dict(failed.error)}
    other, _ = store.submit(ask("other"))
    for left in (True, True, False):
        assert (store.failed(store.claim("w")[0], MemoryError("full")).state == "waiting") is left
    assert store.job(other.id).error["fact"] == "MemoryError: full"  # type: ignore[index]


def test_a_worker_that_is_stopped_or_known_to_be_dead_gives_back(store: Store) -> None:
    job, _ = store.submit(ask(), attempts=1)
    assert store.stopped(store.claim("one")[0]).state == "waiting"
    store.claim("one")
    assert [j.id for j in store.gone("one")] == [job.id]
    assert store.job(job.id).state == "failed", "that was its one attempt"


def test_owners_take_turns(store: Store) -> None:
    many = [store.submit(ask(f"ann {i}"), "ann")[0].id for i in range(4)]
    one = store.submit(ask("bob"), "bob")[0].id
    assert store.place(one) in (1, 2)
    got = [store.claim("w")[0].job.id for _ in range(5)]
    assert got.index(one) <= 1 and [g for g in got if g != one] == many


def test_within_an_owner_priority_counts_then_deadline_then_arrival(store: Store, clock: Clock) -> None:
    late = store.submit(ask("a"))[0].id
    soon = store.submit(ask("b", deadline=clock.now + 5))[0].id
    sooner = store.submit(ask("c", deadline=clock.now + 1))[0].id
    high = store.submit(ask("d", priority=1))[0].id
    assert [store.place(i) for i in (high, sooner, soon, late)] == [1, 2, 3, 4]
    assert [lease.job.id for lease in store.claim("w", 4)] == [high, sooner, soon, late]


@pytest.mark.parametrize("kind", KINDS)
def test_quotas(kind: str, tmp_path: Path) -> None:
    with opened(kind, tmp_path, quota=Quota(waiting=2, running=1)) as store:
        store.limit("free", running=5, waiting=9)
        for who in ("ann", "ann", "free", "free", "free"):
            store.submit(ask(), who)
        with pytest.raises(QuotaError, match="2 jobs of this key wait already, and 2 may"):
            store.submit(ask(), "ann")
        assert sorted(lease.job.owner for lease in store.claim("w", 9)) == ["ann", "free", "free", "free"]
        assert not store.claim("w")
        store.submit(ask(), "ann")


def test_cancelling(store: Store) -> None:
    waiting, running, done = (store.submit(ask(t))[0].id for t in ("w", "r", "d"))
    leases = {lease.job.id: lease for lease in store.claim("w", 3)}
    store.stopped(leases[waiting])
    assert store.cancel(waiting).state == "cancelled" == store.cancel(waiting).state
    assert store.cancel(running).state == "running" and store.cancel(running).cancelling
    assert store.renew(leases[running]).cancelled and store.stopped(leases[running]).state == "cancelled"
    store.done(leases[done], [PICTURE])
    with pytest.raises(WrongState, match="is done already"):
        store.cancel(done)
    with pytest.raises(WrongState, match="Only what failed or was cancelled"):
        store.retry(done)
    assert store.retry(waiting).state == "waiting" and [e.kind for e in store.events(waiting)][-1] == "queued"


def test_a_job_whose_worker_died_while_it_was_cancelled_stays_cancelled(store: Store, clock: Clock) -> None:
    job, _ = store.submit(ask())
    store.claim("w", seconds=5)
    store.cancel(job.id)
    clock.now += 6
    assert not store.claim("x") and store.job(job.id).state == "cancelled"


def test_nobody_sees_what_is_anothers(store: Store) -> None:
    job, _ = store.submit(ask(), "ann")
    blob = store.upload(b"a mask", "image/png", "ann")
    for look in (
        store.job,
        store.request,
        store.events,
        store.results,
        store.cancel,
        store.retry,
        store.previewed,
        store.delete,
    ):
        with pytest.raises(UnknownJob, match="there is no job"):
            look(job.id, owner="bob")
    with pytest.raises(UnknownJob, match="no file"):
        store.file(blob.sha256, "bob")
    with pytest.raises(UnknownJob, match="no file"):
        store.submit(ask(uses=[blob.sha256]), "bob")
    assert store.file(blob.sha256, "ann") == b"a mask" and store.submit(ask(uses=[blob.sha256]), "ann")[1]
    assert not store.jobs("bob").jobs and len(store.jobs("ann").jobs) == 2


@pytest.mark.slow
def test_pages(store: Store) -> None:
    ids = [store.submit(ask(str(i)))[0].id for i in range(7)]
    seen, after = [], None
    while True:
        page = store.jobs(after=after, most=3)
        seen += [j.id for j in page.jobs]
        if (after := page.after) is None:
            break
    assert seen == ids[::-1] and not store.jobs(states=["done"]).jobs


@pytest.mark.parametrize("kind", KINDS)
def test_sweeping(kind: str, tmp_path: Path, clock: Clock) -> None:
    with opened(kind, tmp_path, clock=clock, keep=Keep(seconds=100)) as store:
        used, spare = (store.upload(text, "image/png") for text in (b"used", b"spare"))
        old, _ = store.submit(ask("old"))
        store.done(store.claim("w")[0], [PICTURE])
        clock.now += 101
        fresh, _ = store.submit(ask("fresh", uses=[used.sha256]))
        store.done(store.claim("w")[0], [Made(b"other")])
        swept = store.sweep(fresh=0)
        assert (swept.jobs, swept.blobs, swept.bytes) == (1, 1, len(b"pixels") + len(b"spare"))
        with pytest.raises(UnknownJob):
            store.job(old.id)
        assert not store.files.there(spare.sha256) and store.file(used.sha256) == b"used"
        assert store.read(store.results(fresh.id)[0]) == b"other"
        store.delete(fresh.id)
        assert store.sweep(fresh=0).bytes == len(b"other") + len(b"used"), (
            "an old upload goes with the last that used it"
        )


@pytest.mark.slow
def test_too_much_is_swept_from_the_oldest_on(tmp_path: Path, clock: Clock) -> None:
    with Store(tmp_path, clock=clock, keep=Keep(bytes=25)) as store:
        ids = []
        for i in range(4):
            ids.append(store.submit(ask(str(i)))[0].id)
            store.done(store.claim("w")[0], [Made(bytes([i]) * 10)])
            clock.now += 1
        waiting, _ = store.submit(ask("waits"))
        assert store.sweep(fresh=0).jobs == 2
        assert [j.id for j in store.jobs().jobs] == [waiting.id, ids[3], ids[2]]


def test_a_file_that_was_just_written_is_not_swept(store: Store) -> None:
    sha256 = store.files.put(b"about to be named")
    assert not store.sweep().bytes and store.files.there(sha256)
    assert store.sweep(fresh=0).bytes == len(b"about to be named")


def test_what_is_broken_on_disk_is_a_letter(store: Store) -> None:
    job, _ = store.submit(ask())
    store.done(store.claim("w")[0], [PICTURE])
    (found,) = store.results(job.id)
    store.files.place(found.sha256).write_bytes(b"pixelz")
    with pytest.raises(StoreError, match=r"result 0 of job .* is broken on disk"):
        store.read(found)
    store.files.place(found.sha256).unlink()
    with pytest.raises(StoreError, match="is gone"):
        store.read(found)


@pytest.mark.slow
def test_a_full_disk_is_a_letter_and_the_job_is_still_its_workers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, _ = store.submit(ask())
    (lease,) = store.claim("w")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("infuse.server.files.os.fsync", full)
        with pytest.raises(StoreError, match="store: the disk of the folder .* is full. Make room on it"):
            store.done(lease, [PICTURE])
    assert store.job(job.id).state == "running" and not list(store.files.folder.glob("writing/*"))
    assert store.done(lease, [PICTURE]).state == "done"


def test_a_database_that_another_program_holds(tmp_path: Path) -> None:
    with Store(tmp_path, patience=0.2) as store:
        held = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match=r"is held by another program, and 0.2 s of waiting did not help"):
            store.submit(ask())
        assert not store.jobs().jobs, "readers never wait"
        held.execute("ROLLBACK")
        held.close()
        assert store.submit(ask())[1]


def test_what_is_no_store_is_a_letter(tmp_path: Path) -> None:
    for address, said in (
        ("mysql://host/name", "a store lies in SQLite or PostgreSQL, not in mysql"),
        ("postgresql://", "wants a folder for what is made"),
    ):
        with pytest.raises(StoreError, match=said):
            Store(address)
    (tmp_path / "a" / "jobs.sqlite").parent.mkdir()
    (tmp_path / "a" / "jobs.sqlite").write_bytes(b"no database, but long enough to be looked at" * 99)
    with pytest.raises(StoreError, match="is broken, or no SQLite database"):
        Store(tmp_path / "a")
    with Store(tmp_path / "b") as store, store.database.writing() as c:
        c.exec_driver_sql("UPDATE about SET value = '99' WHERE key = 'schema'")
    with pytest.raises(StoreError, match="written by a newer infuse .its tables are of version 99"):
        Store(tmp_path / "b")
    (tmp_path / "c").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        Store(tmp_path / "c")


@pytest.mark.slow
def test_a_worker_tells_what_workers_tell(store: Store) -> None:
    store.submit(ask())
    (lease,) = store.claim("w")
    with pytest.raises(ValueError, match="told by the store itself"):
        store.tell(lease, "done")
    store.tell(lease, "warning", {"text": "x" * 10_000})
    assert len(store.events(lease.job.id)[-1].data["text"]) <= 2000

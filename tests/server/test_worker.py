"""A worker makes what waits, several side by side, and whatever happens to it or to a job is said to the store."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import infuse
import tiny
from infuse.engine.engine import Engine
from infuse.errors import RecipeError
from infuse.recipe import Recipe
from infuse.server.store import Store
from infuse.server.worker import Worker, ask, limits_of

SIDE = 16


@pytest.fixture(scope="module")
def engine() -> Engine:
    return tiny.engine(tiny.base("sd1"), {"edges": tiny.controlnet("sd1", 7)})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path) as found:
        yield found


def plain(**more: Any) -> dict[str, Any]:
    return {"prompt": "a red cube", "steps": 2, "width": SIDE, "height": SIDE, **more}


def until(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def test_what_waits_is_made_as_the_engine_makes_it(store: Store, engine: Engine) -> None:
    limits = limits_of(store)
    blob = store.upload(picture(), "image/png", "ann")
    hint = {"kind": "controlnet", "model": "edges", "image": f"sha256:{blob.sha256}", "annotator": "none"}
    asked = [plain(seed=3), plain(seed=4, count=2), plain(seed=5, conditions=[hint])]
    jobs = [store.submit(ask(a, limits), "ann")[0].id for a in asked]
    with Worker(store, engine, hands=3):
        until(lambda: store.counts()["done"] == 3)
    own = [Recipe.model_validate(a) for a in asked[:2]]
    own += [Recipe(**plain(seed=5), conditions=(infuse.ControlNet(model="edges", image=picture(), annotator="none"),))]  # type: ignore[arg-type]
    for id, recipe in zip(jobs, own, strict=True):
        made = [Image.open(io.BytesIO(store.read(r))) for r in store.results(id)]
        assert [np.array(m).tobytes() for m in made] == [np.array(i).tobytes() for i in engine.run(recipe).images]
        assert [r.seed for r in store.results(id)] == list(recipe.seeds)
        assert [e.kind for e in store.events(id)][-1] == "done"
    again, _ = store.submit(ask(asked[0], limits), "ann", made_with=_made_with(store, jobs[0]))
    assert again.state == "done" and store.read(store.results(again.id)[0]) == store.read(store.results(jobs[0])[0])


def _made_with(store: Store, id: str) -> str:
    with store.database.reading() as c:
        return c.exec_driver_sql(f"SELECT made_with FROM jobs WHERE id = '{id}'").scalar_one()


def test_what_cannot_be_is_a_letter_and_the_others_go_on(store: Store, engine: Engine) -> None:
    limits = limits_of(store)
    wrong = store.submit(ask(plain(conditions=[{"kind": "controlnet", "model": "nobody", "image": _uri()}]), limits))[
        0
    ].id
    right = store.submit(ask(plain(), limits))[0].id
    with Worker(store, engine, hands=1):
        until(lambda: store.job(right).state == "done" and store.job(wrong).state == "failed")
    error = store.job(wrong).error
    assert (
        error is not None and error["field"] == "conditions.0.model" and "nobody" in error["fact"] and error["remedy"]
    )
    assert store.job(wrong).attempts == 1


def _uri() -> str:
    import base64

    return f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


def test_a_random_seed_is_drawn_once(store: Store) -> None:
    limits = limits_of(store)
    one, two = (ask(plain(seed=-1), limits) for _ in range(2))
    assert one.asked == two.asked and one.digest != two.digest and one.recipe["seed"] >= 0


@pytest.mark.slow
def test_recipes_over_a_wire_read_nothing_of_this_machine(store: Store, engine: Engine, tmp_path: Path) -> None:
    limits = limits_of(store)
    (tmp_path / "mine.png").write_bytes(picture())
    for source in (str(tmp_path / "mine.png"), "mine.png", "https://example.org/a.png", f"sha256:{'0' * 64}"):
        with pytest.raises(RecipeError):
            ask(plain(conditions=[{"kind": "controlnet", "model": "edges", "image": source}]), limits)
    job = store.submit(ask(plain(model=str(tmp_path / "somebody.safetensors")), limits))[0].id
    with Worker(store, engine, hands=1):
        until(lambda: store.job(job).state == "failed")


@pytest.mark.slow
def test_cancelling_a_job_that_runs(store: Store, engine: Engine) -> None:
    long = store.submit(ask(plain(steps=900), limits_of(store)))[0].id
    with Worker(store, engine, hands=1, lease=0.6):
        until(lambda: any(e.kind == "step" for e in store.events(long)))
        assert store.cancel(long).cancelling
        until(lambda: store.job(long).state == "cancelled")
    told = [e for e in store.events(long) if e.kind == "step"]
    assert told[0].data["of"] == 900


@pytest.mark.slow
def test_a_worker_that_stops_gives_back_and_one_that_comes_back_takes_up(store: Store, engine: Engine) -> None:
    long = store.submit(ask(plain(steps=900), limits_of(store)))[0].id
    with Worker(store, engine, hands=1):
        until(lambda: any(e.kind == "step" for e in store.events(long)))
    job = store.job(long)
    assert (job.state, job.attempts) == ("waiting", 0)
    store.claim("worker")  # as if it had been killed
    short = store.submit(ask(plain(), limits_of(store)))[0].id
    store.cancel(long)
    with Worker(store, engine, hands=1):
        until(lambda: store.job(short).state == "done")
    assert store.job(long).state == "cancelled"

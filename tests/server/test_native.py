"""The native interface: a recipe goes in, events and pictures come out, and whatever is wrong is a letter."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from test_worker import SIDE, engine, picture, plain, until

from infuse.engine.engine import Engine
from infuse.recipe import Recipe
from infuse.server.native import PROBLEM, application
from infuse.server.store import Store
from infuse.server.turns import Quota
from infuse.server.worker import Worker

__all__ = ["engine"]
KEYS = {"secret of ann": "ann", "secret of bob": "bob"}
ANN, BOB = ({"Authorization": f"Bearer secret of {who}"} for who in ("ann", "bob"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path, quota=Quota(waiting=3)) as found:
        yield found


@pytest.fixture
def client(store: Store, engine: Engine) -> Iterator[TestClient]:
    with TestClient(application(store, engine, KEYS), raise_server_exceptions=True) as found:
        yield found


def letter(answer: Any, status: int, field: str = "") -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    said = answer.json()
    assert said["status"] == status and said["field"] == field and said["fact"].endswith(".") and said["title"]
    return said


def followed(client: TestClient, id: str, **headers: str) -> list[dict[str, Any]]:
    text = client.get(f"/v1/jobs/{id}/events", headers={**ANN, **headers}).text
    blocks = [dict(line.split(": ", 1) for line in b.splitlines()) for b in text.strip().split("\n\n") if b]
    return [{**json.loads(b["data"]), "kind": b["event"], "id": int(b["id"])} for b in blocks]


@pytest.mark.slow
def test_from_a_recipe_to_its_picture(client: TestClient, store: Store, engine: Engine) -> None:
    blob = client.post("/v1/blobs", content=picture(), headers={**ANN, "Content-Type": "image/png"})
    assert blob.status_code == 201
    hint = {"kind": "controlnet", "model": "edges", "image": blob.json()["source"], "annotator": "none"}
    sent = client.post("/v1/jobs", json=plain(seed=5, conditions=[hint]), headers=ANN)
    assert sent.status_code == 202 and sent.json()["state"] == "waiting"
    where = sent.headers["Location"]
    assert client.get(where, headers=ANN).json()["place"] == 1
    letter(client.get(f"{where}/result", headers=ANN), 409, "job")
    with Worker(store, engine, hands=1):
        told = followed(client, sent.json()["id"])
    assert [e["kind"] for e in told][:2] == ["queued", "started"] and told[-1]["kind"] == "done"
    done = client.get(where, headers=ANN).json()
    assert done["state"] == "done" and done["results"][0]["seed"] == 5 and done["recipe"]["prompt"] == "a red cube"
    got = client.get(done["results"][0]["url"], headers=ANN)
    assert got.headers["content-type"] == "image/png" and got.headers["x-content-type-options"] == "nosniff"
    own = Recipe.model_validate(plain(seed=5, conditions=[{**hint, "image": picture_uri()}]))
    assert np.array_equal(Image.open(io.BytesIO(got.content)), engine.run(own).image)
    assert followed(client, done["id"], **{"Last-Event-ID": str(told[-2]["id"])}) == told[-1:]
    assert followed(client, done["id"], **{"Last-Event-ID": str(told[-1]["id"])}) == []
    assert client.delete(where, headers=ANN).status_code == 200
    letter(client.get(where, headers=ANN), 404, "job")


def picture_uri() -> str:
    import base64

    return f"data:image/png;base64,{base64.b64encode(picture()).decode()}"


def test_keys_are_asked_for_and_keep_jobs_apart(client: TestClient) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic YW5uOng="}):
        assert letter(client.post("/v1/jobs", json=plain(), headers=headers), 401)["remedy"]
    id = client.post("/v1/jobs", json=plain(), headers=ANN).json()["id"]
    for method, where in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/events"),
        ("GET", "/result"),
        ("GET", "/preview"),
        ("POST", "/retry"),
    ):
        letter(client.request(method, f"/v1/jobs/{id}{where}", headers=BOB), 404, "job")
    assert not client.get("/v1/jobs", headers=BOB).json()["jobs"]
    blob = client.post("/v1/blobs", content=picture(), headers=ANN).json()["sha256"]
    letter(client.get(f"/v1/blobs/{blob}", headers=BOB), 404)
    assert client.get(f"/v1/blobs/{blob}", headers=ANN).content == picture()
    stolen = plain(
        conditions=[{"kind": "controlnet", "model": "edges", "image": f"sha256:{blob}", "annotator": "none"}]
    )
    letter(client.post("/v1/jobs", json=stolen, headers=BOB), 404)


def test_the_same_key_twice_is_one_job_and_quotas_hold(client: TestClient) -> None:
    headers = {**ANN, "Idempotency-Key": "once"}
    first, second = (client.post("/v1/jobs", json=plain(), headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 200) and first.json()["id"] == second.json()["id"]
    letter(client.post("/v1/jobs", json=plain(steps=3), headers=headers), 409, "key")
    for _ in range(2):
        client.post("/v1/jobs", json=plain(), headers=ANN)
    full = client.post("/v1/jobs", json=plain(), headers=ANN)
    assert letter(full, 429)["remedy"] and full.headers["Retry-After"] == "5"
    assert client.post("/v1/jobs", json=plain(), headers=BOB).status_code == 202


def test_cancel_and_retry(client: TestClient) -> None:
    id = client.post("/v1/jobs", json=plain(), headers=ANN).json()["id"]
    letter(client.post(f"/v1/jobs/{id}/retry", headers=ANN), 409, "job")
    assert client.delete(f"/v1/jobs/{id}", headers=ANN).json()["state"] == "cancelled"
    assert client.post(f"/v1/jobs/{id}/retry", headers=ANN).json()["state"] == "waiting"


WRONG: list[tuple[Any, int, str]] = [
    ({"prompts": "a red cube"}, 422, "prompts"),
    (plain(steps=0), 422, "steps"),
    (plain(stepss=3), 422, "stepss"),
    (plain(width=100_000), 422, "width"),
    (plain(scheduler="nobody"), 422, "scheduler"),
    (plain(model="nobody"), 422, "model"),
    (plain(conditions=[{"kind": "nobody"}]), 422, "conditions.0"),
    (plain(conditions=[{"kind": "controlnet", "model": "edges", "image": "/etc/passwd"}]), 422, "conditions.0.image"),
    (
        plain(conditions=[{"kind": "controlnet", "model": "edges", "image": "data:image/png;base64,!!!"}]),
        422,
        "conditions.0.image",
    ),
    (plain(conditions=[{"kind": "controlnet", "model": "nobody", "image": picture_uri()}]), 422, "conditions.0.model"),
    ([], 422, ""),
    ("a red cube", 422, ""),
    (3, 422, ""),
]


@pytest.mark.parametrize("where", [pytest.param("/v1/jobs", marks=pytest.mark.slow), "/v1/check"])
@pytest.mark.parametrize(("body", "status", "field"), WRONG, ids=lambda v: str(v)[:40])
def test_what_is_wrong_is_a_letter(
    client: TestClient, store: Store, where: str, body: Any, status: int, field: str
) -> None:
    said = letter(client.post(where, json=body, headers=ANN), status, field)
    assert "/root" not in json.dumps(said) and not store.jobs().jobs


def test_bodies_that_are_none(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    letter(client.post("/v1/jobs", content=b"{", headers={**ANN, "Content-Type": "application/json"}), 422, "1")
    letter(client.post("/v1/jobs", headers=ANN), 422)
    letter(client.post("/v1/blobs", headers=ANN), 422)
    letter(client.get("/v1/nothing", headers=ANN), 404)
    letter(client.put("/v1/jobs", headers=ANN), 405)
    letter(client.get("/v1/jobs?most=0", headers=ANN), 422, "most")
    letter(client.get("/v1/jobs?state=lost", headers=ANN), 422, "state.0")
    letter(client.post("/v1/jobs?priority=x", json=plain(), headers=ANN), 422, "priority")
    monkeypatch.setattr("infuse.server.native.LARGEST", 1000)
    letter(client.post("/v1/blobs", content=b"x" * 1001, headers=ANN), 413)
    letter(client.post("/v1/blobs", content=iter([b"x" * 600, b"x" * 600]), headers=ANN), 413)
    assert client.post("/v1/blobs", content=iter([b"x" * 600, b"y"]), headers=ANN).json()["bytes"] == 601


def test_what_is_told_of_itself(client: TestClient) -> None:
    assert client.get("/health").json()["status"] == "ok"
    assert 'infuse_jobs{state="waiting"} 0.0' in client.get("/metrics").text
    assert "properties" in client.get("/v1/schema").json()
    assert client.get("/openapi.json").json()["info"]["title"] == "infuse"
    found = client.post("/v1/check", json=plain(width=SIDE + 1), headers=ANN).json()
    assert found["resolved"]["width"] == SIDE + 1
    assert any(m["name"] == "tabletop" for m in client.get("/v1/models", headers=ANN).json()["models"])


def test_without_keys_everybody_is_nobody(store: Store) -> None:
    with TestClient(application(store)) as client:
        id = client.post("/v1/jobs", json=plain()).json()["id"]
        assert client.get(f"/v1/jobs/{id}").json()["state"] == "waiting"
        assert client.get("/v1/models").json() == {"models": []}


def test_a_store_that_is_away_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    from infuse.server.letters import StoreError

    def away(*_: Any, **__: Any) -> Any:
        raise StoreError("store", "the database is held by another program. Close it.")

    monkeypatch.setattr(store, "submit", away)
    assert letter(client.post("/v1/jobs", json=plain(), headers=ANN), 503, "store")["remedy"] == "Close it."


@pytest.mark.slow
def test_an_event_stream_goes_on_while_the_job_does(client: TestClient, store: Store, engine: Engine) -> None:
    id = client.post("/v1/jobs", json=plain(steps=400), headers=ANN).json()["id"]
    with Worker(store, engine, hands=1, lease=0.6):
        until(lambda: any(e.kind == "step" for e in store.events(id)))
        client.delete(f"/v1/jobs/{id}", headers=ANN)
        told = followed(client, id)
    assert told[-1]["kind"] == "cancelled" and any(e["kind"] == "step" and e["of"] == 400 for e in told)

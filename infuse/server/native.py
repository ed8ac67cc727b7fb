"""The native interface over HTTP, `/v1`: a recipe is a job, a job has events and results, a file is known by its hash.

Nothing here waits for a network: what is asked is checked from headers, written into the store, and answered. Every error is a
letter as problem+json (RFC 9457), with its field, its fact and its remedy. Whoever has a key sees what is its own, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Body, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from infuse.engine.engine import Engine
from infuse.errors import InfuseError, RecipeError
from infuse.media.reading import STRICT, Reading
from infuse.recipe import Recipe
from infuse.server.jobs import ENDED, Event, Job, State, Stored
from infuse.server.letters import KeyTaken, QuotaError, StoreError, UnknownJob, WrongState, problem
from infuse.server.store import Store
from infuse.server.worker import ask, limits_of

PROBLEM = "application/problem+json"
VERSION: str = sys.modules["infuse"].__version__
STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (UnknownJob, 404), (WrongState, 409), (KeyTaken, 409), (QuotaError, 429), (StoreError, 503), (InfuseError, 422),
)  # fmt: skip
"""The first that fits."""
LARGEST = 64 << 20
"""Bytes of a body."""
LOOK = 0.25
"""Seconds between looks for news of a job that somebody follows."""
PULSE = 15.0
"""Seconds after which a silent stream says that it is still there."""
TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif", "video/mp4", "video/webm", "video/x-matroska", "video/quicktime"})  # fmt: skip
"""Of results and uploads as they are answered; all others are answered as bytes, which no browser opens."""


BEARER = HTTPBearer(auto_error=False, description="`Authorization: Bearer KEY`, where the server asks for keys.")


def owned(request: Request, said: Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]) -> str:
    """Whose key it is; keys are compared in a time that tells nothing of them."""
    known: dict[bytes, str] = request.app.state.known
    if not known:
        return ""
    given = hashlib.sha256((said.credentials if said else "").encode()).digest()
    found = [owner for own, owner in known.items() if hmac.compare_digest(own, given)]
    if not found:
        raise HTTPException(
            401, "this key is not known. Send one as `Authorization: Bearer KEY`.", {"WWW-Authenticate": "Bearer"}
        )
    return found[0]


Owner = Annotated[str, Depends(owned)]
Asked = Annotated[
    dict[str, Any],
    Body(openapi_examples={"a picture": {"value": {"prompt": "a red cube", "steps": 20, "seed": 7}}}),
]


def application(
    store: Store, engine: Engine | None = None, keys: Mapping[str, str] | None = None, limits: Reading = STRICT
) -> FastAPI:
    """The server's front. engine: whom recipes are checked against before they wait; without one, by themselves alone.
    keys: key -> whose it is; without any, everybody is the same nobody, and the front should be reached from this machine only."""
    front = FastAPI(title="infuse", version=VERSION, summary="Any combination of conditions into Stable Diffusion, in one call.")  # fmt: skip
    front.add_exception_handler(InfuseError, _letter)
    front.add_exception_handler(RequestValidationError, _malformed)
    front.add_exception_handler(HTTPException, _refused)
    front.middleware("http")(_within)
    front.state.known = {hashlib.sha256(key.encode()).digest(): owner for key, owner in (keys or {}).items()}
    front.include_router(_routes(store, engine, limits_of(store, limits)))

    @front.get("/health", tags=["server"])
    def health() -> dict[str, Any]:
        """Is it there, and what is in line?"""
        return {"status": "ok", "version": VERSION, "jobs": store.counts()}

    @front.get("/metrics", tags=["server"], response_class=Response)
    def metrics() -> Response:
        """For Prometheus."""
        from prometheus_client import CollectorRegistry, Gauge, generate_latest

        registry = CollectorRegistry()
        gauge = Gauge("infuse_jobs", "Jobs in the store, by state.", ["state"], registry=registry)
        for state, n in store.counts().items():
            gauge.labels(state).set(n)
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return front


def _routes(store: Store, engine: Engine | None, limits: Reading) -> APIRouter:
    v1 = APIRouter(prefix="/v1", responses={401: {"description": "A key is wanted."}, 422: {"description": "A letter: field, fact, remedy.", "content": {PROBLEM: {}}}})  # fmt: skip

    def checked(recipe: dict[str, Any]) -> Any:
        said = Recipe.load(recipe, reading=limits)
        return None if engine is None else engine.check(said)

    @v1.post("/jobs", status_code=202, tags=["jobs"])
    def submit(
        owner: Owner,
        recipe: Asked,
        response: Response,
        idempotency_key: Annotated[str | None, Header(max_length=200)] = None,
        priority: Annotated[int, Query(ge=-100, le=100)] = 0,
    ) -> dict[str, Any]:
        """A recipe in line. With an `Idempotency-Key` a second request is the first one's job."""
        checked(recipe)
        job, new = store.submit(ask(recipe, limits, priority=priority), owner, key=idempotency_key)
        if not new:
            response.status_code = 200
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return told(job)

    @v1.get("/jobs", tags=["jobs"])
    def jobs(
        owner: Owner,
        state: Annotated[list[State] | None, Query()] = None,
        after: Annotated[str | None, Query(max_length=64)] = None,
        most: Annotated[int, Query(ge=1, le=200)] = 50,
    ) -> dict[str, Any]:
        """The newest first; `after` of the answer is where the next page begins."""
        page = store.jobs(owner, state or get_args(State), after, most)
        return {"jobs": [told(job) for job in page.jobs], "after": page.after}

    @v1.get("/jobs/{id}", tags=["jobs"])
    def job(owner: Owner, id: str) -> dict[str, Any]:
        """How far it is; its place in line while it waits; its results when it is done."""
        found = store.job(id, owner)
        return told(found) | {"place": store.place(id, owner), "results": [made(r) for r in store.results(id, owner)],
                              "recipe": store.request(id, owner).recipe}  # fmt: skip

    @v1.delete("/jobs/{id}", tags=["jobs"])
    def cancel(owner: Owner, id: str) -> dict[str, Any]:
        """Cancel what waits or runs; forget what has ended."""
        if (found := store.job(id, owner)).state in ENDED:
            store.delete(id, owner)
            return told(found)
        return told(store.cancel(id, owner))

    @v1.post("/jobs/{id}/retry", status_code=202, tags=["jobs"])
    def retry(owner: Owner, id: str) -> dict[str, Any]:
        """What failed or was cancelled waits again."""
        return told(store.retry(id, owner))

    @v1.get("/jobs/{id}/events", tags=["jobs"], response_class=StreamingResponse)
    async def events(
        owner: Owner, id: str, request: Request, last_event_id: Annotated[int, Header(ge=0)] = 0
    ) -> Response:
        """Server-sent events until the job has ended: queued, started, step, preview, warning, done, failed, cancelled. Whoever comes
        back says `Last-Event-ID`."""
        await run_in_threadpool(store.job, id, owner)
        return StreamingResponse(_followed(store, id, owner, last_event_id, request), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})  # fmt: skip

    @v1.get("/jobs/{id}/result", tags=["jobs"], response_class=Response)
    def result(owner: Owner, id: str, number: Annotated[int, Query(ge=0, le=10_000)] = 0) -> Response:
        """The bytes of a picture or film; `number` counts from 0 in the order of the seeds."""
        found = store.results(id, owner)
        if not found:
            raise WrongState("job", f"job {id} is {store.job(id, owner).state} and has no results. Follow its events until it is done.")  # fmt: skip
        if number >= len(found):
            raise UnknownJob("number", f"job {id} has {len(found)} results, counted from 0. Ask for one of them.")
        return sent(store.read(found[number]), found[number].media_type, found[number].sha256)

    @v1.get("/jobs/{id}/preview", tags=["jobs"], response_class=Response)
    def preview(owner: Owner, id: str) -> Response:
        """How it looks so far."""
        data = store.previewed(id, owner)
        if data is None:
            raise UnknownJob("job", f"job {id} has no preview now. Ask again while it runs.")
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": "no-store"})

    @v1.post("/check", tags=["recipes"])
    def check(owner: Owner, recipe: Asked) -> dict[str, Any]:
        """What a recipe would do, from headers alone; nothing is made."""
        found = checked(recipe)
        return {
            "warnings": [] if found is None else list(found.warnings),
            "resolved": None if found is None else found.plain(),
        }

    @v1.get("/models", tags=["recipes"])
    def models(owner: Owner) -> dict[str, Any]:
        """Models that a recipe may name, and the kind and base of each."""
        if engine is None:
            return {"models": []}
        from infuse.weights.library import Library

        return {"models": [{"name": name, "what": what} for name, what in sorted(Library().names().items())]}

    @v1.get("/schema", tags=["recipes"])
    def schema() -> dict[str, Any]:
        """The JSON Schema of a recipe."""
        return Recipe.model_json_schema()

    @v1.post("/blobs", status_code=201, tags=["blobs"])
    async def upload(owner: Owner, request: Request) -> dict[str, Any]:
        """Keep a picture or film; recipes name it by the `source` that is answered."""
        data = await request.body()
        if not data:
            raise RecipeError("", "the body is empty. Send the file's bytes as the body.")
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        blob = await run_in_threadpool(store.upload, data, kind if kind in TYPES else "application/octet-stream", owner)
        return {
            "source": f"sha256:{blob.sha256}",
            "sha256": blob.sha256,
            "bytes": blob.bytes,
            "media_type": blob.media_type,
        }

    @v1.get("/blobs/{sha256}", tags=["blobs"], response_class=Response)
    def blob(owner: Owner, sha256: str) -> Response:
        """An upload of one's own, or a result."""
        return sent(store.file(sha256, owner), "application/octet-stream", sha256)

    return v1


def told(job: Job) -> dict[str, Any]:
    """A job as it is answered."""
    hidden = ("owner", "worker", "leased_until", "told", "key")
    return {k: v for k, v in asdict(job).items() if k not in hidden} | {"url": f"/v1/jobs/{job.id}"}


def made(result: Stored) -> dict[str, Any]:
    """A result as it is answered."""
    where = f"/v1/jobs/{result.job}/result?number={result.number}"
    return {"url": where, **{k: v for k, v in asdict(result).items() if k != "job"}}


def sent(data: bytes, media_type: str, sha256: str) -> Response:
    """Bytes that never change, and that a browser takes for nothing else than they are."""
    headers = {
        "ETag": f'"{sha256}"',
        "Cache-Control": "private, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(data, media_type=media_type if media_type in TYPES else "application/octet-stream", headers=headers)


async def _followed(store: Store, id: str, owner: str, after: int, request: Request) -> AsyncIterator[str]:
    silent = 0.0
    while True:
        try:
            news: list[Event] = await run_in_threadpool(store.events, id, after, owner)
        except UnknownJob:  # deleted meanwhile
            return
        for event in news:
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps({'at': event.at, **event.data})}\n\n"
            after = event.id
        if any(e.kind in ENDED for e in news) and (await run_in_threadpool(store.job, id, owner)).told <= after:
            return
        if not news and (await run_in_threadpool(store.job, id, owner)).state in ENDED:
            return  # whoever came back after the last word
        silent = 0.0 if news else silent + LOOK
        if silent >= PULSE:
            silent = 0.0
            yield ": still here\n\n"
        if await request.is_disconnected():
            return
        await asyncio.sleep(LOOK)


# ── errors ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def answered(status: int, kind: str, field: str, fact: str, remedy: str, headers: Mapping[str, str] | None = None) -> JSONResponse:  # fmt: skip
    """An error as problem+json."""
    said = {"type": "about:blank", "title": kind, "status": status, "detail": f"{fact} {remedy}".strip(), "field": field, "fact": fact, "remedy": remedy}  # fmt: skip
    return JSONResponse(said, status, dict(headers or {}), PROBLEM)


def _letter(request: Request, error: Exception) -> Response:
    said = problem(error)
    status = next(code for kind, code in STATUS if isinstance(error, kind))
    more = {"Retry-After": "5"} if status in (429, 503) else None
    return answered(status, said["kind"], said["field"], said["fact"], said["remedy"], more)


def _malformed(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "header", "path"))
    return answered(422, "MalformedRequest", field, f"{first['msg']}.", "See /docs for what is asked for here.")


def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fact, _, remedy = str(error.detail).partition(". ")
    return answered(error.status_code, "Refused", "", f"{fact.rstrip('.')}.", remedy, error.headers)


async def _within(request: Request, call_next: Any) -> Response:
    """No body is longer than it may be, whatever it says of its length."""
    too_long = answered(413, "CapacityError", "", f"the body is longer than {LARGEST >> 20} MiB.", "Send files by themselves (POST /v1/blobs), and smaller ones.")  # fmt: skip
    said = request.headers.get("content-length", "")
    if said.isdigit() and int(said) > LARGEST:
        return too_long
    if request.method in ("POST", "PUT", "PATCH") and not said.isdigit():
        got = b""
        async for part in request.stream():
            got += part
            if len(got) > LARGEST:
                return too_long
        request._body = got  # Starlette's own place for a body that was read
    return await call_next(request)

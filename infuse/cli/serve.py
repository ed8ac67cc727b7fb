"""`infuse serve` and `infuse queue`: the durable queue behind HTTP, and what is in it."""

from __future__ import annotations

import secrets
import socket
import warnings
from collections.abc import Sequence
from pathlib import Path

import typer

from infuse.errors import RecipeError

LOCAL = ("127.0.0.1", "localhost", "::1")


def keyed(keys: Sequence[str], host: str) -> dict[str, str]:
    """key -> whose it is, of `key` or `owner:key`. Raises RecipeError where a front that others reach has none."""
    found: dict[str, str] = {}
    for said in keys:
        owner, colon, key = said.partition(":")
        owner, key = (owner, key) if colon else ("", said)
        if len(key) < 8:
            raise RecipeError("--key", f"{len(key)} signs are a key that is guessed. Take 8 or more, such as {secrets.token_urlsafe(16)}.")  # fmt: skip
        found[key] = owner
    if not found and host not in LOCAL:
        raise RecipeError("--key", f"{host} is reached by others, and without a key they all make pictures here. Give --key, or serve on 127.0.0.1.")  # fmt: skip
    return found


def free(host: str, port: int) -> None:
    """Raises RecipeError if somebody listens there already, before anything is loaded."""
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise RecipeError("--port", f"{host}:{port} cannot be listened on ({error.strerror}). Choose another port, or stop who listens there.") from None  # fmt: skip


def serve(
    model: str,
    host: str,
    port: int,
    where: str,
    files: Path | None,
    keys: Sequence[str],
    hands: int,
    memory: str | None,
) -> None:
    """Serve until interrupted; what is under way then waits for the next start."""
    owners = keyed(keys, host)
    free(host, port)
    import uvicorn

    import infuse
    from infuse.server.native import application
    from infuse.server.store import Store
    from infuse.server.worker import Worker

    warnings.simplefilter("ignore", infuse.InfuseWarning)  # they are on each job
    with Store(where, files) as store:
        engine = infuse.load(model, memory=memory)
        with Worker(store, engine, f"{socket.gethostname()} {port}", hands):
            typer.echo(
                f"infuse serves {model} on http://{host}:{port}; what can be asked is on /docs. Jobs lie in {where}.",
                err=True,
            )
            uvicorn.run(application(store, engine, owners), host=host, port=port, log_level="warning")


def queue(where: str, files: Path | None, cancel: Sequence[str], retry: Sequence[str], most: int) -> None:
    """The newest jobs, after what is to be done to some of them."""
    from rich.console import Console
    from rich.table import Table

    from infuse.server.letters import said
    from infuse.server.store import Store

    if "://" not in where and not (Path(where) / "jobs.sqlite").exists():
        raise RecipeError("--store", f"there is no store in {where}. Name the folder that `infuse serve` was given.")
    with Store(where, files) as store:
        for id in cancel:
            store.cancel(id)
        for id in retry:
            store.retry(id)
        table = Table("job", "state", "owner", "attempts", "error", box=None)
        for job in store.jobs(most=most).jobs:
            table.add_row(
                job.id, job.state, job.owner or "-", f"{job.attempts} of {job.most_attempts}", said(job.error or {})
            )
        Console(soft_wrap=True).print(table)
        typer.echo(", ".join(f"{n} {state}" for state, n in store.counts().items()), err=True)

"""Where stores lie in tests: SQLite in a folder, and a PostgreSQL server that is started once and goes with the tests."""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from infuse.server.store import Store

KINDS = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]


class Clock:
    """A time that goes on when it is told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@cache
def binaries() -> Path | None:
    """Of a PostgreSQL that is installed: on the path, or where Debian puts it."""
    found = shutil.which("initdb")
    places = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((p for p in reversed(places) if (p / "initdb").exists() and (p / "postgres").exists()), None)


@cache
def server() -> str:
    """The address of a server of our own, without a database's name. Skips where none is installed."""
    where = binaries()
    if where is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="PostgreSQL is spoken to by psycopg")
    folder = Path(tempfile.mkdtemp(prefix="postgres"))
    before: list[str] = []
    if os.geteuid() == 0:  # it refuses to be run by root
        if shutil.which("runuser") is None:
            pytest.skip("PostgreSQL is not run by root, and there is no runuser")
        shutil.chown(folder, "postgres")
        before = ["runuser", "-u", "postgres", "--"]
    quiet: dict[str, Any] = {"check": True, "capture_output": True, "cwd": "/"}
    subprocess.run([*before, where / "initdb", "-D", folder / "data", "-U", "infuse", "--auth=trust", "-E", "UTF8", "--locale=C"], **quiet)  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = ["-h", "127.0.0.1", "-p", str(port), "-k", "", "-c", "max_connections=200"]
    running = subprocess.Popen([*before, where / "postgres", "-D", folder / "data", *said], cwd="/",
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    @atexit.register
    def _() -> None:
        subprocess.run([*before, where / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"], cwd="/", capture_output=True)  # fmt: skip
        running.wait(20)
        shutil.rmtree(folder, ignore_errors=True)

    import psycopg

    address = f"postgresql://infuse@127.0.0.1:{port}"
    for _ in range(200):
        try:
            psycopg.connect(f"{address}/postgres").close()
            return address
        except psycopg.OperationalError:
            time.sleep(0.1)
    pytest.fail("PostgreSQL did not start within 20 seconds")


def address(kind: str, folder: Path) -> str:
    """Of an empty database."""
    if kind == "sqlite":
        return str(folder)
    import psycopg

    at, name = server(), f"infuse_{uuid4().hex}"
    with psycopg.connect(f"{at}/postgres", autocommit=True) as c:
        c.execute(f'CREATE DATABASE "{name}"')  # type: ignore[arg-type]
    return f"{at}/{name}"


def opened(kind: str, folder: Path, **more: Any) -> Store:
    return Store(address(kind, folder), folder / "files", **more)

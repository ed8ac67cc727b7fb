"""`infuse serve` is one command; killed and started again, it makes what it was asked before."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import infuse
from infuse.cli.app import app
from infuse.server.store import Ask, Store


def said(*arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, arguments)
    return ran.exit_code, ran.output


@pytest.mark.parametrize(
    ("arguments", "letter"),
    [
        (("--host", "0.0.0.0"), "--key: 0.0.0.0 is reached by others"),
        (("--key", "short"), "--key: 5 signs are a key that is guessed"),
        (("--host", "0.0.0.0", "--key", "ann:short"), "--key: 5 signs"),
    ],
    ids=str,
)
def test_what_is_not_served(arguments: tuple[str, ...], letter: str) -> None:
    code, text = said("serve", *arguments)
    assert code == 2 and letter in text


def test_a_port_that_is_taken_is_a_letter_before_anything_is_loaded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = said("serve", "--port", str(taken.getsockname()[1]))
    assert code == 2 and "cannot be listened on" in text and "Choose another port" in text


def test_the_queue_is_listed_cancelled_and_retried(tmp_path: Path) -> None:
    assert said("queue", "--store", str(tmp_path / "none"))[0] == 2
    with Store(tmp_path) as store:
        job, _ = store.submit(Ask({"prompt": "x"}, "a", "d"), "ann")
    code, text = said("queue", "--store", str(tmp_path), "--cancel", job.id)
    assert code == 0 and job.id in text and "cancelled" in text and "ann" in text and "1 cancelled" in text
    assert "1 waiting" in said("queue", "--store", str(tmp_path), "--retry", job.id)[1]
    code, text = said("queue", "--store", str(tmp_path), "--cancel", "nobody")
    assert code == 2 and "there is no job 'nobody'" in text


@contextmanager
def served(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "infuse.cli", "serve", "--port", str(port), "--store", str(folder), "--hands", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (
        subprocess.Popen(command, env=environment) as running,
        httpx.Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        try:
            until(lambda: alive(client))
            yield running, client
        finally:
            running.kill()


def alive(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], Any], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_what_was_asked_before_a_kill_is_made_after_it(tmp_path: Path) -> None:
    asked = {"prompt": "a red cube", "steps": 12, "seed": 7}
    with served(tmp_path) as (running, client):
        ids = [client.post("/v1/jobs", json={**asked, "seed": 7 + i}).json()["id"] for i in range(5)]
        until(lambda: client.get("/health").json()["jobs"]["running"])
        running.send_signal(signal.SIGKILL)
        running.wait()
    with served(tmp_path) as (running, client):
        until(lambda: client.get("/health").json()["jobs"]["done"] == 5)
        jobs = [client.get(f"/v1/jobs/{id}").json() for id in ids]
        shown = Image.open(io.BytesIO(client.get(jobs[0]["results"][0]["url"]).content))
        running.send_signal(signal.SIGINT)
        assert running.wait(60) in (0, 130, -signal.SIGINT)
    own = infuse.load("tabletop").run(infuse.Recipe(**asked)).image  # type: ignore[arg-type]
    assert np.abs(np.array(shown).astype(int) - np.array(own)).max() <= 1  # other jobs beside it: the rounding of sums
    assert [j["state"] for j in jobs] == ["done"] * 5 and sum(j["attempts"] for j in jobs) >= 6


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's blocks ask with curl")
def test_the_page_s_blocks_run(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text("utf-8")
    found = re.findall(r"^```sh served\n([\s\S]*?)^```$", page, re.M)
    assert len(found) == 2
    infuse.examples(tmp_path)
    with served(tmp_path / "jobs") as (_, client):
        here = str(client.base_url).removeprefix("http://").rstrip("/")
        for text in found:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text.replace("localhost:7860", here)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
        until(lambda: client.get("/health").json()["jobs"]["done"] == 2)
    assert Image.open(io.BytesIO((tmp_path / "cube.png").read_bytes())).size == (128, 128)

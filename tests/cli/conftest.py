"""A small world on disk for the command line: everybody's, made once."""

from __future__ import annotations

from pathlib import Path

import disk
import pytest


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, a ControlNet, an IP-Adapter, two pictures and a mask."""
    folder = tmp_path_factory.mktemp("world")
    disk.base(folder / "base")
    disk.controlnet(folder / "edges")
    disk.adapter(folder / "ip-adapter.safetensors")
    disk.picture(folder / "a.png", seed=1)
    disk.picture(folder / "b@2.png", seed=2)
    disk.mask(folder / "mask.png")
    return folder


@pytest.fixture(autouse=True)
def _at_home(world: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(world)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

"""A machine without models of its own."""

from pathlib import Path

import pytest


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only place where models are looked for."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("INFUSE_MODELS", str(tmp_path / "root"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "root"

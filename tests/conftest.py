"""Tests import `tiny` from beside them."""

import atexit
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TRITON_INTERPRET", "1")  # before anybody imports it: a GPU's kernels run on the processor here

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; tiny networks are fastest on one thread anyway
    torch.set_num_threads(1)
# torch seeds every device, and those that are not there keep a traceback of each time
SEED = torch.manual_seed if torch.cuda.is_available() else torch.default_generator.manual_seed


@atexit.register
def _quiet() -> None:
    """Triton's bindings list what they still hold when Python ends; by then everything has been said."""
    if "triton" in sys.modules:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def pytest_collection_finish() -> None:
    """What has been imported by now stays; whoever collects garbage need not look through it again (0.3 s each time)."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)  # and looks less often: a twelfth of the time


@pytest.fixture(autouse=True)
def _same_start() -> None:
    SEED(0)


@pytest.fixture(scope="session")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files as strangers bring them."""
    import strangers

    return strangers.everything(tmp_path_factory.mktemp("strangers"))


@pytest.fixture
def nothing_is_loaded(strange: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Among the strangers' files, where loading a network or running a pickle's code is a failure."""
    from infuse.encoders.ip_adapter import Adapter

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.chdir(strange)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in (
        "infuse.weights.base.load_base",
        "infuse.weights.base.load_vision",
        "infuse.weights.layouts.controlnet.load_controlnet",
        "infuse.weights.layouts.powerpaint.load_brushnet",
        "infuse.weights.layouts.powerpaint.load_tasks",
    ):
        monkeypatch.setattr(name, loaded)
    monkeypatch.setattr(Adapter, "load", loaded)
    yield
    assert not (strange / "burgled").exists(), "a pickle ran its code"

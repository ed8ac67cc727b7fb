"""A recipe is resolved without torch, and the same way with it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from PIL import Image

import infuse
from infuse.engine import placement
from infuse.engine.model_store import ModelStore
from infuse.engine.resolve import resolve


def test_a_check_says_the_same_with_torch_at_hand(tmp_path: Path) -> None:
    """The engine's own check, in a process that has torch, answers what the light one does; its plan is as long."""
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    recipe = infuse.Recipe(steps=7, conditions=(infuse.Img2Img(image=str(tmp_path / "a.png"), strength=0.5),))
    store = ModelStore(device="cpu")
    light, heavy = resolve(recipe, store.view("tabletop")), infuse.load(device="cpu").check(recipe)
    assert light == heavy and (light.dtype, light.device) == ("float32", "cpu")
    assert len(light.plan.timesteps) == light.steps == 3 and not light.plan.full


def test_torch_is_asked_of_a_gpu_only_where_one_may_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its device node, or its driver: without both it is the CPU, and torch is not imported to say so."""
    node = tmp_path / "nvidia0"
    monkeypatch.setattr(placement, "NODES", (str(node),))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "platform", "linux")
        patch.setattr(placement.ctypes, "CDLL", missing)
        patch.delitem(sys.modules, "torch")
        patch.setattr("builtins.__import__", None)  # whoever imported now would be found out
        assert placement.best_device() == "cpu" and placement.device_name(" CPU ") == "cpu"
        node.touch()
        assert placement._may_have_cuda()
    for platform, may in (("darwin", False), ("win32", True)):
        monkeypatch.setattr(sys, "platform", platform)
        assert placement._may_have_cuda() is may


def missing(name: str) -> None:
    raise OSError(name)

"""What leaves a device for want of room waits in the machine's memory. There is no GPU here: the CPU stands for both places."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any
from weakref import ref

import disk
import pytest
import torch
from some import some

import tiny
from infuse.engine.engine import Engine
from infuse.engine.kept import Kept, Key
from infuse.engine.model_store import ModelStore
from infuse.engine.parking import copied_to
from infuse.engine.placement import nbytes, tensors
from infuse.recipe import Recipe

CPU = torch.device("cpu")


class Thing:
    def __init__(self, name: str, at: str = "device") -> None:
        self.name, self.at = name, at


def kept(spare: int, loads: list[str]) -> tuple[Kept, Any]:
    """Room for two things of 10 on the device, and for `spare` bytes beside it."""
    ours = Kept(lambda *things: 10 * len(things), memory=20)
    ours.park, ours.back = (lambda t: Thing(t.name, "aside")), (lambda t, key: Thing(t.name))
    ours.spare = lambda: spare - 10 * len(ours.parked)

    def ask(name: str) -> Thing:
        return ours.once(
            Key(name, name), name, lambda: (loads.append(name), (Thing(name), f"sha {name}"))[1], lambda: 10
        )

    return ours, ask


def test_what_leaves_waits_and_comes_back_without_being_read() -> None:
    loads: list[str] = []
    ours, ask = kept(100, loads)
    first = ref(ask("a"))
    ask("b"), ask("c")
    gc.collect()
    assert first() is None and [e.thing.at for e in ours.parked] == ["aside"] and ours.held == 20
    assert ask("a").at == "device" and loads == ["a", "b", "c"], "it was not read again"
    assert [e.digest for e in ours.entries] == ["sha c", "sha a"] and [e.thing.name for e in ours.parked] == ["b"]
    ours.drop(lambda e: "b" in e.names)
    assert not ours.parked
    ask("b")
    assert loads[-1] == "b"


def test_what_waits_longest_gives_way_and_without_spare_memory_nothing_waits() -> None:
    loads: list[str] = []
    ours, ask = kept(20, loads)
    for name in "abcde":
        ask(name)
    assert [e.thing.name for e in ours.parked] == ["b", "c"]
    ours, ask = kept(5, loads)
    for name in "abc":
        ask(name)
    assert not ours.parked


@pytest.mark.parametrize("what", some(["sd1", "sdxl", "controlnet", "vision"], quick=["sd1", "vision"]))
@torch.no_grad()
def test_a_copy_elsewhere_is_the_same_and_shares_nothing(what: str) -> None:
    base = tiny.base("sdxl" if what == "sdxl" else "sd1").base
    thing = {"controlnet": tiny.controlnet("sd1", 7), "vision": (base.image_encoder, base.feature_extractor)}.get(
        what, base
    )
    other = copied_to(thing, CPU)
    pairs = list(zip(tensors(thing), tensors(other), strict=True))
    assert pairs and all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)
    away = copied_to(thing, torch.device("meta"))
    assert {t.device.type for t in tensors(away)} == {"meta"}, "tensor by tensor: nothing stays where it was"
    if what in ("sd1", "sdxl"):
        recipe = Recipe(prompt="a red cube", width=32, height=32, steps=2, seed=3)
        made = []
        for one in (thing, other):
            store = ModelStore("float32", "cpu")
            store.add("it", one)
            made.append(Engine("it", store=store).run(recipe).latents)
        assert torch.equal(*made)


def test_parts_that_share_weights_are_read_again() -> None:
    assert copied_to(tiny.powerpaint1().base, CPU) is None and copied_to(object(), CPU) is None


@pytest.mark.slow
def test_a_store_reads_a_parked_base_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.weights import base as loading

    first = disk.base(tmp_path / "m0", image_encoder=False)
    paths = [str(first), str(shutil.copytree(first, tmp_path / "m1"))]
    reads, real = [], loading.load_base
    monkeypatch.setattr(loading, "load_base", lambda what, **o: (reads.append(what), real(what, **o))[1])
    store = ModelStore("float32", "cpu")
    store.memory = store._kept.memory = int(1.5 * nbytes(store.base(paths[0])))
    store._kept.park, store._kept.back, store._kept.spare = store._park, store._back, lambda: 10**9
    held = store.held
    for path in (paths[1], paths[0], paths[1]):
        made = Engine(path, store=store)("a", width=32, height=32, steps=1, seed=1)
        assert store.held == held and len(made.weights[path]) == 64
    assert len(reads) == 2 and set(store.loaded) == set(paths)
    assert store.unload(paths[0]) == 0 and store.loaded == (paths[1],)


def test_on_a_cpu_nothing_waits_beside_itself() -> None:
    assert ModelStore(device="cpu")._kept.park is None

"""From the first call on, from as many threads as there are: one load of each model, and nobody waits for another's."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import disk
import pytest
import torch
from some import some
from torch import nn

import tiny
from infuse.encoders.ip_adapter import Adapter
from infuse.encoders.text import TextEncoders
from infuse.engine.kept import Kept, Key
from infuse.engine.model_store import ModelStore
from infuse.friends import prime

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


CPU, F32 = torch.device("cpu"), torch.float32


def store(**options: Any) -> ModelStore:
    return ModelStore(**{"dtype": F32, "device": "cpu", **options})


def together(*calls: Callable[[], Any]) -> list[Any]:
    """All of these at once; their results."""
    gate = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        gate.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [f.result() for f in [pool.submit(run, c) for c in calls]]


FIRST_CALLS = """
import threading, time
{imports}
wrong = []

def first(after):
    time.sleep(after)  # who comes while another one imports is handed what is not whole yet
    try:
        {call}
    except Exception as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=first, args=(n * 0.08,)) for n in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(*wrong, sep="\\n")
"""


def first_calls(call: str, imports: str = "") -> str:
    """What goes wrong when four threads of a new process begin with this."""
    code = FIRST_CALLS.format(call=call, imports=imports)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow  # as the next one, which begins with the same
def test_diffusers_is_whole_for_whoever_waited_for_it() -> None:
    use = "import diffusers, transformers; diffusers.DDIMScheduler, transformers.CLIPTextModel"
    assert first_calls(f"prime(); {use}", "from infuse.friends import prime") == ""


def test_four_threads_load_their_first_model_at_once(tmp_path: Path) -> None:
    path = str(disk.base(tmp_path / "m", image_encoder=False))
    imports = "import os; os.environ['HF_HUB_DISABLE_PROGRESS_BARS'] = '1'\nfrom infuse.engine.model_store import ModelStore\nstore, found = ModelStore('fp32', 'cpu'), []"  # fmt: skip
    assert first_calls(f"found.append(store.base({path!r})); assert found[0] is found[-1]", imports) == ""


def test_to_be_ready_costs_next_to_nothing() -> None:
    prime()
    begin = time.perf_counter()
    for _ in range(1000):
        prime()
    assert time.perf_counter() - begin < 0.1


def test_one_load_for_all_who_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from infuse.weights import base as loading

    real, loads = loading.load_base, []

    def load(*args: Any, **options: Any) -> Any:
        loads.append(1)
        time.sleep(0.1)
        return real(*args, **options)

    monkeypatch.setattr(loading, "load_base", load)
    path, ours = str(disk.base(tmp_path / "m", image_encoder=False)), store()
    found = together(*[lambda: ours.base(path)] * 6)
    assert len(loads) == 1 and all(f is found[0] for f in found)


def test_who_waits_for_a_load_that_fails_tries_for_himself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from infuse.weights import base as loading

    real, loads = loading.load_base, []

    def load(*args: Any, **options: Any) -> Any:
        loads.append(1)
        time.sleep(0.05)
        if len(loads) == 1:
            raise RuntimeError("a bad day")
        return real(*args, **options)

    monkeypatch.setattr(loading, "load_base", load)
    path, ours = str(disk.base(tmp_path / "m", image_encoder=False)), store()

    def ask() -> Any:
        try:
            return ours.base(path)
        except RuntimeError as error:
            return str(error)

    found = together(*[ask] * 3)
    assert found.count("a bad day") == 1 and len(loads) == 2


@pytest.mark.parametrize("where", some(["looking", "reading", "moving"], quick=["moving"]))
def test_nobody_waits_for_the_load_of_another_name(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one model is downloaded, read or moved, everything that is there is at hand; and is loaded, but for reading."""
    slow, there, more = (str(disk.base(tmp_path / n, image_encoder=False)) for n in ("slow", "there", "more"))
    ours, begun, go_on = store(memory="100GB"), threading.Event(), threading.Event()
    base, own = ours.base(there), tiny.controlnet("sd1", 7)
    ours.add("mine", own)

    def held_up(real: Callable[..., Any], first: Callable[..., bool]) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            if first(*args) and not begun.is_set():
                begun.set()
                assert go_on.wait(20)
            return real(*args, **options)

        return call

    from infuse.engine import model_store, placement
    from infuse.weights import base as loading

    if where == "looking":  # which may be a download
        monkeypatch.setattr(model_store, "place_of", held_up(model_store.place_of, lambda _, name, *__: name == slow))
    elif where == "reading":
        monkeypatch.setattr(loading, "load_base", held_up(loading.load_base, lambda *_: True))
    else:
        monkeypatch.setattr(placement, "settled", held_up(placement.settled, lambda *_: True))
    with ThreadPoolExecutor(2) as pool:
        loading_slowly = pool.submit(ours.base, slow)
        assert begun.wait(20)

        def others() -> bool:
            assert ours.base(there) is base and ours.at_hand(there) is base
            assert ours.view(there).spec is base.spec and ours.held > 0 and there in ours.loaded
            assert ours.version(there) == ours.version(there) and ours.controlnet("mine", base, F32, CPU) is own
            assert ours.controlnet("mine", base, torch.float64, CPU) is not own
            if where != "reading":
                assert ours.base(more) is not base
                ours.unload(more)
            return not loading_slowly.done()

        try:
            assert pool.submit(others).result(20)
        finally:
            go_on.set()
        assert loading_slowly.result(20) is ours.base(slow)


@pytest.mark.slow  # four threads load their first models above
def test_networks_built_at_once_are_whole(tmp_path: Path) -> None:
    """While they build, accelerate, diffusers and transformers patch torch for the whole process, and each puts back what it found."""
    bases = [str(disk.base(tmp_path / f"m{i}")) for i in range(3)]
    lines = [str(disk.controlnet(tmp_path / f"c{i}")) for i in range(3)]
    looks = [str(disk.adapter(tmp_path / f"a{i}.safetensors")) for i in range(3)]
    before = (nn.Module.register_parameter, nn.init.kaiming_uniform_, torch.get_default_dtype())
    beside = tiny.base("sd1").base

    def load_all(ours: ModelStore) -> list[Any]:
        return together(
            *[lambda n=n: ours.base(n).network.unet for n in bases],
            *[lambda n=n: ours.controlnet(n, beside, F32, CPU) for n in lines],
            *[lambda n=n: ours.module(n, Adapter.load, F32, CPU) for n in looks],
        )

    for _ in range(3):
        assert all(not p.is_meta for m in load_all(store(dtype="bf16")) for p in m.parameters())
        assert (nn.Module.register_parameter, nn.init.kaiming_uniform_, torch.get_default_dtype()) == before


def test_texts_are_read_by_one_thread_at_a_time() -> None:
    """Tokenizers in Rust raise "Already borrowed" when two threads use them."""
    inside, real = [], tiny.tokenizer()

    class Jealous:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def busy(self, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
            inside.append(1)
            try:
                time.sleep(0.001)
                assert len(inside) == 1, "Already borrowed"
                return call(*args, **options)
            finally:
                inside.pop()

        def __call__(self, *args: Any, **options: Any) -> Any:
            return self.busy(real, *args, **options)

        def convert_tokens_to_ids(self, token: str) -> int:
            return self.busy(real.convert_tokens_to_ids, token)

    from dataclasses import replace

    texts = tiny.base("sd1").base.texts
    jealous = Jealous()
    ours = TextEncoders(texts.models, [jealous])
    tasks = replace(tiny.task_texts("v1"), tokenizer=jealous)
    want = texts.tokens("a red cube, on a table")
    found = together(*[lambda: ours.tokens("a red cube, on a table")] * 4, *[lambda: tasks.ids("a cube", "P_obj")] * 4)
    assert all(torch.equal(f, want) for f in found[:4])


# ── the keeping itself, without weights ─────────────────────────────────────────────────────────────────────────────


def test_many_threads_many_things_little_room() -> None:
    """Never two loads of one thing at once, never more than fits, and nothing is lost on the way."""

    class Thing(str):
        __slots__ = ()

    room, at_work, wrong, left = 5, [], [], []
    kept = Kept(lambda *things: len({id(t) for t in things}), memory=room, free=lambda: None)
    kept.on_leave.append(left.append)

    def ask(who: int) -> None:
        for n in range(60):
            name = f"t{(n * (who + 1)) % 9}"

            def load(name: str = name) -> tuple[str, str]:
                if name in at_work:
                    wrong.append(name)
                at_work.append(name)
                time.sleep(0.0005)
                at_work.remove(name)
                return Thing(name), ""

            if kept.once(Key("thing", name), name, load, lambda: 1) != name:
                wrong.append(name)

    together(*[lambda who=who: ask(who) for who in range(8)])
    assert not wrong and left and kept.held <= room
    assert not kept._coming and not len(kept._turns)


def test_who_is_told_of_leaving_may_ask_again() -> None:
    """No lock is held while somebody is told: an engine takes its own lock there, and may look things up."""
    kept = Kept(lambda *things: len(things), memory=1, free=lambda: None)
    key, seen = Key("thing", "a"), []
    kept.on_leave.append(lambda _: seen.extend(together(lambda: kept.look(key, "a"), lambda: kept.held)))
    for name in "ab":
        kept.once(Key("thing", name), name, lambda name=name: (name, ""), lambda: 1)
    assert seen == [None, 0] and [e.thing for e in kept.entries] == ["b"]

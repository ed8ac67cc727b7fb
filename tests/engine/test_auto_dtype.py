"""A dtype that nobody says is chosen: for each base by its headers, on a CPU by what the processor computes in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import disk
import pytest
import torch
from rich.console import Console

import infuse
import tiny
from infuse import processor
from infuse.cli import show
from infuse.engine import pace, placement
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.errors import RecipeError
from infuse.weights.outline import outline

BF16 = "processor : 0\nflags\t\t: fpu vme avx512_bf16 avx512f\n\n"


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A processor with these flags; networks count as large from `large` parameters on."""

    def say(text: str | None, large: int = 1) -> None:
        info = tmp_path / "cpuinfo"
        if text is not None:
            info.write_text(text)
        monkeypatch.setattr(processor, "CPUINFO", info)
        monkeypatch.setattr(placement, "LARGE", large)
        processor.flags.cache_clear()

    yield say
    processor.flags.cache_clear()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(disk.base(tmp_path_factory.mktemp("auto") / "base", image_encoder=False))


@pytest.mark.parametrize(
    ("text", "factor"),
    [(BF16, 1.8), ("flags : fpu amx_tile amx_bf16 avx512_bf16\n", 4.0), ("flags : fpu avx2 avx512f bf16ish\n", None),
     ("Features : fp asimd bf16\n", None), (None, None)],
)  # fmt: skip
def test_the_processor_says_what_it_computes_in(text: str | None, factor: float | None, says: Any) -> None:
    says(text)
    assert processor.bfloat16() == factor


def test_what_is_chosen(says: Any) -> None:
    says(BF16, placement.LARGE)
    large = placement.LARGE
    assert placement.chosen("cpu", large) == "bfloat16" and placement.chosen("cpu", large - 1) == "float32"
    assert placement.chosen("cuda:1", large) == placement.chosen("cuda", 1) == "float16"
    says("flags : fpu\n", large)
    assert placement.chosen("cpu", 10 * large) == "float32"


def test_a_large_base_and_everything_of_it_is_in_bfloat16(base: str, says: Any) -> None:
    says(BF16)
    engine = Engine(base, store=ModelStore(device="cpu"))
    before = engine.check(infuse.Recipe(prompt="a", width=32, height=32))
    assert before.dtype == "bfloat16" and before.plain()["dtype"] == "bfloat16"
    exact = Engine(base, store=ModelStore("float32", "cpu")).check(infuse.Recipe(prompt="a", width=32, height=32))
    assert before.memory * 2 == exact.memory and before.peak < exact.peak
    out = io.StringIO()
    show.report(Console(file=out, width=200), before)
    assert "bfloat16 on cpu" in out.getvalue()
    made = engine("a red cube", width=32, height=32, steps=1, seed=1)
    loaded = engine.store.base(base)
    assert {t.dtype for t in placement.tensors(loaded)} == {torch.bfloat16}
    assert engine.store.at_hand(base) is loaded and placement.nbytes(loaded) == before.memory
    assert made.record().resolved["dtype"] == "bfloat16"


@pytest.mark.slow
def test_small_ones_and_other_processors_stay_in_float32(base: str, says: Any) -> None:
    recipe = infuse.Recipe(prompt="a", width=32, height=32)
    for text, large in ((BF16, 10**9), ("flags : fpu\n", 1), (None, 1)):
        says(text, large)
        store = ModelStore(device="cpu")
        assert Engine(base, store=store).check(recipe).dtype == "float32"
        assert store.base(base).network.dtype == torch.float32


def test_each_base_by_itself(base: str, says: Any, tmp_path: Path) -> None:
    """One store, two sizes; what was added has the dtype that it has, and what is said is obeyed."""
    own = tiny.base("sd1").base
    other = str(disk.base(tmp_path / "wide", "sdxl", image_encoder=False))
    sizes = [outline(ModelStore().library.find(m)).spec.parameters for m in (base, other)]
    assert sizes[0] < sizes[1]
    says(BF16, sizes[1])
    store = ModelStore(device="cpu")
    store.add("mine", own)
    assert store.dtype_of("mine") == str(own.network.dtype).removeprefix("torch.")
    assert (store.dtype_of(base), store.dtype_of(other), store.dtype) == ("float32", "bfloat16", torch.float32)
    assert ModelStore("auto", "cpu").dtype_of(other) == ModelStore("AUTO", "cpu").dtype_of(other) == "bfloat16"
    assert ModelStore("float32", "cpu").dtype_of(base) == "float32"
    assert ModelStore("fp16", "cpu").dtype_of(base) == "float16"


def test_the_letter_says_auto() -> None:
    with pytest.raises(
        RecipeError, match=r"or auto, as when it is left out: float16 on a GPU; on a CPU bfloat16 for large"
    ):
        ModelStore(dtype="int8", device="cpu")


def test_time_is_counted_in_what_the_processor_computes_in(says: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pace._rates, ("cpu", ""), 1e12)
    says(BF16)
    assert pace.on_cpu("bfloat16") == 1.8e12 and pace.on_cpu("float16") == 0.5e12
    says("flags : fpu\n")
    assert pace.on_cpu("bfloat16") == 0.5e12 and pace.on_cpu("float32") == 1e12


@pytest.mark.slow
def test_sizes_that_bfloat16_cannot_hold_are_told_as_they_are(tmp_path: Path) -> None:
    """SDXL hears its picture's size: 1023 would be 1024. A row whose size fits is beside it in the same call."""
    path = str(disk.base(tmp_path / "xl", "sdxl", image_encoder=False))
    engine, heard = Engine(path, store=ModelStore("bf16", "cpu"), max_rows=8), []
    network = engine.store.base(path).network
    real = network.predict
    network.predict = lambda batch: (heard.append(batch.embedding["time_ids"]), real(batch))[1]  # type: ignore[method-assign]
    odd = infuse.Recipe(prompt="a", width=32, height=32, steps=1, conditions=[infuse.Size(original=(1023, 770))])
    engine.run_all(odd, infuse.Recipe(prompt="a", width=32, height=32, steps=1))
    (together,) = heard
    assert together[0].tolist()[:2] == [770, 1023] and together[-1].tolist()[:2] == [32, 32]

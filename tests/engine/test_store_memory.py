"""A budget: what was used longest ago leaves first, and really leaves. Numbers and devices are written as people do."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any
from weakref import ref

import disk
import pytest
import torch
from some import in_turn

import tiny
from infuse.engine.model_store import ModelStore
from infuse.engine.placement import as_bytes, as_device, as_dtype, nbytes
from infuse.errors import CapacityError, InfuseWarning, RecipeError, WeightsError

CPU, F32 = torch.device("cpu"), torch.float32


def store(**options: Any) -> ModelStore:
    return ModelStore(**{"dtype": F32, "device": "cpu", **options})


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Seven bases of one size on the disk."""
    root = tmp_path_factory.mktemp("bases")
    first = disk.base(root / "m0", image_encoder=False)
    return [str(first), *(str(shutil.copytree(first, root / f"m{i}")) for i in range(1, 7))]


@pytest.fixture(scope="module")
def size(bases: list[str]) -> int:
    return nbytes(store().base(bases[0]))


def names(ours: ModelStore) -> list[str]:
    return sorted(Path(n).name for n in ours.loaded)


@pytest.mark.slow
def test_seven_models_in_the_room_of_two(bases: list[str], size: int) -> None:
    ours, left = store(memory=int(2.5 * size)), []
    ours.on_leave.append(lambda x: left.append(x.name))
    seen = []
    for path in bases:
        seen.append(ref(ours.base(path)))
        gc.collect()
        assert ours.held <= ours.memory
        assert sum(r() is not None for r in seen) <= 2, "what has left is no longer in memory"
    assert names(ours) == ["m5", "m6"] and [Path(n).name for n in left] == [f"m{i}" for i in range(5)]
    ours.base(bases[5])  # used again
    ours.base(bases[0])
    assert names(ours) == ["m0", "m5"]


@pytest.mark.slow
def test_without_a_limit_everything_stays(bases: list[str], size: int) -> None:
    ours = store()
    for path in bases[:3]:
        ours.base(path)
    assert ours.held == 3 * size


@pytest.mark.slow
def test_room_is_made_before_a_model_is_read(bases: list[str], size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two models side by side may be more than there is."""
    from infuse.weights import base as loading

    ours, real, beside = store(memory=int(1.5 * size)), loading.load_base, []

    def load(*args: Any, **options: Any) -> Any:
        beside.append(ours.held)
        return real(*args, **options)

    monkeypatch.setattr(loading, "load_base", load)
    for path in bases[:3]:
        ours.base(path)
    assert beside == [0, 0, 0]


@pytest.mark.slow
def test_what_was_added_counts_and_is_never_thrown_out(bases: list[str], size: int) -> None:
    ours, own = store(memory=int(2.5 * size)), tiny.base("sd1").base
    ours.add("mine", own)
    for path in bases[:3]:
        ours.base(path)
        assert ours.base("mine") is own
    assert names(ours) == ["m2", "mine"] and ours.held == nbytes(own) + size


@pytest.mark.slow
def test_the_one_that_is_loaded_stays_even_if_it_is_too_large(bases: list[str], size: int) -> None:
    ours = store(memory=size // 2)
    with pytest.warns(InfuseWarning, match="more than the limit"):
        base = ours.base(bases[0])
    assert ours.base(bases[0]) is base


@pytest.mark.slow
def test_a_base_stays_while_its_controlnet_is_loaded_and_takes_it_along(
    bases: list[str], size: int, tmp_path: Path
) -> None:
    lines = str(disk.controlnet(tmp_path / "lines"))
    ours, left = store(memory=2 * size + 1), []
    ours.on_leave.append(left.append)
    base, other = ours.base(bases[0]), ours.base(bases[1])
    net = ours.controlnet(lines, base, F32, CPU)  # m0 was used longest ago, but it is what this is for
    assert names(ours) == ["lines", "m0"] and left == [other]
    left.clear()
    ours.base(bases[2])
    ours.controlnet(lines, base, F32, CPU)
    assert base in left and net in left, "what was made for a base has no use without it"


@pytest.mark.slow
def test_unload(bases: list[str], size: int, tmp_path: Path) -> None:
    lines, ours, left = str(disk.controlnet(tmp_path / "lines")), store(), []
    ours.on_leave.append(left.append)
    base = ours.base(bases[0])
    net = ours.controlnet(lines, base, F32, CPU)
    assert ours.unload(lines) == nbytes(net) and left == [net]
    net = ours.controlnet(lines, base, F32, CPU)
    assert ours.unload(bases[0]) == size + nbytes(net)
    assert left[1:] == [base, net] and ours.held == 0 and ours.loaded == ()
    assert base.spec.in_channels == 4, "a job under way keeps its own"
    assert ours.base(bases[0]) is not base
    own = tiny.controlnet("sd1", 7)
    ours.add("mine", own)
    ours.controlnet("mine", base, torch.float64, CPU)
    assert ours.unload("mine") == 3 * nbytes(own), "and its copy in float64"
    with pytest.raises(WeightsError, match=r"'nope' is not loaded.*Loaded are: .*m0"):
        ours.unload("nope")
    with pytest.raises(WeightsError, match="Nothing is loaded"):
        store().unload("nope")


def test_shared_weights_count_once() -> None:
    ours = store()
    one = tiny.powerpaint1().base
    ours.add("one", one)
    once = ours.held
    ours.add("two", one)
    assert ours.held == once == nbytes(one)


# ── as people write them ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("said", "want"),
    [("float16", torch.float16), ("fp16", torch.float16), ("half", torch.float16), ("torch.float16", torch.float16),
     (torch.float16, torch.float16), ("bf16", torch.bfloat16), ("BFloat16", torch.bfloat16), ("fp32", F32),
     ("float32", F32), ("float64", torch.float64), (None, F32)],
)  # fmt: skip
def test_dtypes(said: Any, want: torch.dtype, bases: list[str]) -> None:
    assert ModelStore(dtype=said, device="cpu").dtype == want


@pytest.mark.slow
def test_a_dtype_by_name_is_the_networks(bases: list[str]) -> None:
    assert ModelStore(dtype="bf16", device="cpu").base(bases[0]).network.dtype == torch.bfloat16


@pytest.mark.parametrize("said", ["int8", torch.int32, "float8", "nope", "", 16, torch.float8_e4m3fn, "bool"])
def test_unknown_dtypes(said: Any) -> None:
    with pytest.raises(RecipeError, match=r"Use float16 \(fp16, half\), bfloat16") as letter:
        ModelStore(dtype=said, device="cpu")
    assert letter.value.field == "dtype"
    assert ("whole numbers" in str(letter.value)) == ("int" in str(said) or said == "bool")


@pytest.mark.parametrize("said", ["nope", "cuda:x", "", "meta", 1.5, "gpu"])
def test_unknown_devices(said: Any) -> None:
    with pytest.raises(RecipeError, match=r"is not known. Known are cpu, cuda, mps") as letter:
        ModelStore(device=said)
    assert letter.value.field == "device"


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("cpu", "CPU", "cpu:0", torch.device("cpu")):
        assert as_device(said) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RecipeError, match=r"'cuda': CUDA is not available here .* Here: cpu") as letter:
        ModelStore(device="cuda")
    assert letter.value.field == "device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert as_device("cuda:1") == torch.device("cuda:1") and as_device("cuda") == torch.device("cuda")
    with pytest.raises(RecipeError, match="this machine has 2 of them. Use cuda:0 to cuda:1"):
        ModelStore(device="cuda:2")
    assert ModelStore().device.type == "cuda" and ModelStore().dtype == torch.float16


@pytest.mark.parametrize(
    ("said", "want"), [(None, None), (10, 10), ("8GB", 8 * 10**9), ("500MB", 5 * 10**8), ("7.5 GiB", 15 * 2**29), ("4g", 4 * 10**9), ("1e9", 10**9)]
)  # fmt: skip
def test_memory(said: Any, want: int | None) -> None:
    assert as_bytes(said) == want


@pytest.mark.parametrize("said", ["", "much", "-1GB", 0, True, "8XB", "nan", "inf", float("nan")])
def test_unknown_memory(said: Any) -> None:
    with pytest.raises(RecipeError, match="is no amount of memory") as letter:
        ModelStore(device="cpu", memory=said)
    assert letter.value.field == "memory"


def test_nothing_said_is_nothing_decided() -> None:
    assert as_dtype(None) is None and as_device(None) is None


OUT = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError(),
       RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("error", "where"), in_turn(OUT, ["reading", "moving", "copying"]))
def test_a_device_without_room_is_a_letter_with_the_size(
    error: Exception, where: str, bases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    place = {"reading": "infuse.weights.base.load_base", "moving": "infuse.engine.placement.settled",
             "copying": "infuse.engine.placement.copied"}[where]  # fmt: skip
    ours = store()
    ours.add("mine", tiny.controlnet("sd1", 7))
    monkeypatch.setattr(place, full)
    with pytest.raises(CapacityError, match=r"needs \d+\.\d MiB on cpu, which is out of memory") as letter:
        if where == "copying":
            ours.controlnet("mine", tiny.base("sd1").base, torch.float64, CPU)
        else:
            ours.base(bases[0])
    assert letter.value.field == "model"
    monkeypatch.undo()
    assert ours.base(bases[0]).spec.in_channels == 4, "and it can be tried again"


def test_what_a_loader_made_of_it_is_seen_through(bases: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise WeightsError("model", "it cannot be loaded") from torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("infuse.weights.base.load_base", full)
    with pytest.raises(CapacityError):
        store().base(bases[0])


def test_another_error_stays_what_it_is(bases: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("something else")

    monkeypatch.setattr("infuse.weights.base.load_base", broken)
    with pytest.raises(RuntimeError, match="something else"):
        store().base(bases[0])


def test_what_lies_in_a_file_is_copied_and_what_does_not_stays(tmp_path: Path) -> None:
    """Whoever overwrites a mapped file would change a loaded model; what is in memory already needs no copy."""
    from safetensors.torch import save_file

    from infuse.engine.placement import settled
    from infuse.weights.formats import read_tensors

    save_file({"weight": torch.ones(64, 64)}, tmp_path / "w.safetensors")
    own, mapped = torch.nn.Linear(64, 64), torch.nn.Linear(64, 64)
    mapped.weight = torch.nn.Parameter(read_tensors(tmp_path / "w.safetensors")["weight"], requires_grad=False)
    before = [m.weight.data_ptr() for m in (own, mapped)]
    after = [settled(m, CPU).weight.data_ptr() for m in (own, mapped)]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]

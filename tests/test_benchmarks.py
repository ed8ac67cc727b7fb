"""The benchmarks are code like any other: the same that runs for twenty minutes runs here on tiny networks."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import load, lossy, rounds  # noqa: E402
from benchmarks.asked import MIXED, Control, Request, varied  # noqa: E402
from benchmarks.cases import CASES, COST, grown, line  # noqa: E402
from benchmarks.contenders import Diffusers, Infuse, Sample  # noqa: E402
from benchmarks.counting import Count  # noqa: E402
from benchmarks.networks import SD15_STEPS, TINY, TINY_XL, World, twin  # noqa: E402
from benchmarks.run import Run, contenders, largest  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
BOTH = Request(2, controls=(Control(0), Control(1, 0.5, end=0.5)), looks=(0,))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Fake:
    """Takes as long as it is told, on a clock of the test's; `slow` is how much longer each turn takes than the one before."""

    side, dtype, what = "infuse", torch.float32, ""

    def __init__(self, name: str, clock: Clock, seconds: float, slow: float = 1.0, fails: bool = False) -> None:
        self.name, self.clock, self.seconds, self.slow, self.fails = name, clock, seconds, slow, fails
        self.asked: list[Sequence[Request]] = []

    def prepare(self, world: Any) -> None: ...
    def release(self) -> None: ...

    def run(self, requests: Sequence[Request], pictures: bool = False) -> Sample:
        self.asked.append(requests)
        if self.fails:
            raise ValueError("no")
        took, self.seconds = self.seconds, self.seconds * self.slow
        self.clock.now += took
        return Sample([took] * sum(r.steps for r in requests), [], took)


# ── turns ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_everybody_has_a_turn_in_every_round_and_a_ratio_is_one_of_a_round() -> None:
    """A machine that slows down from round to round slows both sides: the ratio stays."""
    clock = Clock()
    a, b = Fake("a", clock, 1.0, slow=1.5), Fake("b", clock, 2.0, slow=1.5)
    found = rounds.taken([a, b], [Request(2)], 3, 1e9, clock=clock)
    assert [sorted(s.samples) for s in found.values()] == [[0, 1, 2]] * 2
    both = [s.values(lambda x: x.later) for s in found.values()]
    assert rounds.ratio(*both) == {"median": 0.5, "low": 0.5, "high": 0.5, "n": 3}
    assert both[0][2] == pytest.approx(1.5 * both[0][1])
    assert a.asked[0][0].steps == 1, "one step warms up"
    words = [asked[0].words for asked in a.asked]
    assert len(set(words)) == 4, "nobody lives off what was encoded before"
    assert [asked[0] for asked in b.asked] == [asked[0] for asked in a.asked], "and both are asked the same"


def test_rounds_are_dropped_when_time_is_over_and_the_first_never_is() -> None:
    clock = Clock()
    found = rounds.taken([Fake("a", clock, 10.0)], [Request(1)], 5, 35.0, clock=clock)
    assert sorted(found["a"].samples) == [0, 1]  # 10 s to warm up, 20 s; a third round would end after 40
    assert sorted(rounds.taken([Fake("a", clock, 10.0)], [Request(1)], 5, -1.0, clock=clock)["a"].samples) == [0]


def test_who_fails_is_out_and_says_why() -> None:
    clock = Clock()
    good, bad = Fake("good", clock, 1.0), Fake("bad", clock, 1.0, fails=True)
    found = rounds.taken([bad, good], [Request(1)], 2, 100.0, clock=clock)
    assert found["bad"].error and found["bad"].error.startswith("ValueError: no") and len(bad.asked) == 1
    assert len(found["good"].samples) == 2


def test_some_run_once_and_some_are_left_out_for_want_of_time() -> None:
    clock = Clock()
    found = rounds.taken(
        [Fake("a", clock, 1.0), Fake("once", clock, 1.0), Fake("slow", clock, 1.0)], [Request(1)], 3, 50.0, ["once"],
        clock=clock, patience={"slow": 60.0},
    )  # fmt: skip
    assert sorted(found["once"].samples) == [0] and found["once"].warmup is None
    assert str(found["slow"].error).startswith("left out") and not found["slow"].samples
    assert len(found["a"].samples) == 3


# ── counts ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_the_arithmetic_of_sd15_is_counted_as_published() -> None:
    """803.3 GFLOP a row of the UNet, 283.3 of a ControlNet; an IP-Adapter's K and V 0.15, its attention 0.19."""
    count = Count(SD15_STEPS)
    assert [round(x / 1e9, 1) for x in (count.unet, count.controlnet)] == [803.3, 283.3]
    assert count.adapter / 1e9 == pytest.approx(0.15 + 0.19, abs=0.01)


def test_only_who_is_heard_is_counted() -> None:
    count, request = Count(TINY), replace(BOTH, steps=4)
    assert [len(request.heard(i)) for i in range(4)] == [2, 2, 1, 1]
    plain = count.all([Request(4)])
    assert count.all([request]) == pytest.approx(plain + 2 * (6 * count.controlnet + 4 * count.adapter))
    assert count.all([replace(request, guidance=1.0)]) == pytest.approx(count.all([request]) / 2)


def test_a_line_through_points() -> None:
    found = line({0: 2.0, 1: 3.0, 2: 4.0})
    assert (found["base"], found["slope"], found["relative"], found["r2"]) == pytest.approx((2, 1, 0.5, 1))
    assert line({0: 1.0, 1: 3.0, 2: 2.0})["r2"] == pytest.approx(0.25)


# ── networks, contenders ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sizes", [TINY, pytest.param(TINY_XL, marks=pytest.mark.slow)])
def test_both_sides_make_the_same_latents_of_a_request(sizes: Any) -> None:
    """So that seconds are compared of the same work: ControlNets with a window, an IP-Adapter, guidance, and each sampler."""
    world = World(sizes)
    ours, theirs = Infuse(torch.float32), Diffusers(torch.float32)
    ours.prepare(world), theirs.prepare(world)
    asked = varied([BOTH] if sizes is TINY_XL else [replace(BOTH, scheduler="UniPC"), *MIXED[1:3]], 1)
    a, b = ours.run(asked), theirs.run(asked)
    assert len(a.latents) == len(b.latents) == len(asked) and len(b.steps) == sum(r.steps for r in asked)
    for one, other in zip(a.latents, b.latents, strict=True):
        assert other.std() > 0.1 and largest(one, other) < 1e-4
    assert 0 < b.total < b.whole and 0 < a.total < a.whole


def test_numbers_are_the_same_in_every_dtype_and_twins_are_apart() -> None:
    half = World(TINY, torch.bfloat16)
    for name, p in half.cast(torch.float32).unet.named_parameters():
        assert torch.equal(p, half.unet.get_parameter(name).float())
    own = twin(half.unet)
    assert own.conv_in.weight.data_ptr() == half.unet.conv_in.weight.data_ptr()
    own.to(memory_format=torch.channels_last)
    assert not half.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not any(p.abs().sum() == 0 for n, p in half.controlnet(0).named_parameters() if p.ndim > 1)


# ── load ────────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_arrivals_are_the_same_requests_at_every_rate() -> None:
    found, alone = load.kinds(), dict.fromkeys(range(6), 2.0)
    slow, fast = (load.arrivals(rate, 100.0, alone, found, 3.0, 7) for rate in (1.0, 4.0))
    assert [a.request for a in fast[: len(slow)]] == [a.request for a in slow]
    assert [a.at for a in fast[: len(slow)]] == pytest.approx([a.at / 4 for a in slow])
    assert 70 < len(slow) < 130 and all(a.within == 6.0 for a in slow)


def test_who_is_late_is_not_good() -> None:
    found = [load.Arrival(float(i), Request(1), 3.0) for i in range(4)]
    told = load.judged(found, [1.0, 4.0, 6.0, None], 10.0)
    assert (told["good"], told["goodput"], told["done"]) == (0.5, 0.2, 3) and told["p50"] == 3.0
    assert load.served([(1.0, 1.0), (2.0, 0.95), (3.0, 0.85)]) == pytest.approx(2.5)
    assert load.served([(1.0, 0.5)]) == 0.0


# ── whole runs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_make_bench_writes_every_field_and_plots(tmp_path: Path) -> None:
    from benchmarks.__main__ import main

    said = [
        "--tiny",
        "--minutes",
        "0.1",
        "--rounds",
        "1",
        "--no-compile",
        "--out",
        str(tmp_path),
        "--plots",
        str(tmp_path),
    ]
    assert main(said) == 0
    out = json.loads((tmp_path / "cpu.json").read_text())
    assert set(out["cases"]) == {*CASES, COST}
    names = {c.name for c in contenders(compile=False)}
    assert set(out["contenders"]) == names and set(out["defaults"].values()) <= names
    for name, case in out["cases"].items():
        if name == COST:
            assert {k for one in case["contenders"].values() for k in one["seconds"]} == {label for label, _ in grown()}
            assert all(one["controlnets"]["r2"] <= 1 and one["error"] is None for one in case["contenders"].values())
            continue
        for one in case["contenders"].values():
            assert one["error"] is None and one["seconds"]["median"] > 0 and one["share"] > 0 and one["tflops"] > 0
        exact = [one["difference"]["largest"] for who, one in case["contenders"].items() if "float32" in who]
        close = [one["difference"]["rms"] for one in case["contenders"].values()]
        assert max(exact) < 1e-4 and max(close) < 0.2, "whatever the dtype, it is the same picture"
        assert case["ratios"] and case["best_peer"].startswith("diffusers")
    assert {p.name for p in tmp_path.glob("*.png")} == {f"performance_{what}.png" for what in ("steps", "peak", "cost")}


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own() -> None:
    run = Run(TINY, [], 10.0, say=lambda text: None)
    run.memory(["infuse bfloat16"], tiny=True)
    found = run.out["memory"]["infuse bfloat16"]
    assert found["peak"] >= found["before"] > 0 and found["peak"] >= found["weights"] > 0


@pytest.mark.slow
def test_the_benchmarks_of_a_gpu_run_on_a_cpu(tmp_path: Path) -> None:
    from benchmarks.gpu import main, parts

    said = [
        "--tiny",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--minutes",
        "0.2",
        "--rounds",
        "1",
        "--contenders",
        "infuse",
        "eager",
    ]
    assert main([*said, "--no-first", "--out", str(tmp_path), "--plots", str(tmp_path)]) == 0
    out = json.loads((tmp_path / "gpu.json").read_text())
    assert set(out["cases"]) == set(parts()) and not out["errors"] and (tmp_path / "performance_gpu.png").exists()
    for case in out["cases"].values():
        assert case["ratios"] and max(case["difference"].values()) < 1e-4
        assert all(one["seconds"]["median"] > 0 and one["tflops"] > 0 for one in case["contenders"].values())


@pytest.mark.slow
def test_what_fails_on_a_gpu_is_written_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import gpu

    def broken(self: Any, requests: Any, pictures: bool = False) -> Any:
        raise RuntimeError("no graph")

    monkeypatch.setattr(Diffusers, "run", broken)
    out = gpu.run(["sd15", "sdxl"], "cpu", torch.float32, True, 5.0, 1, ["infuse", "eager"], False, lambda text: None)
    assert set(out["cases"]) == {"sd15", "sdxl"}
    for case in out["cases"].values():
        errors = {one["side"]: one["error"] for one in case["contenders"].values()}
        assert errors["infuse"] is None and errors["diffusers"].startswith("RuntimeError: no graph")


@pytest.mark.slow
def test_requests_that_come_when_they_come(tmp_path: Path) -> None:
    said = [
        "--tiny",
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--minutes",
        "0.1",
        "--rates",
        "0.5",
        "2",
        "--compile",
        "",
    ]
    assert load.main([*said, "--out", str(tmp_path), "--plots", str(tmp_path)]) == 0
    out = json.loads((tmp_path / "load.json").read_text())
    assert len(out["servers"]) == 2 and not out["errors"] and (tmp_path / "performance_load.png").exists()
    for server in out["servers"].values():
        assert set(server["rates"]) == {"0.5", "2"} and all(0 <= p["good"] <= 1 for p in server["rates"].values())


@pytest.mark.slow
def test_lossy_options_are_measured_and_shown(tmp_path: Path) -> None:
    lossy.main(["--recipes", "2", "--steps", "4", "--size", "64", "--out", str(tmp_path / "lossy.json")])
    found = json.loads((tmp_path / "lossy.json").read_text())
    assert set(found) == set(lossy.OPTIONS) and (tmp_path / "lossy.png").exists()
    assert all(one["rms"] > 0 and one["time"] > 0 and one["psnr"] >= one["worst_psnr"] for one in found.values())

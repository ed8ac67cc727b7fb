"""One run of the benchmarks on a CPU: peaks, cases in turn, cost, memory; everything into one dictionary that becomes JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import infuse
from benchmarks import machine
from benchmarks.asked import Request
from benchmarks.cases import CASES, COST, COST_SHARE, OF, Case, full, grown, line
from benchmarks.contenders import Contender, Diffusers, Infuse, Sample, short, usual
from benchmarks.counting import counts
from benchmarks.networks import SD15_STEPS, TINY, Sizes, World
from benchmarks.rounds import Budget, Series, ratio, summed, taken

Say = Callable[[str], None]
ROOM = 3 * 2**30
"""Bytes that stay free: whoever would take them is left out."""


def contenders(compile: bool = True, only: Sequence[str] = ()) -> list[Contender]:
    """Everybody on a CPU. only: names, or parts of them."""
    wide, half = torch.float32, torch.bfloat16
    found: list[Contender] = [
        Infuse(half),
        Diffusers(half),
        Diffusers(half, channels_last=True),
        Infuse(wide),
        Diffusers(wide),
    ]
    if compile:
        found.append(Diffusers(half, channels_last=True, compile="freeze"))
    names = {c.name for c in found}
    return [c for c in found if not only or any(part == c.name if part in names else part in c.name for part in only)]


class Run:
    """seconds: of everything. say: progress, a line at a time."""

    def __init__(
        self, sizes: Sizes, found: Sequence[Contender], seconds: float, device: str = "cpu", say: Say = print
    ) -> None:
        self.sizes, self.contenders, self.device, self.say = sizes, list(found), device, say
        self.budget, self.seconds = Budget(seconds), seconds
        self.worlds = {torch.bfloat16: World(sizes, torch.bfloat16, device)}
        self.count = counts(self.worlds[torch.bfloat16])
        self.ready: set[str] = set()
        default = f"infuse {short(usual(device, sizes))}"
        self.out: dict[str, Any] = {
            "schema": 1,
            "infuse": infuse.__version__,
            "when": time.strftime("%Y-%m-%d"),
            "networks": sizes.name,
            "pixels": sizes.side,
            "device": device,
            "machine": machine.facts(device),
            "seconds": seconds,
            "contenders": {c.name: {"side": c.side, "what": c.what, "dtype": short(c.dtype)} for c in found},
            "defaults": {"infuse": default, "diffusers": "diffusers float32"},
            "flop": {"unet": 2 * self.count.unet, "controlnet": 2 * self.count.controlnet, "ip_adapter": 2 * self.count.adapter},
            "peaks": {},
            "cases": {},
        }  # fmt: skip

    def world(self, dtype: torch.dtype) -> World:
        if dtype not in self.worlds:
            self.worlds[dtype] = self.worlds[torch.bfloat16].cast(dtype)
        return self.worlds[dtype]

    def peaks(self, side: int | None = None) -> None:
        """The machine's own limits, measured beside everything else."""
        for dtype in dict.fromkeys([torch.bfloat16, *(c.dtype for c in self.contenders)]):
            rate = machine.product(dtype, self.device, side)
            before = self.out["peaks"].get(short(dtype), 0.0)
            self.out["peaks"][short(dtype)] = max(before, rate)
            self.say(f"a product of matrices in {short(dtype)}: {rate / 1e12:.3g} TFLOP/s")
        if "copy" not in self.out["peaks"]:
            self.out["peaks"]["copy"] = machine.copying(self.device, 2**28 if side is None else 2**20)

    def prepared(self, who: Sequence[Contender]) -> list[Contender]:
        """Those that are ready to run; one that fails to prepare is out of the run."""
        able = []
        for c in who:
            if c.name not in self.ready:
                if self.device == "cpu" and machine.available() < ROOM:
                    self.out["contenders"][c.name]["error"] = "left out: the machine has too little memory free"
                    continue
                try:
                    c.prepare(self.world(c.dtype))
                except Exception as error:
                    self.out["contenders"][c.name]["error"] = f"{type(error).__name__}: {error}"
                    continue
                self.ready.add(c.name)
            able.append(c)
        return able

    def released(self, who: Sequence[Contender]) -> None:
        """Memory of those that no later case needs, and of their networks."""
        for c in who:
            if c.name in self.ready:
                c.release()
                self.ready.discard(c.name)
        needed = {c.dtype for c in self.contenders if c.name in self.ready} | {torch.bfloat16}
        self.worlds = {dtype: world for dtype, world in self.worlds.items() if dtype in needed}

    def cases(self, names: Sequence[str], rounds: int) -> None:
        """All of these, then `cost`."""
        todo = [CASES[n]() for n in CASES if n in names]
        shares = sum(c.share for c in todo) + COST_SHARE * (COST in names)
        for i, case in enumerate(todo):
            seconds = max(self.budget.left, 1.0) * case.share / shares
            shares -= case.share
            who = self.prepared([c for c in self.contenders if case.takes_part(c)])
            self.say(f"{case.name}: {case.what}; {len(who)} take turns for about {seconds:.0f} s")
            once = [c.name for c in who if case.once(c)]
            series = taken(who, case.requests, rounds, seconds, once, self.say)
            self.out["cases"][case.name] = self.told(case, who, series)
            later = [c for c in self.contenders for other in todo[i + 1 :] if other.takes_part(c)]
            self.released([c for c in self.contenders if c not in later and not (COST in names and self.grows(c))])
        if COST in names:
            self.cost(rounds)

    def told(self, case: Case, who: Sequence[Contender], series: Mapping[str, Series]) -> dict[str, Any]:
        """A case as numbers: for each its seconds, what it reaches, how far it is from the answer; and ratios across sides."""
        value = OF[case.of]
        flop = self.count.all(case.requests)
        if case.of != "total":
            flop = self.count.step(case.requests[0], 0) if case.of == "later" else flop / case.requests[0].steps
        seconds = {n: s.values(value) for n, s in series.items()}
        out: dict[str, Any] = {"what": case.what, "unit": case.unit, "flop": flop, "contenders": {}, "ratios": {}}
        answers = next((series[c.name] for c in who if c.side == "diffusers" and full(c)), None)
        for c in who:
            found = series[c.name]
            one: dict[str, Any] = {"error": found.error, "warmup": found.warmup, "seconds": None}
            if found.samples:
                took = summed(list(seconds[c.name].values()))
                rate = flop / took["median"]
                peak = self.out["peaks"].get(short(c.dtype))
                one |= {
                    "seconds": took,
                    "first": summed([s.steps[0] for s in found.samples.values()]) if case.of == "later" else None,
                    "tflops": rate / 1e12,
                    "share": rate / peak if peak else None,
                    "threads_had": threads_had(list(found.samples.values())),
                    "difference": None if answers is None else difference(found, answers),
                }
            out["contenders"][c.name] = one
        pairs = [(a, b) for a in who for b in who if (a.side, b.side) == ("infuse", "diffusers")]
        for a, b in pairs:
            if (found := ratio(seconds[a.name], seconds[b.name])) is not None:
                out["ratios"][f"{a.name} / {b.name}"] = found
        peers = {c.name: out["contenders"][c.name]["seconds"] for c in who if c.side == "diffusers"}
        ran = {n: s["median"] for n, s in peers.items() if s}
        out["best_peer"] = min(ran, key=lambda n: ran[n]) if ran else None
        return out

    def grows(self, c: Contender) -> bool:
        return c.dtype == torch.bfloat16 and "compile" not in c.name

    def cost(self, rounds: int) -> None:
        """Seconds against the number of conditions: lines, and what is left of a condition whose window is over."""
        sides = {c.side: c for c in self.contenders if self.grows(c)}  # of diffusers the last: in channels_last
        who = self.prepared(list(sides.values()) or self.contenders[:1])
        points = grown()
        self.say(f"cost: a step with 0 to 4 ControlNets, 1 and 2 IP-Adapters; {', '.join(c.name for c in who)}")
        out: dict[str, Any] = {
            "what": "a guided step against the number of conditions",
            "unit": "s a step",
            "contenders": {},
        }
        took: dict[str, dict[str, dict[int, float]]] = {c.name: {} for c in who}
        longest, errors = 0.0, {}
        for r in range(rounds):
            began = time.perf_counter()
            if r and self.budget.left < longest:
                break
            for label, request in points:
                found = taken(who, (request,), 1, 0.0, [c.name for c in who], lambda text: None)
                for c in who:
                    if found[c.name].error:
                        errors[c.name] = found[c.name].error
                    for sample in found[c.name].samples.values():
                        took[c.name].setdefault(label, {})[r] = sample.later
                said = ", ".join(f"{c.name} {v[r]:.3g}" for c in who if r in (v := took[c.name].get(label, {})))
                self.say(f"cost, round {r + 1} of {rounds}, {label}: {said} s a step")
            longest = max(longest, time.perf_counter() - began)
        for c in who:
            out["contenders"][c.name] = self.costs(took[c.name]) | {"error": errors.get(c.name)}
        out["flop_slope"] = self.count.controlnet / self.count.unet
        out["flop_slope_ip"] = self.count.adapter / self.count.unet
        self.out["cases"][COST] = out
        self.released(self.contenders)

    def costs(self, took: Mapping[str, Mapping[int, float]]) -> dict[str, Any]:
        """Lines through the lowest of each number: what else the machine does only ever adds."""
        least = {label: min(rounds.values()) for label, rounds in took.items() if rounds}
        none = least.get("controlnets 0")
        controls = {int(k.split()[1]): v for k, v in least.items() if k.startswith("controlnets")}
        looks = {int(k.split()[1]): v for k, v in least.items() if k.startswith("ip_adapters")} | (
            {0: none} if none else {}
        )
        over = least.get("window over")
        return {
            "seconds": {label: summed(list(rounds.values())) for label, rounds in took.items() if rounds},
            "controlnets": line(controls) if len(controls) > 1 else None,
            "ip_adapters": line(dict(sorted(looks.items()))) if len(looks) > 1 else None,
            "window_over": over / none - 1 if over and none else None,
        }

    def memory(self, names: Sequence[str], tiny: bool = False) -> None:
        """Each in a process of its own: what a step with ControlNet and IP-Adapter takes beyond its weights."""
        self.out["memory"] = {}
        for name in names:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", name, *(["--tiny"] if tiny else [])]
            done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
            last = (done.stdout.strip().splitlines() or [""])[-1]
            found = json.loads(last) if done.returncode == 0 and last.startswith("{") else {"error": done.stderr[-500:]}
            self.out["memory"][name] = found
            if "peak" in found:
                self.say(
                    f"memory, {name}: {found['peak'] / 2**30:.2f} GiB at most, weights {found['weights'] / 2**30:.2f}"
                )


def threads_had(samples: Sequence[Sample]) -> float:
    """How much of the threads' time the samples really had: 0.9 to 1 on a quiet machine; less where others use its cores."""
    return summed([s.processor / s.whole / torch.get_num_threads() for s in samples])["median"]


def difference(found: Series, answers: Series) -> dict[str, float] | None:
    """Of the latents, to those of diffusers in float32 in the same round: largest, relative to the largest latent; and the
    root of the mean square, relative to that of the latents."""
    rounds = sorted(found.samples.keys() & answers.samples.keys())
    pairs = [pair for r in rounds for pair in zip(found.samples[r].latents, answers.samples[r].latents, strict=True)]
    if not pairs:
        return None
    return {"largest": max(largest(a, b) for a, b in pairs), "rms": max(rms(a, b) for a, b in pairs)}


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


def rms(a: Tensor, b: Tensor) -> float:
    return float((a - b).square().mean().sqrt() / b.square().mean().sqrt())


def whole(
    sizes: Sizes = SD15_STEPS,
    names: Sequence[str] = (*CASES, COST),
    only: Sequence[str] = (),
    seconds: float = 1150,
    rounds: int = 5,
    compile: bool = True,
    memory: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """Everything, in about so many seconds."""
    tiny = sizes is TINY
    run = Run(sizes, contenders(compile, only), seconds, say=say)
    run.peaks(256 if tiny else None)
    if memory:
        there = run.out["contenders"]
        run.memory(
            [
                n
                for n in dict.fromkeys([*run.out["defaults"].values(), "infuse bfloat16", "diffusers bfloat16"])
                if n in there
            ],
            tiny,
        )
    run.cases(names, rounds)
    run.peaks(256 if tiny else None)
    run.out["took"] = round(seconds - run.budget.left, 1)
    return run.out


def request_of_memory() -> Request:
    return CASES["controlnet_ip"]().requests[0]

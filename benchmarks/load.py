"""`python -m benchmarks.load`: requests that come when they come. An engine, beside a queue of diffusers pipelines.

Arrivals are Poisson's, requests mixed: 10 to 30 steps, 0 to 2 ControlNets, a third with an IP-Adapter. All servers see the same
arrivals. A request is good if it is done within `--slo` times what its kind takes alone, measured on the queue of pipelines
before, so that the deadlines are the same for everybody. Goodput is good requests per second; capacity the rate at which the
queue, never idle, would just keep up. Method: the serving benchmarks of vllm-omni and sglang, whose SLO is 3, too.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import infuse
from benchmarks import machine
from benchmarks.__main__ import HERE, write
from benchmarks.asked import PROMPTS, Control, Request
from benchmarks.contenders import Diffusers, Infuse, short
from benchmarks.networks import SD15, SDXL, TINY, TINY_XL, World
from benchmarks.rounds import Budget

GOOD = 0.9
"""Of the requests that must be good for a rate to count as served."""
GRACE = 1.0
"""So much longer than requests come, in parts of that time, a server may go on; what is not done then never is."""
RATES = (0.5, 0.8, 1.1, 1.5, 2.0, 3.0)
"""Of the capacity of the queue."""


@dataclass(frozen=True)
class Kind:
    """What decides how long a request takes alone, and how often it is asked."""

    request: Request
    often: float


def kinds(shorter: int = 1) -> tuple[Kind, ...]:
    """Six kinds. shorter: divides the steps, for tests."""
    found = (
        Kind(Request(20, PROMPTS[0]), 0.3),
        Kind(Request(20, PROMPTS[1], (Control(0),)), 0.2),
        Kind(Request(20, PROMPTS[2], (Control(0, end=0.5), Control(1, 0.5)), scheduler="UniPC"), 0.1),
        Kind(Request(30, PROMPTS[3], (), (0,), "DPM++ 2M Karras"), 0.2),
        Kind(Request(30, PROMPTS[0], (Control(1, end=0.5),), (0,), "Euler"), 0.1),
        Kind(Request(10, PROMPTS[1], scheduler="UniPC"), 0.1),
    )
    return tuple(replace(k, request=replace(k.request, steps=max(1, k.request.steps // shorter))) for k in found)


@dataclass(frozen=True)
class Arrival:
    """at: seconds after the start. within: seconds until it must be done."""

    at: float
    request: Request
    within: float


def arrivals(
    rate: float, seconds: float, alone: Mapping[int, float], found: Sequence[Kind], slo: float, seed: int
) -> list[Arrival]:
    """Poisson's: exponential gaps. The same seed gives the same requests at every rate, closer together."""
    dice, out, at = random.Random(seed), [], 0.0
    while True:
        gap, i = dice.expovariate(1.0), dice.choices(range(len(found)), [k.often for k in found])[0]
        at += gap / rate
        if at > seconds:
            return out
        number = len(out)
        request = replace(found[i].request, variant=number, seed=found[i].request.seed + number)
        out.append(Arrival(at, request, slo * alone[i]))


# ── servers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

Server = Callable[[Sequence[Arrival], float], list[float | None]]
"""Arrivals, and when to give up, to the second at which each was done; None if it never was."""


def engine(ours: Infuse) -> Server:
    """Whoever has come is submitted, then the engine steps. Which of them it serves is its own affair."""

    def serve(found: Sequence[Arrival], until: float) -> list[float | None]:
        done: list[float | None] = [None] * len(found)
        begin, i, under_way = time.perf_counter(), 0, {}
        while i < len(found) or under_way:
            now = time.perf_counter() - begin
            if now > until:
                break
            while i < len(found) and found[i].at <= now:
                under_way[i] = ours.submit(found[i].request)
                i += 1
            if not ours.engine.step() and not under_way and i < len(found):
                time.sleep(max(0.0, min(0.01, found[i].at - (time.perf_counter() - begin))))
            for n in [n for n, ticket in under_way.items() if ticket.finished]:
                under_way.pop(n).result()
                done[n] = time.perf_counter() - begin
        for ticket in under_way.values():
            ticket.cancel()
        return done

    return serve


def queue(theirs: Diffusers) -> Server:
    """First come, first served, one at a time."""

    def serve(found: Sequence[Arrival], until: float) -> list[float | None]:
        done: list[float | None] = [None] * len(found)
        begin = time.perf_counter()
        for i, arrival in enumerate(found):
            if (wait := arrival.at - (time.perf_counter() - begin)) > 0:
                time.sleep(wait)
            if time.perf_counter() - begin > until:
                break
            theirs.run([arrival.request], pictures=True)
            done[i] = time.perf_counter() - begin
        return done

    return serve


def judged(found: Sequence[Arrival], done: Sequence[float | None], seconds: float) -> dict[str, Any]:
    """Share of good requests, goodput, and how long they took."""
    took = [None if d is None else d - a.at for a, d in zip(found, done, strict=True)]
    good = sum(t is not None and t <= a.within for a, t in zip(found, took, strict=True))
    known = sorted(t for t in took if t is not None)
    at = lambda q: known[min(len(known) - 1, int(q * len(known)))] if known else None  # noqa: E731
    return {
        "requests": len(found), "done": len(known), "good": good / len(found) if found else 1.0, "goodput": good / seconds,
        "mean": mean(known) if known else None, "p50": at(0.5), "p95": at(0.95), "p99": at(0.99),
    }  # fmt: skip


def served(points: Sequence[tuple[float, float]]) -> float:
    """The highest rate at which GOOD of the requests are good, between those that were tried; 0 if the lowest is too much."""
    best, before = 0.0, None
    for rate, good in sorted(points):
        if good >= GOOD:
            best = rate
        elif before is not None and before[1] >= GOOD:
            best = before[0] + (rate - before[0]) * (before[1] - GOOD) / (before[1] - good)
        before = (rate, good)
    return best


def run(
    device: str = "cuda", dtype: torch.dtype = torch.float16, base: str = "sd15", tiny: bool = False, seconds: float = 340,
    slo: float = 3.0, rates: Sequence[float] = RATES, compile: str = "default", seed: int = 0,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:  # fmt: skip
    """What alone takes, then each rate for each server, as far as there is time. compile: of the pipelines; "" is eager."""
    budget = Budget(seconds)
    found = kinds(10 if tiny else 1)
    sizes = {"sd15": (SD15, TINY), "sdxl": (SDXL, TINY_XL)}[base][tiny]
    out: dict[str, Any] = {
        "schema": 1, "infuse": infuse.__version__, "device": device, "dtype": short(dtype), "networks": sizes.name, "slo": slo,
        "machine": machine.facts(device), "seconds": seconds, "servers": {}, "errors": {},
    }  # fmt: skip
    world = World(sizes, dtype, device)
    ours, theirs = (
        Infuse(dtype, compile="max" if device.startswith("cuda") else "off", slo=slo),
        Diffusers(dtype, bool(compile), compile or None),
    )
    servers: dict[str, Server] = {}
    alone: dict[int, float] = {}
    for c, server in ((theirs, queue(theirs)), (ours, engine(ours))):
        try:
            c.prepare(world)
            least = {}
            for i, kind in enumerate(found):
                c.run([kind.request], pictures=True)  # loads, compiles
                least[i] = min(c.run([replace(kind.request, variant=v)], pictures=True).whole for v in (1, 2))
            if c is ours:
                c.run([k.request for k in found], pictures=True)  # wide calls once
            alone = alone or least
            servers[c.name] = server
            out["servers"][c.name] = {"what": c.what, "alone": list(least.values()), "rates": {}}
            say(f"{c.name}, each kind alone: {', '.join(f'{t:.3g}' for t in least.values())} s")
        except Exception as error:
            out["errors"][c.name] = f"{type(error).__name__}: {error}"
            say(f"{c.name}: {out['errors'][c.name]}")
    if not alone:
        return out
    out["capacity"] = sum(k.often for k in found) / sum(k.often * alone[i] for i, k in enumerate(found))
    each = max(budget.left, 1.0) / (len(rates) * max(len(servers), 1) * (1 + GRACE / 2))
    for factor in rates:
        rate = factor * out["capacity"]
        trace = arrivals(rate, each, alone, found, slo, seed)
        for name, serve in servers.items():
            if budget.left < each / 2 and not tiny:
                continue
            try:
                done = serve(trace, each * (1 + GRACE))
            except Exception as error:
                out["errors"][f"{name}, {factor:g}"] = f"{type(error).__name__}: {error}"
                continue
            point = judged(trace, done, each) | {"rate": rate}
            out["servers"][name]["rates"][f"{factor:g}"] = point
            say(
                f"{factor:g} of the capacity, {name}: {point['good']:.0%} of {point['requests']} good, {point['goodput']:.3g} a second"
            )
    for name in servers:
        points = [(p["rate"], p["good"]) for p in out["servers"][name]["rates"].values()]
        out["servers"][name]["served"] = served(points)
    out["took"] = round(seconds - budget.left, 1)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--base", default="sd15", choices=("sd15", "sdxl"))
    parser.add_argument("--minutes", type=float, default=5.7)
    parser.add_argument("--slo", type=float, default=3.0, help="times what a request takes alone")
    parser.add_argument("--rates", nargs="+", type=float, default=list(RATES), help="of the capacity of the queue")
    parser.add_argument(
        "--compile", default="default", choices=("", "default", "reduce-overhead"), help="of the pipelines"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--name", default="load")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--plots", type=Path)
    given = parser.parse_args(arguments)
    machine.quiet()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    begin = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - begin:6.0f} s[/dim]  {text}")

    out = run(given.device, getattr(torch, given.dtype), given.base, given.tiny, given.minutes * 60, given.slo, given.rates,
              given.compile, given.seed, say)  # fmt: skip
    for name, server in out["servers"].items():
        table = Table("of the capacity", "requests", "good", "good a second", "p50 s", "p95 s", title=f"{name}; {GOOD:.0%} are good up to "
                      f"{server.get('served', 0.0):.3g} a second", title_justify="left")  # fmt: skip
        for factor, p in server["rates"].items():
            times = ("-" if p[q] is None else f"{p[q]:.3g}" for q in ("p50", "p95"))
            table.add_row(factor, str(p["requests"]), f"{p['good']:.0%}", f"{p['goodput']:.3g}", *times)
        console.print(table)
    console.print(str(write(out, given.out, given.name)))
    if given.plots:
        from benchmarks.plots import load_drawn

        console.print(str(load_drawn(out, given.plots)))
    return int(not any(s["rates"] for s in out["servers"].values()))


if __name__ == "__main__":
    raise SystemExit(main())

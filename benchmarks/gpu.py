"""`python -m benchmarks.gpu`: whole requests on one GPU, from words and pictures to a picture, within six minutes.

SD1.5 and SDXL in full size, random weights, half precision; infuse without compiling, with CUDA graphs and at its most;
diffusers eager, compiled, and compiled with CUDA graphs, in channels_last where they are compiled. What fails, or for which
there is no time, says so in the results, and the rest goes on.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import infuse
from benchmarks import machine
from benchmarks.__main__ import HERE, write
from benchmarks.asked import MIXED, Control, Request, longer
from benchmarks.contenders import Contender, Diffusers, Infuse, short
from benchmarks.counting import counts
from benchmarks.networks import SD15, SDXL, TINY, TINY_XL, Sizes, World
from benchmarks.rounds import Budget, ratio, summed, taken
from benchmarks.shown import spread

Say = Callable[[str], None]
PATIENCE = {"compile default": 45.0, "compile reduce-overhead": 60.0, "compile max": 20.0, "compile graphs": 20.0}
"""Seconds that a warm-up takes at least, by a part of the name; three times as much on SDXL."""


@dataclass(frozen=True)
class Part:
    """A case of one base. share: of the time. who: parts of names; empty is everybody."""

    name: str
    what: str
    sizes: Sizes
    tiny: Sizes
    requests: tuple[Request, ...]
    share: float
    who: tuple[str, ...] = ()


def parts() -> Mapping[str, Part]:
    """What matters most first."""
    both = {"controls": (Control(0),), "looks": (0,)}
    half = (Control(0, 0.7, end=0.5), Control(1, 0.6, end=0.5))
    found = (
        Part("sd15", "SD1.5 512, 20 steps, ControlNet and IP-Adapter", SD15, TINY, (Request(20, **both),), 0.40),
        Part("sd15_half", "the same with two ControlNets, half of the steps", SD15, TINY, (Request(20, controls=half),), 0.14,
             ("infuse", "diffusers")),
        Part("sd15_mixed", "eight requests: 0 to 2 ControlNets, IP-Adapter or none, four samplers, 10 to 30 steps", SD15, TINY,
             longer(MIXED, 10, 8), 0.16, ("infuse", "eager", "compile default")),
        Part("sdxl", "SDXL 1024, 30 steps, ControlNet and IP-Adapter", SDXL, TINY_XL, (Request(30, **both),), 0.30),
    )  # fmt: skip
    return {p.name: p for p in found}


def contenders(dtype: torch.dtype) -> list[Contender]:
    """Everybody on a GPU; modes of infuse that this version does not have fall together."""
    ours = [Infuse(dtype, compile=mode) for mode in ("off", "graphs", "max")]
    theirs: list[Contender] = [
        Diffusers(dtype),
        *(Diffusers(dtype, True, mode) for mode in ("reduce-overhead", "default")),
    ]
    return [*{c.name: c for c in ours}.values(), *theirs]


def run(
    names: Sequence[str],
    device: str = "cuda",
    dtype: torch.dtype = torch.float16,
    tiny: bool = False,
    seconds: float = 340,
    rounds: int = 5,
    only: Sequence[str] = (),
    first: bool = True,
    say: Say = print,
) -> dict[str, Any]:
    """All parts, each base's networks made once; whoever is compared is let go of between the bases."""
    budget = Budget(seconds)
    out: dict[str, Any] = {
        "schema": 1, "infuse": infuse.__version__, "when": time.strftime("%Y-%m-%d"), "device": device, "dtype": short(dtype),
        "machine": machine.facts(device), "seconds": seconds, "peaks": {}, "cases": {}, "errors": {},
    }  # fmt: skip
    kept = {n: p for n, p in parts().items() if n in names}
    if tiny:
        shorter = {n: tuple(replace(r, steps=max(2, r.steps // 10)) for r in p.requests) for n, p in kept.items()}
        kept = {n: replace(p, requests=shorter[n]) for n, p in kept.items()}
    try:
        out["peaks"][short(dtype)] = machine.product(dtype, device, 256 if tiny else None)
        out["peaks"]["copy"] = machine.copying(device, 2**20 if tiny else 2**28)
    except Exception as error:
        out["errors"]["peaks"] = f"{type(error).__name__}: {error}"
    if first:
        out["first_picture"] = first_pictures(device, dtype, tiny, budget, say)
    shares = sum(p.share for p in kept.values())
    for base in dict.fromkeys(p.sizes.name for p in kept.values()):
        mine = [p for p in kept.values() if p.sizes.name == base]
        world: World | None = None
        ready: list[Contender] = []
        try:
            world = World(mine[0].tiny if tiny else mine[0].sizes, dtype, device)
            for c in contenders(dtype):
                if not only or any(text in called(c) for text in only):
                    c.prepare(world)
                    ready.append(c)
        except Exception as error:
            out["errors"][base] = f"{type(error).__name__}: {error}"
            say(f"{base}: {out['errors'][base]}")
        for part in mine:
            allowed, shares = max(budget.left, 0.0) * part.share / shares, max(shares - part.share, 1e-9)
            who = [c for c in ready if not part.who or any(text in called(c) for text in part.who)]
            say(f"{part.name}: {part.what}; {len(who)} take turns for about {allowed:.0f} s")
            if allowed < 2 and not tiny:
                out["errors"][part.name] = "left out: there was no time"
                continue
            try:
                assert world is not None
                out["cases"][part.name] = told(part, who, world, rounds, allowed, tiny, say)
            except Exception as error:
                out["errors"][part.name] = f"{type(error).__name__}: {error}"
                say(f"{part.name}: {out['errors'][part.name]}")
        for c in ready:
            c.release()
        world, ready = None, []
        gc.collect()
        if device.startswith("cuda"):
            torch.cuda.empty_cache()
    out["took"] = round(seconds - budget.left, 1)
    return out


def called(c: Contender) -> str:
    return c.name if "compile" in c.name or c.side == "infuse" else f"{c.name} eager"


def told(
    part: Part, who: Sequence[Contender], world: World, rounds: int, seconds: float, tiny: bool, say: Say
) -> dict[str, Any]:
    """Seconds of whole requests, ratios across sides, what is reached, memory."""
    longer = 3.0 if world.sizes.wide else 1.0
    patience = {c.name: longer * s for c in who for text, s in PATIENCE.items() if text in c.name and not tiny}
    machine.fresh(world.device)
    series = taken(who, part.requests, rounds, seconds, (), say, pictures=True, patience=patience)
    took = {n: s.values(lambda sample: sample.whole) for n, s in series.items()}
    flop = counts(world).all(part.requests)
    out: dict[str, Any] = {"what": part.what, "unit": "s", "flop": flop, "contenders": {}, "ratios": {}}
    for c in who:
        one: dict[str, Any] = {"error": series[c.name].error, "warmup": series[c.name].warmup, "seconds": None}
        if took[c.name]:
            one["seconds"] = summed(list(took[c.name].values()))
            one["tflops"] = flop / one["seconds"]["median"] / 1e12
            one["memory"] = held(c, part, world, say)
        out["contenders"][c.name] = one | {"side": c.side, "dtype": short(c.dtype)}
    for a in who:
        for b in who:
            if (a.side, b.side) == ("infuse", "diffusers") and (found := ratio(took[a.name], took[b.name])) is not None:
                out["ratios"][f"{a.name} / {b.name}"] = found
    ran = {
        n: one["seconds"]["median"]
        for n, one in out["contenders"].items()
        if one["seconds"] and one["side"] == "diffusers"
    }
    out["best_peer"] = min(ran, key=lambda n: ran[n]) if ran else None
    out["difference"] = apart(part, who, world, series)
    return out


def held(c: Contender, part: Part, world: World, say: Say) -> int | None:
    """Bytes of the device at the highest of one more request, beyond what lies there anyway: everybody's weights."""
    if not world.device.startswith("cuda"):
        return None
    try:
        before = machine.now(world.device)
        machine.fresh(world.device)
        c.run(part.requests[:1], pictures=True)
        return machine.peak(world.device) - before
    except Exception as error:
        say(f"{c.name}, memory: {type(error).__name__}")
        return None


def apart(part: Part, who: Sequence[Contender], world: World, series: Mapping[str, Any]) -> dict[str, float] | None:
    """Largest difference of the latents of each to those of the first diffusers that ran, relative to the largest latent: all
    are of one dtype, so it says how far apart two roundings of one answer lie."""
    able = [c for c in who if series[c.name].samples]
    peers = [c for c in able if c.side == "diffusers"]
    if not peers:
        return None
    request = part.requests[:1]
    reference = peers[0].run(request).latents[0]
    return {c.name: float((c.run(request).latents[0] - reference).abs().max() / reference.abs().max()) for c in able}


# ── the first picture after start ───────────────────────────────────────────────────────────────────────────────────────


def first_pictures(device: str, dtype: torch.dtype, tiny: bool, budget: Budget, say: Say) -> dict[str, Any]:
    """Each mode in a process of its own, from an empty cache of compiled code and from a full one."""
    out: dict[str, Any] = {}
    modes = list({Infuse(dtype, compile=m).name: m for m in ("max",)}.values())
    for mode in modes:
        with tempfile.TemporaryDirectory() as cache:
            for state in ("cold", "warm"):
                if budget.left < (120 if not tiny else 0):
                    out[f"{mode}, {state}"] = {"error": "left out: there was no time"}
                    continue
                command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--first-picture", mode, "--device", device,
                           "--dtype", short(dtype), *(["--tiny"] if tiny else [])]  # fmt: skip
                env = os.environ | {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/inductor", "XDG_CACHE_HOME": cache}
                try:
                    done = subprocess.run(
                        command, capture_output=True, text=True, env=env, cwd=HERE.parent, timeout=120
                    )
                    last = (done.stdout.strip().splitlines() or [""])[-1]
                    found = json.loads(last) if last.startswith("{") else {"error": done.stderr[-500:]}
                except subprocess.TimeoutExpired:
                    found = {"error": "it took more than 120 s"}
                out[f"{mode}, {state}"] = found
                say(f"first picture, compile {mode}, {state} cache: {found}")
    return out


def first_picture(mode: str, device: str, dtype: torch.dtype, tiny: bool) -> dict[str, float]:
    """Seconds from an engine, whose weights lie on the device, to its first picture and to its second."""
    part = parts()["sd15"]
    world = World(part.tiny if tiny else part.sizes, dtype, device)
    ours = Infuse(dtype, compile=mode)
    _ = world.parts(), world.controlnet(0), world.adapter(0), world.unet  # they are made
    machine.wait(device)
    begin = time.perf_counter()
    ours.prepare(world)
    ours.run(part.requests, pictures=True)
    first = time.perf_counter() - begin
    second = ours.run(part.requests, pictures=True).whole
    return {"first": first, "second": second}


def show(console: Console, out: Mapping[str, Any]) -> None:
    for name, case in out["cases"].items():
        table = Table("", "s", "TFLOP/s", "warm-up s", title=f"{name}: {case['what']}", title_justify="left")
        for who, one in case["contenders"].items():
            if one["seconds"]:
                table.add_row(who, spread(one["seconds"], 3), f"{one['tflops']:.1f}", f"{one['warmup'] or 0:.1f}")
            else:
                table.add_row(who, "failed", "", str(one["error"]).splitlines()[0][:70])
        console.print(table)
        for pair, value in case["ratios"].items():
            best = " <- the best peer" if pair.endswith(f"/ {case['best_peer']}") else ""
            console.print(f"  {pair}: {spread(value)}{best}")
    for name, text in out["errors"].items():
        console.print(f"{name}: {text}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16", choices=("float16", "bfloat16", "float32"))
    parser.add_argument("--minutes", type=float, default=5.7)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cases", nargs="+", choices=list(parts()), default=list(parts()))
    parser.add_argument("--contenders", nargs="+", default=[], metavar="PART")
    parser.add_argument("--no-first", action="store_true", help="leave out the first picture after start")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--name", default="gpu")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--plots", type=Path)
    parser.add_argument("--first-picture", metavar="MODE", help="what is run in a process of its own")
    given = parser.parse_args(arguments)
    machine.quiet()
    dtype = getattr(torch, given.dtype)
    if given.first_picture:
        print(json.dumps(first_picture(given.first_picture, given.device, dtype, given.tiny)))
        return 0
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    begin = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - begin:6.0f} s[/dim]  {text}")

    out = run(given.cases, given.device, dtype, given.tiny, given.minutes * 60, given.rounds, given.contenders,
              not given.no_first, say)  # fmt: skip
    show(console, out)
    console.print(str(write(out, given.out, given.name)))
    if given.plots:
        from benchmarks.plots import requests_drawn

        console.print(str(requests_drawn(out, given.plots)))
    return int(not out["cases"])


if __name__ == "__main__":
    raise SystemExit(main())

"""`python -m benchmarks`: infuse beside diffusers on this machine's processor, in about twenty minutes on two cores.

What is measured, and how to read it: docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks import machine, shown
from benchmarks.cases import CASES, COST
from benchmarks.networks import SD15_STEPS, TINY
from benchmarks.run import contenders, whole

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    everything = [*CASES, COST]
    parser.add_argument(
        "--minutes", type=float, default=19.0, help="about how long it may take; rounds are dropped to fit"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns of everybody in a case, at most")
    parser.add_argument("--cases", nargs="+", choices=everything, default=everything)
    parser.add_argument(
        "--contenders", nargs="+", default=[], metavar="PART", help="only these, or those whose name has one of these"
    )
    parser.add_argument("--no-compile", action="store_true", help="leave out what takes minutes to compile")
    parser.add_argument("--no-memory", action="store_true", help="leave out memory, which wants a process for each")
    parser.add_argument("--threads", type=int, help="of torch; without it, torch decides")
    parser.add_argument("--tiny", action="store_true", help="networks of a test: seconds, and no meaning")
    parser.add_argument("--name", default="cpu", help="of the file in the folder of results")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--plots", type=Path, help="a folder for plots as well (docs/images); needs matplotlib")
    parser.add_argument("--list", action="store_true", help="who can be compared")
    given = parser.parse_args(arguments)
    console = Console(highlight=False, width=120 if not sys.stdout.isatty() else None)
    if given.list:
        for c in contenders():
            console.print(f"{c.name}: {c.what}")
        return 0
    if given.threads:
        torch.set_num_threads(given.threads)
    machine.quiet()
    begin = time.perf_counter()

    def say(text: str) -> None:
        console.print(f"[dim]{time.perf_counter() - begin:6.0f} s[/dim]  {text}")

    out = whole(TINY if given.tiny else SD15_STEPS, given.cases, given.contenders, given.minutes * 60, given.rounds,
                not given.no_compile, not given.no_memory, say)  # fmt: skip
    shown.everything(console, out)
    path = write(out, given.out, given.name)
    console.print(f"{path}, after {time.perf_counter() - begin:.0f} s")
    if given.plots:
        from benchmarks.plots import drawn

        for made in drawn(out, given.plots):
            console.print(str(made))
    return int(all(one.get("seconds") is None for case in out["cases"].values() for one in case["contenders"].values()))


def write(out: object, folder: Path, name: str) -> Path:
    """`name`.json in the folder of results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(out, indent=1) + "\n", "utf-8")
    return path


if __name__ == "__main__":
    raise SystemExit(main())

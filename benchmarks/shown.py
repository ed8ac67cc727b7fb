"""Tables of a run, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

QUIET = 0.8
"""Of its threads' time, what a measurement has at least on a machine that does nothing else."""


def spread(found: Mapping[str, Any] | None, digits: int = 2) -> str:
    """Median, and lowest to highest where there are several."""
    if not found:
        return "-"
    text = f"{found['median']:.{digits}f}"
    return text if found["n"] == 1 else f"{text} ({found['low']:.{digits}f} to {found['high']:.{digits}f})"


def case(console: Console, name: str, found: Mapping[str, Any]) -> None:
    """Seconds and shares of everybody, then the ratios."""
    table = Table(title=f"{name}: {found['what']}", title_justify="left")
    table.add_column("")
    for column in (found["unit"], "TFLOP/s", "of the peak", "largest difference", "rms difference"):
        table.add_column(column, justify="right")
    for who, one in found["contenders"].items():
        if one["error"]:
            table.add_row(who, "failed", "", "", "", one["error"].splitlines()[0][:60])
        elif one["seconds"]:
            off = one.get("difference") or {}
            share = f"{one['share']:.0%}" if one.get("share") else "-"
            numbers = [f"{off[k]:.1e}" if k in off else "-" for k in ("largest", "rms")]
            table.add_row(who, spread(one["seconds"], 3), f"{one['tflops']:.3f}", share, *numbers)
    console.print(table)
    if found["ratios"]:
        ratios = Table("infuse / diffusers", "median (lowest to highest of the rounds)")
        for pair, value in found["ratios"].items():
            best = " <- the best peer" if pair.endswith(f"/ {found['best_peer']}") else ""
            ratios.add_row(pair, f"{spread(value)}{best}")
        console.print(ratios)
    had = [one["threads_had"] for one in found["contenders"].values() if one.get("threads_had")]
    if had and min(had) < QUIET:
        console.print(
            f"[bold]Others used the cores: of the threads' time only {min(had):.0%} were had. Measure again when it is quiet.[/bold]"
        )


def cost(console: Console, found: Mapping[str, Any]) -> None:
    """Slopes in parts of a step without conditions."""
    table = Table(title=f"cost: {found['what']}", title_justify="left")
    for column in ("", "bare step", "a ControlNet adds", "R2", "an IP-Adapter adds", "a window that is over"):
        table.add_column(column)
    for who, one in found["contenders"].items():
        if not one["controlnets"]:
            table.add_row(who, "failed", "", "", "", str(one["error"])[:60])
            continue
        c, ip, over = one["controlnets"], one["ip_adapters"], one["window_over"]
        table.add_row(who, f"{c['base']:.3f} s", f"{c['relative']:.3f} of it", f"{c['r2']:.4f}",
                      f"{ip['relative']:.3f} of it" if ip else "-", "-" if over is None else f"{over:+.1%}")  # fmt: skip
    table.add_row("by FLOP", "", f"{found['flop_slope']:.3f}", "", f"{found['flop_slope_ip']:.4f}", "0")
    console.print(table)


def everything(console: Console, out: Mapping[str, Any]) -> None:
    for name, found in out["cases"].items():
        cost(console, found) if name == "cost" else case(console, name, found)
    if memory := out.get("memory"):
        table = Table(
            "memory of a ControlNet and an IP-Adapter",
            "weights GiB",
            "highest GiB",
            "beyond the weights",
            "of it the process itself",
        )
        for who, one in memory.items():
            if "peak" not in one:
                table.add_row(who, "failed", "", "", str(one.get("error"))[-60:])
                continue
            table.add_row(
                who,
                *(
                    f"{v / 2**30:.2f}"
                    for v in (one["weights"], one["peak"], one["peak"] - one["weights"], one["before"])
                ),
            )
        console.print(table)

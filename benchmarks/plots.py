"""Plots of a run, for docs/performance.md: seconds, shares of the machine's peak, cost against the number of conditions.

python -m benchmarks.plots benchmarks/results/cpu.json docs/images
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OURS, THEIRS, LIMIT, INK = "#0b7285", "#adb5bd", "#e8590c", "#343a40"
TITLES = {
    "step": "A guided step, words alone",
    "controlnet_ip": "A step with ControlNet + IP-Adapter",
    "half": "Two ControlNets, half of the steps",
    "mixed": "Four mixed requests",
}

REQUESTS = {
    "sd15": "SD1.5 512, 20 steps, ControlNet + IP-Adapter",
    "sd15_half": "SD1.5, two ControlNets, half of the steps",
    "sd15_mixed": "SD1.5, eight mixed requests",
    "sdxl": "SDXL 1024, 30 steps, ControlNet + IP-Adapter",
}


def drawn(out: Mapping[str, Any], folder: Path, prefix: str = "performance") -> list[Path]:
    """`prefix`_steps.png, _peak.png and _cost.png, of the cases that were run."""
    plt = pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    cases = {n: c for n, c in out["cases"].items() if n in TITLES and any(ran(one) for one in c["contenders"].values())}
    made = []
    if cases:
        made += [saved(plt, bars(plt, out, cases), folder / f"{prefix}_steps.png")]
        made += [saved(plt, shares(plt, out, cases), folder / f"{prefix}_peak.png")]
    grown = out["cases"].get("cost")
    if grown and any(c["controlnets"] for c in grown["contenders"].values()):
        made += [saved(plt, growth(plt, out, grown), folder / f"{prefix}_cost.png")]
    return made


def pyplot() -> Any:
    """matplotlib without a screen. ImportError says what to install."""
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install '.[bench]'") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
                         "axes.titleweight": "bold", "axes.titlelocation": "left"})  # fmt: skip
    return plt


def saved(plt: Any, figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return path


def ran(one: Mapping[str, Any]) -> bool:
    return bool(one.get("seconds")) and not one.get("error")


def called(name: str) -> str:
    """Short enough for an axis."""
    return name.replace("bfloat16", "bf16").replace("float32", "fp32").replace("float16", "fp16").replace("channels_last", "ch.-last").replace(
        "compile freeze", "compiled + frozen")  # fmt: skip


def colour(out: Mapping[str, Any], name: str) -> str:
    return OURS if out["contenders"].get(name, {}).get("side", name.split()[0]) == "infuse" else THEIRS


def below(out: Mapping[str, Any]) -> str:
    """Where the figures are from."""
    m = out["machine"]
    what = m.get("gpu") or f"{m['processor']}, {m['threads']} threads"
    size = f", {out['pixels']} x {out['pixels']}" if "pixels" in out else ""
    return f"{out['networks']} networks of random weights{size}; {what}; torch {m['torch']}, diffusers {m['diffusers']}"


def bars(plt: Any, out: Mapping[str, Any], cases: Mapping[str, Any]) -> Any:
    """Seconds of everybody, the fastest first; whiskers are the rounds."""
    heights = [sum(map(ran, c["contenders"].values())) for c in cases.values()]
    bar, gap = 0.34, 0.8  # inches
    high = bar * sum(heights)
    rows = {"height_ratios": heights, "hspace": gap * len(cases) / high}
    figure, axes = plt.subplots(len(cases), 1, figsize=(8.4, high + gap * len(cases)), squeeze=False, gridspec_kw=rows)
    for ax, (name, case) in zip(axes[:, 0], cases.items(), strict=True):
        who = sorted((n for n, one in case["contenders"].items() if ran(one)), key=lambda n: -case["contenders"][n]["seconds"]["median"])  # fmt: skip
        took = [case["contenders"][n]["seconds"] for n in who]
        middle = [t["median"] for t in took]
        whiskers = [[t["median"] - t["low"] for t in took], [t["high"] - t["median"] for t in took]]
        ax.barh([called(n) for n in who], middle, color=[colour(out, n) for n in who], height=0.72)
        ax.errorbar(middle, range(len(who)), xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1, capsize=2)
        for i, t in enumerate(took):
            ax.annotate(
                number(t["median"]), (t["high"], i), xytext=(5, 0), textcoords="offset points", va="center", color=INK
            )
        ax.set_xlim(0, max(t["high"] for t in took) * 1.12)
        ax.set_title(case.get("title") or TITLES[name], fontsize=11)
        ax.set_xlabel(
            case.get("axis") or ("seconds, all four" if case["unit"] == "s" else "seconds a step"), fontsize=9
        )
        ax.tick_params(axis="y", length=0)
    axes[-1, 0].annotate(below(out), (0, 0), xytext=(0, -44), textcoords="offset points", xycoords="axes fraction",
                         fontsize=7.5, color=INK, annotation_clip=False)  # fmt: skip
    return figure


def number(x: float) -> str:
    return f"{x:.2f}" if x >= 0.1 else f"{x:.3g}"


def shares(plt: Any, out: Mapping[str, Any], cases: Mapping[str, Any]) -> Any:
    """What is reached, beside what the library's best product of matrices reaches on the same machine."""
    case = cases.get("controlnet_ip") or next(iter(cases.values()))
    who = sorted(
        (n for n, one in case["contenders"].items() if ran(one)), key=lambda n: case["contenders"][n]["tflops"]
    )
    rates = [case["contenders"][n]["tflops"] for n in who]
    peaks = [out["peaks"].get(out["contenders"][n]["dtype"], 0.0) / 1e12 for n in who]
    figure, ax = plt.subplots(figsize=(8.4, 0.9 + 0.42 * len(who)))
    ax.barh([called(n) for n in who], peaks, color="none", edgecolor=LIMIT, height=0.72, linewidth=1.1,
            label="large matrix product in the same dtype, measured here")  # fmt: skip
    ax.barh([called(n) for n in who], rates, color=[colour(out, n) for n in who], height=0.72)
    for i, (rate, peak) in enumerate(zip(rates, peaks, strict=True)):
        share = f" = {rate / peak:.0%}" if peak else ""
        ax.annotate(
            f"{rate:.3g}{share}",
            (max(rate, peak), i),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    ax.set_xlim(0, max([*rates, *peaks]) * 1.2)
    ax.set_xlabel("TFLOP/s of the algorithm as it is written", fontsize=9)
    ax.set_title("What is reached of the machine: ControlNet + IP-Adapter", fontsize=11, pad=24)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.005, 0.985), frameon=False, fontsize=9)
    ax.tick_params(axis="y", length=0)
    ax.annotate(below(out), (0, 0), xytext=(0, -44), textcoords="offset points", xycoords="axes fraction", fontsize=7.5,
                color=INK, annotation_clip=False)  # fmt: skip
    return figure


def growth(plt: Any, out: Mapping[str, Any], grown: Mapping[str, Any]) -> Any:
    """A step against the number of ControlNets, in bare steps of the same contender; the line is what the arithmetic says."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(8.4, 3.9), gridspec_kw={"width_ratios": [2.1, 1], "wspace": 0.32}
    )
    marks = {"infuse": "o", "diffusers": "s"}
    most = 0
    for name, one in grown["contenders"].items():
        if not one["controlnets"]:
            continue
        side = out["contenders"][name]["side"]
        bare = one["controlnets"]["base"]
        counted = {int(k.split()[1]): v["low"] / bare for k, v in one["seconds"].items() if k.startswith("controlnets")}
        most, shade = max(most, *counted), colour(out, name) if side == "infuse" else "#868e96"
        told = f"{called(name)}: +{one['controlnets']['relative']:.2f} each, R² {one['controlnets']['r2']:.3f}"
        left.plot(list(counted), list(counted.values()), marks.get(side, "^"), color=shade, label=told, markersize=7)
        left.plot([0, most], [1, 1 + one["controlnets"]["relative"] * most], color=shade, linewidth=1)
    slope = grown["flop_slope"]
    left.plot(
        [0, most], [1, 1 + slope * most], "--", color=LIMIT, linewidth=1.2, label=f"arithmetic: +{slope:.3f} each"
    )
    left.set(xlabel="ControlNets", ylabel="step, in bare steps of the same side", xticks=range(most + 1))
    left.legend(frameon=False, fontsize=8.5, loc="upper left")
    left.set_ylim(0, left.get_ylim()[1] * 1.3)
    left.set_title("Cost against the number of ControlNets", fontsize=11)
    names = [n for n, one in grown["contenders"].items() if one["ip_adapters"]]
    groups = (
        ("an IP-\nAdapter", lambda one: one["ip_adapters"]["relative"]),
        ("ControlNet,\nwindow over", lambda one: one["window_over"] or 0.0),
    )
    wide = 0.8 / max(len(names), 1)
    for i, n in enumerate(names):
        values = [100 * of(grown["contenders"][n]) for _, of in groups]
        at = [g + (i - (len(names) - 1) / 2) * wide for g in range(len(groups))]
        right.bar(at, values, width=wide * 0.92, color=colour(out, n), label=called(n))
        for x, v in zip(at, values, strict=True):
            right.annotate(
                f"{v:+.1f}",
                (x, max(v, 0)),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=9,
                color=INK,
            )
    right.axhline(0, color=INK, linewidth=0.8)
    right.set_xticks(range(len(groups)), [g for g, _ in groups])
    right.set_ylabel("% of a bare step")
    right.set_title("And of others", fontsize=11)
    right.margins(y=0.15)
    figure.text(0.0, -0.06, below(out), fontsize=7.5, color=INK, va="top")
    return figure


def requests_drawn(out: Mapping[str, Any], folder: Path, prefix: str = "performance") -> Path | None:
    """`prefix`_gpu.png: whole requests of `benchmarks.gpu`."""
    cases = {n: c for n, c in out["cases"].items() if any(map(ran, c["contenders"].values()))}
    if not cases:
        return None
    plt = pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    sides = {n: one for c in cases.values() for n, one in c["contenders"].items()}
    told = {**out, "contenders": sides, "networks": "full-size"}
    figure = bars(
        plt, told, {n: {**c, "title": REQUESTS.get(n, n), "axis": "seconds, whole requests"} for n, c in cases.items()}
    )
    return saved(plt, figure, folder / f"{prefix}_gpu.png")


def load_drawn(out: Mapping[str, Any], folder: Path, prefix: str = "performance") -> Path | None:
    """`prefix`_load.png: which share of requests is good at which rate."""
    servers = {n: s for n, s in out["servers"].items() if s["rates"]}
    if not servers:
        return None
    plt = pyplot()
    folder.mkdir(parents=True, exist_ok=True)
    figure, ax = plt.subplots(figsize=(8.4, 3.9))
    for name, server in servers.items():
        side = name.split()[0]
        points = sorted((p["rate"], 100 * p["good"]) for p in server["rates"].values())
        told = f"{called(name)}: 90 % are good up to {number(server['served'])} a second"
        ax.plot(
            *zip(*points, strict=True),
            "o-" if side == "infuse" else "s-",
            color=OURS if side == "infuse" else "#868e96",
            label=told,
        )
    ax.axhline(90, color=LIMIT, linewidth=1, linestyle="--")
    ax.axvline(out["capacity"], color=INK, linewidth=0.8, linestyle=":")
    ax.annotate(
        "the queue of pipelines is busy all the time",
        (out["capacity"], 2),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8.5,
        color=INK,
    )
    ax.set(xlabel="requests that come in a second", ylabel="% done in time", ylim=(0, 108))
    ax.set_title(f"Mixed requests, in time within {out['slo']:g} x what each takes alone", fontsize=11, pad=14)
    ax.legend(frameon=False, fontsize=9, loc="center left")
    ax.annotate(below({**out, "pixels": {"SDXL": 1024}.get(out["networks"], 512)}), (0, 0), xytext=(0, -44), textcoords="offset points",
                xycoords="axes fraction", fontsize=7.5, color=INK, annotation_clip=False)  # fmt: skip
    return saved(plt, figure, folder / f"{prefix}_load.png")


def main(arguments: Sequence[str]) -> None:
    out = json.loads(Path(arguments[0]).read_text("utf-8"))
    if "servers" in out:
        print(load_drawn(out, Path(arguments[1])))
        return
    if "dtype" in out:
        print(requests_drawn(out, Path(arguments[1])))
        return
    for path in drawn(out, Path(arguments[1]), *arguments[2:3]):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])

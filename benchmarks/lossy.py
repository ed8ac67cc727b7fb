"""How far each lossy option takes a picture from the exact one, and what it saves: `python -m benchmarks.lossy [--recipes 8]`.

On the embedded base, with a ControlNet and an IP-Adapter in every second recipe: every option beside nothing left out, in turns.
Time is seconds of the processor of one thread, encoding and decoding included, so that others' work on the machine hardly counts.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

import infuse
from infuse.engine.engine import Engine
from infuse.engine.result import Result
from infuse.lossy import Lossy
from infuse.recipe import Recipe
from infuse.tabletop.stage import drawn
from infuse.tabletop.world import Room, Scene, Thing

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "deep_cache: 2": {"deep_cache": 2},
    "deep_cache: 3": {"deep_cache": 3},
    "deep_cache: 5": {"deep_cache": 5},
    "controlnet_every: 2": {"controlnet_every": 2},
    "controlnet_every: 4": {"controlnet_every": 4},
    "merge_tokens: 0.25": {"merge_tokens": 0.25},
    "merge_tokens: 0.5": {"merge_tokens": 0.5},
}
COLOURS = ("red", "blue", "green", "purple", "yellow", "cyan", "orange")
SHAPES = ("cube", "sphere", "cone", "cylinder")


def recipe(i: int, steps: int, size: int) -> Recipe:
    """The i-th: words alone, or words, edges and a picture to look like."""
    thing, other = (Thing(SHAPES[(i + j) % 4], COLOURS[(i + 3 * j) % 7], "large", 1.2 * j - 0.6, 0.1) for j in (0, 1))
    scene = drawn(Scene((thing, other), Room("grey", "beige", "left")), size)
    edges = Image.fromarray(np.repeat(scene.edges[..., None], 3, axis=-1))
    beside: Any = (
        {"kind": "controlnet", "model": "edges", "image": edges},
        {"kind": "ip_adapter", "model": "ip-adapter", "image": Image.fromarray(scene.rgb), "weight": 0.6},
    )
    words = f"a large {thing.colour} {thing.shape} and a large {other.colour} {other.shape}"
    return Recipe(prompt=words, seed=i, steps=steps, width=size, height=size, conditions=beside if i % 2 else ())


def compared(engine: Engine, recipes: Sequence[Recipe]) -> tuple[dict[str, Any], list[list[Image.Image]]]:
    """{option: time (a part of the exact run's), rms (of latents, a part of theirs), psnr (dB, of 8 bits)}; and all pictures."""
    found: dict[str, dict[str, list[float]]] = {n: {"time": [], "rms": [], "psnr": []} for n in OPTIONS}
    pictures = []
    for asked in recipes:
        exact, seconds = timed(engine, asked)
        shown = [exact.images[0]]
        for name, option in OPTIONS.items():
            shown.append(exact.images[0])
            if "controlnet_every" in option and not asked.conditions:
                continue
            result, took = timed(engine, asked.model_copy(update={"lossy": Lossy(**option)}))
            shown[-1] = result.images[0]
            difference = result.latents - exact.latents
            noise = np.mean((np.asarray(result.images[0], float) - np.asarray(exact.images[0], float)) ** 2)
            found[name]["time"].append(took / seconds)
            found[name]["rms"].append(float(difference.square().mean().sqrt() / exact.latents.square().mean().sqrt()))
            found[name]["psnr"].append(10 * math.log10(255**2 / max(float(noise), 1e-9)))
        pictures.append(shown)
    told = {n: {"time": median(f["time"]), "rms": mean(f["rms"]), "psnr": mean(f["psnr"]), "worst_psnr": min(f["psnr"])}
            for n, f in found.items()}  # fmt: skip
    return told, pictures


def timed(engine: Engine, asked: Recipe) -> tuple[Result, float]:
    begin = time.process_time()
    with warnings.catch_warnings():  # what they change is what is measured
        warnings.simplefilter("ignore")
        result = engine.run(asked)
    return result, time.process_time() - begin


def sheet(pictures: Sequence[Sequence[Image.Image]], names: Sequence[str]) -> Image.Image:
    """A column for each option, a row for each recipe."""
    side = pictures[0][0].width
    out = Image.new("RGB", (side * len(names), side * len(pictures) + 16), "white")
    for x, name in enumerate(names):
        ImageDraw.Draw(out).text((x * side + 3, 2), name, "black")
        for y, row in enumerate(pictures):
            out.paste(row[x], (x * side, 16 + y * side))
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/lossy.json"))
    said = parser.parse_args(argv)
    torch.set_num_threads(1)
    engine = infuse.load(cache=1)
    engine.run(recipe(1, 2, said.size))  # loads
    told, pictures = compared(engine, [recipe(i, said.steps, said.size) for i in range(said.recipes)])
    print(f"{'option':22}{'time':>7}{'rms':>8}{'PSNR':>8}{'worst':>8}")
    for name, f in told.items():
        print(f"{name:22}{f['time']:7.2f}{f['rms']:8.3f}{f['psnr']:8.1f}{f['worst_psnr']:8.1f}")
    said.out.parent.mkdir(parents=True, exist_ok=True)
    said.out.write_text(json.dumps(told, indent=1), "utf-8")
    sheet(pictures, ["exact", *OPTIONS]).save(said.out.with_suffix(".png"))


if __name__ == "__main__":
    main()

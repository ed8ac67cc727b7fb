"""What a crowd asks, and what for: an engine with everything in it, and recipes by chance, none of which contradicts itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

import tiny
from infuse import (
    BrushNet,
    ControlNet,
    DepthVideo,
    Film,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    Motion,
    PowerPaint,
    Recipe,
    SingleImage,
    SketchVideo,
    StyleImage,
    Text,
)
from infuse.encoders.ip_adapter import Adapter, Plain
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore

SOLVERS = (
    "DDIM", "DDPM", "PNDM", "LMS Karras", "Euler", "Euler a", "Heun", "DPM2 Karras", "DPM2 a", "DPM++ 2M Karras", "DPM++ 2M SDE",
    "DPM++ 3M SDE", "DEIS", "UniPC", "SA-Solver", "LCM", "TCD",
)  # fmt: skip
SECOND_ORDER = ("Heun", "DPM2 Karras", "DPM2 a")
SIZES = ((16, 16), (16, 16), (16, 16), (24, 16), (16, 32))
SIDE, FRAMES = 16, 6
"""Of clips: pixels a side, and frames of the longest; the network's own are four."""


@cache
def parts() -> tuple[dict[str, Any], dict[str, Any]]:
    """(bases, modules) in float64: a picture base, one that is shown its hole in nine channels, one of clips."""
    double = torch.float64
    clips = tiny.videocomposer(double).base
    bases = {"tiny": tiny.base("sd1", dtype=double).base, "nine": tiny.base("sd1", 9, double).base, "clips": clips}
    torch.manual_seed(9)
    widths = [w for _, w in clips.network.spec.cross_layers]
    modules = {
        "canny": tiny.controlnet("sd1", 7),
        "depth": tiny.controlnet("sd1", 8),
        "shuffle": tiny.controlnet("sd1", 6),
        "face": tiny.adapter("sd1", "plain", 9),
        "style": tiny.adapter("sd1", "plus", 10),
        "moving face": tiny.randomized(Adapter("plain", Plain(32, 4, 32), len(widths), widths, 32), 9),
        "brush": tiny.brushnet(attention=False, seed=32),
        "paint": tiny.brushnet(generation="v2", seed=33),
    }
    modules["shuffle"].register_to_config(global_pool_conditions=True)
    for module in (*modules.values(), modules["paint"].tasks.model):
        tiny.cast(module, double)
    return bases, modules


def engine(**options: Any) -> Engine:
    """A fresh one, with a fresh store of the same things."""
    store = ModelStore(dtype=torch.float64, device="cpu")
    for shelf in parts():
        for name, thing in shelf.items():
            store.add(name, thing)
    return Engine("tiny", store=store, **options)


def calls() -> int:
    """Network calls since the process began, all bases together."""
    return sum(base.network.calls for base in parts()[0].values())


@dataclass
class Draw:
    """Recipes by chance, none of which contradicts itself. The same dice draw the same ones."""

    dice: random.Random
    steps: tuple[int, ...] = (2, 3, 4)
    counts: tuple[int, ...] = (1, 1, 1, 2, 3)

    def one(self, *choices: Any) -> Any:
        return self.dice.choice(choices)

    def maybe(self, chance: float, value: Any, otherwise: Any = None) -> Any:
        return value if self.dice.random() < chance else otherwise

    def recipe(self, seed: int) -> Recipe:
        common = {
            "seed": seed, "prompt": self.words(), "negative_prompt": self.maybe(0.3, "dull, grey", ""),
            "guidance": self.one(1.0, 3.0, 4.0, 7.5, {0: 6.0, 0.5: 1.0}, {0: 2.0, 1: 5.0}),
            "guidance_rescale": self.maybe(0.1, 0.7, 0.0),
        }  # fmt: skip
        return Recipe(**common, **(self.clip() if self.maybe(0.12, True) else self.still()))

    def still(self) -> dict[str, Any]:
        """A picture, with up to three kinds of conditions: one start at most, and holes of one kind."""
        model, size = self.maybe(0.06, "nine", "tiny"), self.one(*SIZES)
        kinds = [
            "text",
            "controlnet",
            "ip",
            self.one("img2img", "holes", "brush", "paint") if model == "tiny" else "hole",
        ]
        chosen = self.dice.sample(kinds, self.one(0, 1, 1, 2, 2, 3))
        said = [c for kind in chosen for c in getattr(self, kind)(size)]
        self.dice.shuffle(said)
        solver = self.one(*SOLVERS)
        return {
            "model": model, "width": size[0], "height": size[1], "scheduler": solver,
            "steps": 2 if solver in SECOND_ORDER else self.one(*self.steps),
            "count": self.one(*self.counts), "conditions": tuple(said),
        }  # fmt: skip

    def clip(self) -> dict[str, Any]:
        """A clip of one window or two, with up to three conditions."""
        size, film = (SIDE, SIDE), footage(self.dice.randrange(4))
        along = self.maybe(0.3, {"frames": {0: 1.0, 1: 0.2}}, {})
        every: tuple[Callable[[], Any], ...] = (
            lambda: MaskedVideo(film=film, mask=box(size, 0.5, 1), strength=self.one(1.0, 0.7), **along),
            lambda: DepthVideo(film=film, **along, **self.voice(size)),
            lambda: SketchVideo(film=film, **self.voice(size)),
            lambda: SingleImage(image=self.picture(), **along),
            lambda: Motion(drawn=[{"from": [0.2, 0.3], "to": [0.9, self.one(0.2, 0.6)]}], weight=self.loudness()),
            lambda: StyleImage(image=self.picture(), weight=self.loudness()),
            lambda: IPAdapter(model="moving face", image=self.picture(), **self.voice(size)),
            lambda: self.text(size)[0],
        )  # fmt: skip
        return {
            "model": "clips", "width": SIDE, "height": SIDE, "frames": self.one(3, 4, 4, FRAMES),
            "scheduler": self.one("DDIM", "Euler", "Euler a", "UniPC"), "steps": self.one(*self.steps), "count": self.one(1, 1, 1, 2),
            "conditions": tuple(make() for make in self.dice.sample(every, self.one(0, 1, 2, 3))),
        }  # fmt: skip

    def text(self, size: tuple[int, int]) -> list[Any]:
        voice = self.voice(size)
        negative = "" if voice.get("applies_to", "both") != "both" else self.maybe(0.3, "dull", "")
        return [Text(prompt=self.words(), negative_prompt=negative, **voice)]

    def controlnet(self, size: tuple[int, int]) -> list[Any]:
        sites = self.maybe(0.2, tuple(self.dice.uniform(0.3, 1.2) for _ in range(parts()[0]["tiny"].spec.sites)))
        how = {"mode": self.one("balanced", "balanced", "prompt", "control", "guess"), "sites": sites}
        return [
            ControlNet(model=m, image=self.picture(size), annotator=self.maybe(0.2, "canny", "none"), **how, **self.voice(size))
            for m in self.dice.sample(("canny", "depth", "shuffle"), self.one(1, 1, 2))
        ]  # fmt: skip

    def ip(self, size: tuple[int, int]) -> list[Any]:
        images = tuple(self.picture() for _ in range(self.one(1, 1, 2, 3)))
        return [IPAdapter(model=self.one("face", "style"), image=images, **self.voice(size))]

    def img2img(self, size: tuple[int, int]) -> list[Any]:
        return [Img2Img(image=self.picture(size), strength=self.one(0.5, 0.7, 1.0))]

    def holes(self, size: tuple[int, int]) -> list[Any]:
        """One or two, of which one may start from the picture."""
        both = self.pierced(size)
        more = [{"strength": self.one(1.0, 1.0, 0.7)}, {}]
        return [Inpaint(**m, **f, weight=self.one(1, 1, 0.5, {0: 1.0, 0.5: 0.0})) for m, f in zip(more, both, strict=False)]  # fmt: skip

    def hole(self, size: tuple[int, int]) -> list[Any]:
        return [
            Inpaint(**self.pierced(size)[0], strength=self.one(1.0, 0.7), weight=self.one(1, 0.6, {0: 1.0, 1: 0.3}))
        ]

    def brush(self, size: tuple[int, int]) -> list[Any]:
        how = {"model": "brush", "weight": self.loudness(), "mode": self.one("balanced", "guess")}
        return [BrushNet(**f, **how) for f in self.pierced(size)]

    def paint(self, size: tuple[int, int]) -> list[Any]:
        how = {"model": "paint", "weight": self.loudness()}
        return [PowerPaint(task=self.one("text", "shape", "removal"), **f, **how) for f in self.pierced(size)]

    def pierced(self, size: tuple[int, int]) -> list[dict[str, Any]]:
        """A picture with one hole or two."""
        common = {"image": self.picture(size), "paste": self.maybe(0.3, False, True)}
        return [{"mask": box(size, *at), **common} for at in ((0.1, 0.4), (0.55, 0.9))[: self.one(1, 2)]]

    def voice(self, size: tuple[int, int]) -> dict[str, Any]:
        when = self.one({}, {}, {"start": 0.3}, {"end": 0.5}, {"start": 0.2, "end": 0.8})
        where = self.maybe(0.3, {"mask": box(size, self.one(0, 0.25), self.one(0.6, 1))}, {})
        side = self.maybe(0.1, {"applies_to": self.one("prompt", "negative")}, {})
        return {"weight": self.loudness(), **when, **where, **side}

    def loudness(self) -> Any:
        return self.one(1.0, 1.0, 0.6, 1.3, {0: 1.2, 1: 0.2}, {0: 0.0, 0.5: 1.0})

    def words(self) -> str:
        subject = self.one("a red cube", "a ball", "two cats, a lamp", "a face", "")
        return self.maybe(0.15, f"{subject} and many words " * 30, subject)

    def picture(self, size: tuple[int, int] = (24, 24)) -> np.ndarray:
        return noise(self.dice.randrange(4), size)


@cache
def noise(seed: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


@cache
def box(size: tuple[int, int], left: float, right: float) -> np.ndarray:
    """A mask: an upright strip is white."""
    mask = np.zeros(size[::-1], np.uint8)
    mask[2:, round(left * size[0]) : round(right * size[0])] = 255
    return mask


@cache
def footage(seed: int) -> Film:
    return Film.of(np.random.default_rng(seed).integers(0, 256, (FRAMES, SIDE, SIDE, 3), dtype=np.uint8))

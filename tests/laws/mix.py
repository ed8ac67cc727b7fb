"""Six recipes that differ in everything a recipe can differ in: what the laws are tried on."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import tiny
from infuse import ControlNet, Img2Img, Inpaint, IPAdapter, Recipe, Text
from infuse.engine.engine import Engine

SIDE = 16


def picture(seed: int, size: int = 32) -> np.ndarray:
    """(size size 3) uint8 noise."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def half(size: int = 32) -> np.ndarray:
    """A mask: the right half is white."""
    mask = np.zeros((size, size), np.uint8)
    mask[:, size // 2 :] = 255
    return mask


def recipes() -> list[Recipe]:
    """Different schedulers, steps, sizes, windows, adapters, guidance."""
    canny, depth = (
        ControlNet(model="canny", image=picture(1), weight=0.8, end=0.5),
        ControlNet(model="depth", image=picture(2), weight=1.2),
    )
    face = IPAdapter(model="face", image=picture(3), weight=0.6)
    style = IPAdapter(model="style", image=(picture(4), picture(5)), weight={0: 1.2, 1: 0.2}, mask=half(SIDE))
    wide = IPAdapter(model="face", image=picture(3), weight=1.3, start=0.3)
    common = {"model": "tiny", "width": SIDE, "height": SIDE}
    return [
        Recipe(prompt="a red cube", scheduler="Euler", steps=8, **common),
        Recipe(prompt="a face", scheduler="Heun", steps=5, guidance=5, seed=1, conditions=(canny, face), **common),
        Recipe(
            prompt="many words " * 40,
            scheduler="DPM++ 2M Karras",
            steps=7,
            guidance=3,
            seed=2,
            conditions=(depth, ControlNet(model="canny", image=picture(6), weight=0.3, mask=half(SIDE))),
            **common,
        ),
        Recipe(
            prompt="again",
            scheduler="Euler a",
            steps=8,
            seed=3,
            conditions=(Img2Img(image=picture(7), strength=0.6), style, face),
            **common,
        ),
        Recipe(
            prompt="alone",
            scheduler="UniPC",
            steps=7,
            guidance=1,
            seed=4,
            conditions=(
                Inpaint(image=picture(8, SIDE), mask=half(SIDE)),
                Text(prompt="a sphere", weight=0.7, mask=half(SIDE)),
            ),
            **common,
        ),
        Recipe(
            prompt="tall",
            scheduler="DDIM",
            steps=8,
            seed=5,
            guidance={0: 6.0, 0.5: 1.0},
            conditions=(wide,),
            **(common | {"height": 24}),
        ),
    ]


@cache
def parts(family: str, dtype: torch.dtype) -> tuple[tiny.Tiny, dict[str, torch.nn.Module]]:
    modules = {
        "canny": tiny.controlnet(family, 7),
        "depth": tiny.controlnet(family, 8),
        "face": tiny.adapter(family, "plain", 9),
        "style": tiny.adapter(family, "plus", 10),
    }
    return tiny.base(family, dtype=dtype), {name: tiny.cast(module, dtype) for name, module in modules.items()}


def engine(family: str = "sd1", dtype: torch.dtype = torch.float64, **options: object) -> Engine:
    """An engine of its own around modules that are everybody's: whoever changes one puts back what it was."""
    base, modules = parts(family, dtype)
    base.base.network.calls = base.base.network.branch_calls = 0
    return tiny.engine(base, modules, own=False, **options)

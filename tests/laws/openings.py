"""Holes of several kinds in tiny engines: what the laws of inpainting are tried on."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch

import mix
import tiny
from infuse import Inpaint, Recipe
from infuse.engine.engine import Engine

SIDE = 32
IMAGE = mix.picture(3)


def box(left: int, right: int, top: int = 8, bottom: int = 24, size: tuple[int, int] = (SIDE, SIDE)) -> np.ndarray:
    """A mask of this (width, height)."""
    mask = np.zeros(size[::-1], np.uint8)
    mask[top:bottom, left:right] = 255
    return mask


@cache
def base(family: str) -> tiny.Tiny:
    name, channels = {"four": ("sd1", 4), "nine": ("sd1", 9), "sdxl": ("sdxl", 4), "sdxl nine": ("sdxl", 9)}[family]
    return tiny.base(name, channels, torch.float64)


@cache
def modules() -> dict[str, Any]:
    made = {"brush": tiny.brushnet(), "ppt": tiny.brushnet(generation="v2", seed=33),
            "canny": tiny.controlnet("sd1", 7), "face": tiny.adapter("sd1", "plain", 9)}  # fmt: skip
    return {name: tiny.cast(net, torch.float64) for name, net in made.items()}


def engine(family: str = "four", **options: Any) -> Engine:
    return tiny.engine(base(family), modules() if "sdxl" not in family else {}, own=False, **options)


def asked(*conditions: Any, **fields: Any) -> Recipe:
    said = {"prompt": "a cube", "steps": 2, "scheduler": "DDIM", "seed": 5} | fields
    return Recipe(model="tiny", conditions=conditions, **said)


def run(*conditions: Any, family: str = "four", **fields: Any) -> np.ndarray:
    """(height width 3) pixels of the result."""
    return np.asarray(engine(family).run(asked(*conditions, **fields)).image)


def hole(mask: Any = None, image: Any = IMAGE, **fields: Any) -> Inpaint:
    return Inpaint(image=image, mask=mask, **fields)


def spoken(*conditions: Any, family: str = "four", **fields: Any) -> list[Any]:
    """What each condition says, before anything is run."""
    ticket = engine(family).submit(asked(*conditions, **fields))
    said = [s for who, s in ticket.jobs[0].sides.items() if who != "prompt"]
    ticket.cancel()
    return said


def warned(*conditions: Any, family: str = "four", **fields: Any) -> str:
    return "\n".join(engine(family).check(asked(*conditions, **fields)).warnings)


FAMILIES = ("four", "nine", "sdxl", "sdxl nine")

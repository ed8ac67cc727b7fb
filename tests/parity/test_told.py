"""Bases that are told more beside their latents equal the stock pipelines: depth2img, InstructPix2Pix, the x4 upscaler, unCLIP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from some import some

import tiny
from infuse.conditions import Condition, Depth, Edit, Img2Img, UnCLIP, Upscale

from . import told
from .cases import OTHERS, THREE, photo
from .test_parity import TOLERANCE, difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

OLD, EVERY = ("sd1", "sd2"), ("sd1", "sd2", "sdxl")
SMALL = {"width": None, "height": None}
Case = tuple[str, Callable[[], tuple[Condition, ...]], dict[str, Any], tuple[str, ...]]
CASES: Mapping[str, Case] = {
    "depth + img2img": ("depth", lambda: (Depth(image=photo(30)), Img2Img(image=photo(1), strength=0.7)), SMALL, OLD),
    "depth + img2img, another size": ("depth", lambda: (Depth(image=photo(30)), Img2Img(image=photo(1), strength=1.0)), SMALL, OLD),
    "depth + img2img, no guidance": ("depth", lambda: (Img2Img(image=photo(1), strength=0.8), Depth(image=photo(31))), {"guidance": 1.0, "negative_prompt": ""}, OLD),
    "edit": ("edit", lambda: (Edit(image=photo(2)),), SMALL, EVERY),
    "edit, own scale": ("edit", lambda: (Edit(image=photo(2, 48, 24), image_guidance_scale=2.2),), SMALL, EVERY),
    "edit, scale 1": ("edit", lambda: (Edit(image=photo(2), image_guidance_scale=1.0),), SMALL, EVERY),
    "edit, scaled": ("edit", lambda: (Edit(image=photo(2), scaled=True),), SMALL, ("sdxl",)),
    "upscale": ("upscale", lambda: (Upscale(image=photo(3, 12, 8)),), SMALL, OLD),
    "upscale, noise": ("upscale", lambda: (Upscale(image=photo(3, 8, 12), noise_level=200),), {**SMALL, "guidance": 1.0, "negative_prompt": ""}, OLD),
    "unclip": ("unclip", lambda: (UnCLIP(image=photo(4)),), {"width": 32, "height": 32}, OLD),
    "unclip, noise": ("unclip", lambda: (UnCLIP(image=photo(5, 40, 32), noise_level=300),), {"width": 48, "height": 32}, OLD),
    "unclip, no guidance": ("unclip", lambda: (UnCLIP(image=photo(4), noise_level=999),), {"width": 32, "height": 32, "guidance": 1.0, "negative_prompt": ""}, OLD),
}  # fmt: skip
QUICK = [("edit", "sd1", "Euler a")]
RUNS = [(name, family, s) for name, case in CASES.items() for family in case[3] for s in THREE]
FEWER = [(name, "sd1", s) for name in ("depth + img2img", "edit", "upscale", "unclip") for s in OTHERS]


def compared(name: str, family: str, scheduler: str) -> float:
    kind, conditions, fields, _ = CASES[name]
    own, recipe = told.base(kind, family), told.asked(*conditions(), **fields, scheduler=scheduler)
    return difference(tiny.engine(own).run(recipe).latents, told.latents(own, recipe))


@pytest.mark.parametrize(("name", "family", "scheduler"), some([*RUNS, *FEWER], quick=QUICK))
def test_same_latents_as_the_stock_pipeline(name: str, family: str, scheduler: str) -> None:
    found = compared(name, family, scheduler)
    print(f"{found:.1e}")  # pytest -rP shows it
    assert found < TOLERANCE

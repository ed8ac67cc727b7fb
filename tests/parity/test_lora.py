"""Whole runs with LoRAs equal the stock pipelines: four layouts, two at once, block by block, beside ControlNet and IP-Adapter.

Where diffusers is wrong (it gives all attentions of a kohya file one alpha), a stock pipeline with the right weights is the oracle.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import lora_files
import numpy as np
import pytest
import torch
from lora_files import Low, State
from some import some
from torch import Tensor, nn

import tiny
from infuse import ControlNet, Img2Img, IPAdapter, Lora, Recipe

from . import stock
from .cases import photo
from .test_parity import TOLERANCE, difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

FAMILIES = ("sd1", "sd2", "sdxl")
LAYOUTS = ("kohya", "kohya, original names", "peft", "middle-aged", "oldest")
SCHEDULERS = ("DDIM", "Euler a", "DPM++ 2M Karras")


@cache
def base(family: str) -> tiny.Tiny:
    return tiny.base(family)


@cache
def modules(family: str) -> Mapping[str, nn.Module]:
    return {"control0": tiny.controlnet(family, 7), "plain": tiny.adapter(family, "plain", 17)}


@cache
def engine(family: str) -> Any:
    return tiny.engine(base(family), dict(modules(family)))


def texts(made: tiny.Tiny) -> list[Any]:
    return [made.parts[p] for p in ("text_encoder", "text_encoder_2") if p in made.parts]


def lows(made: tiny.Tiny, layout: str = "peft", seed: int = 0, alphas: tuple[float, ...] = (4.0,)) -> list[Low]:
    pattern = lora_files.ATTENDED if layout == "oldest" else lora_files.LINEAR
    if "kohya" in layout:  # resnets, too
        pattern = re.compile(f"{pattern.pattern}|{lora_files.RESNETS.pattern}")
    return lora_files.changes(made.parts["unet"], texts(made), alphas=alphas, pattern=pattern, seed=seed, size=0.1)


def written(made: tiny.Tiny, layout: str, found: list[Low]) -> State:
    if "kohya" in layout:
        names = lora_files.originals(made.parts["unet"]) if "original" in layout else None
        return lora_files.kohya(found, made.family == "sdxl", names)
    return {"peft": lora_files.peft, "middle-aged": lora_files.middle_aged, "oldest": lora_files.oldest}[layout](found)


def file(folder: Path, family: str, layout: str = "peft", seed: int = 0) -> str:
    made = base(family)
    alphas = (2.0,) if "kohya" in layout else (4.0,)
    state = written(made, layout, lows(made, layout, seed, alphas))
    return str(lora_files.save(folder / f"{family}-{layout[:5]}-{seed}.safetensors", state))


def recipe(*conditions: Any, **fields: Any) -> Recipe:
    plain = {
        "prompt": "a red cube on a table",
        "negative_prompt": "blurry",
        "width": 32,
        "height": 32,
        "steps": 4,
        "guidance": 5.0,
        "seed": 11,
    }
    return Recipe(model="tiny", conditions=conditions, **{**plain, "scheduler": "DDIM", **fields})  # fmt: skip


def plainly(asked: Recipe) -> Recipe:
    return asked.model_copy(update={"conditions": tuple(c for c in asked.conditions if c.kind != "lora")})


def compared(family: str, asked: Recipe) -> float:
    ours = engine(family).run(asked).latents
    theirs = stock.latents(base(family), asked, modules(family))
    assert difference(engine(family).run(plainly(asked)).latents, ours) > 50 * TOLERANCE, "nothing was changed"
    found = difference(ours, theirs)
    print(f"{found:.1e}")  # pytest -rP shows it
    return found


CASES = [(f, x) for f in FAMILIES for x in LAYOUTS if f == "sdxl" or "original" not in x]
"""diffusers knows original names for SDXL alone."""


@pytest.mark.slow
@pytest.mark.parametrize(("family", "layout"), some(CASES, quick=[("sd2", "peft"), ("sdxl", "kohya, original names")]))
def test_a_layout_paints_what_it_paints_in_diffusers(family: str, layout: str, tmp_path: Path) -> None:
    number = CASES.index((family, layout))
    asked = recipe(
        Lora(model=file(tmp_path, family, layout), weight=0.8), scheduler=SCHEDULERS[number % len(SCHEDULERS)]
    )
    assert compared(family, asked) < TOLERANCE


BESIDE: Mapping[str, tuple[Any, ...]] = {
    "alone": (),
    "ControlNet": (ControlNet(model="control0", image=photo(10), weight=0.8, end=0.7),),
    "IP-Adapter": (IPAdapter(model="plain", image=photo(20), weight=0.7),),
    "both and a start": (
        ControlNet(model="control0", image=photo(10), weight=0.8), IPAdapter(model="plain", image=photo(20), weight=0.7),
        Img2Img(image=photo(1), strength=0.8),
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "beside"),
    some(
        [(f, b) for f in FAMILIES for b in BESIDE],
        quick=[("sdxl", "IP-Adapter")],
    ),
)
def test_two_at_once_with_weights(family: str, beside: str, tmp_path: Path) -> None:
    one = Lora(model=file(tmp_path, family, "kohya"), weight=0.7)
    two = Lora(model=file(tmp_path, family, "peft", 5), weight=-0.4, text_weight=0.5)
    size = {"width": None, "height": None} if "start" in beside else {}
    assert compared(family, recipe(one, two, *BESIDE[beside], **size)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, quick=["sd1"]))
def test_block_by_block(family: str, tmp_path: Path) -> None:
    numbers = tuple(0.1 * i - 0.5 for i in range(26))
    one = Lora(model=file(tmp_path, family, "peft"), weight=0.9, blocks=numbers)
    two = Lora(model=file(tmp_path, family, "middle-aged", 5), weight=0.5)
    assert compared(family, recipe(one, two)) < TOLERANCE


def with_deltas(made: tiny.Tiny, found: list[Low], weight: float) -> tiny.Tiny:
    """The stock parts with these in their weights, by the formula: W + w alpha / rank B A."""
    parts = {k: copy.deepcopy(v) if k in stock.WRITTEN else v for k, v in made.parts.items()}
    for low in found:
        named = dict(parts[low.part].named_modules())
        layer = named.get(low.path) or named[low.path.removeprefix("text_model.")]
        layer.weight.data += weight * low.delta.reshape(layer.weight.shape)
    return replace(made, parts=parts)


@pytest.mark.slow
@pytest.mark.parametrize("family", some(FAMILIES, quick=["sd1"]))
def test_every_module_keeps_its_alpha(family: str, tmp_path: Path) -> None:
    """Where stock diffusers paints something else: weights by formula are the oracle."""
    made = base(family)
    found = lows(made, "kohya", 3, (4.0, 1.0, 0.5, 8.0))
    path = lora_files.save(tmp_path / "mixed.safetensors", written(made, "kohya", found))
    asked = recipe(Lora(model=str(path), weight=0.6))
    ours = engine(family).run(asked).latents
    right = stock.latents(with_deltas(made, found, 0.6), plainly(asked), modules(family))
    assert difference(ours, right) < TOLERANCE
    assert difference(stock.latents(made, asked, modules(family)), right) > 10 * TOLERANCE, "diffusers is right now"


@pytest.mark.slow
def test_decoded_pictures_are_the_same(tmp_path: Path) -> None:
    made = base("sd1")
    asked = recipe(Lora(model=file(tmp_path, "sd1", "kohya"), weight=0.8))
    theirs: Tensor = stock.latents(made, asked, {})
    with torch.no_grad():
        decoded = made.parts["vae"].decode(theirs / made.parts["vae"].config.scaling_factor, return_dict=False)[0]
    pixels = ((decoded / 2 + 0.5).clamp(0, 1)[0] * 255).round().permute(1, 2, 0)
    mine = torch.tensor(np.asarray(engine("sd1").run(asked).images[0]).astype(float))
    assert (mine - pixels).abs().max() <= 1

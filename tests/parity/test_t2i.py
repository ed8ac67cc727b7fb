"""T2I-Adapters equal the stock pipelines of diffusers, alone and two at once: same seed, same latents, in float32."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.adapter import MultiAdapter
from diffusers.models.adapter import T2IAdapter as Stock
from some import some
from torch import Tensor

import tiny
from infuse.conditions import T2IAdapter
from infuse.engine.engine import Engine
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.recipe import Recipe

from .cases import THREE, photo
from .stock import scheduler

TOLERANCE = 1e-4
SHAPES: dict[str, tuple[str, list[int], int]] = {
    "sd1 full": ("full_adapter", [32, 64], 2),
    "sd1 light": ("light_adapter", [64], 2),
    "sdxl": ("full_adapter_xl", [32, 64, 64, 64], 4),
}
"""Kind, channels, and how many pixels are folded into one: SDXL's first feature enters after the first halving."""


def stock(kind: str, seed: int) -> Stock:
    """A random adapter of diffusers' own making."""
    made, channels, fold = SHAPES[kind]
    torch.manual_seed(seed)
    return tiny.randomized(Stock(3, channels, 2, fold, made), seed)  # type: ignore[return-value]


def wide() -> UNet2DConditionModel:
    """SDXL's blocks, the first of which has no attention."""
    config = dict(tiny.unet("sdxl").config) | {
        "block_out_channels": (32, 64, 64),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (4, 8, 8),
    }
    torch.manual_seed(0)
    return tiny.randomized(UNet2DConditionModel.from_config(config), 1)  # type: ignore[return-value]


def even() -> UNet2DConditionModel:
    """SD 1.x of one width: a light adapter's last two levels have the same."""
    config = dict(tiny.unet("sd1").config) | {"block_out_channels": (64, 64)}
    torch.manual_seed(0)
    return tiny.randomized(UNet2DConditionModel.from_config(config), 1)  # type: ignore[return-value]


@cache
def base(kind: str) -> tiny.Tiny:
    family = kind.partition(" ")[0]
    found = tiny.base(family)
    if kind == "sd1 full":
        return found
    unet = wide() if family == "sdxl" else even()
    spec = NetworkSpec.from_unet_config(family, unet.config, vae_factor=2, family=family)
    ours = replace(found.base, network=Network(UNet2DConditionModel.from_config(unet.config), spec))
    ours.network.unet.load_state_dict(unet.state_dict())
    ours.network.unet.eval().requires_grad_(False)
    return tiny.Tiny(family, found.parts | {"unet": unet}, ours)


@cache
def adapters(kind: str) -> dict[str, Stock]:
    return {"first": stock(kind, 3), "second": stock(kind, 4)}


@cache
def engine(kind: str) -> Engine:
    return tiny.engine(base(kind), dict(adapters(kind)))


def theirs(kind: str, asked: Recipe) -> Tensor:
    """The stock pipeline's latents."""
    own, xl, said = base(kind), kind == "sdxl", asked.conditions
    made = [adapters(kind)[c.model] for c in said]
    parts = {k: v for k, v in own.parts.items() if k not in ("image_encoder", "feature_extractor")}
    name = "StableDiffusionXLAdapterPipeline" if xl else "StableDiffusionAdapterPipeline"
    adapter = made[0] if len(made) == 1 else MultiAdapter(made)
    extra: dict[str, Any] = {}
    if not xl:
        extra = {
            "feature_extractor": own.parts["feature_extractor"],
            "safety_checker": None,
            "requires_safety_checker": False,
        }
    pipe = getattr(diffusers, name)(**parts, adapter=adapter, scheduler=scheduler(own, asked), **extra)
    pipe.set_progress_bar_config(disable=True)
    images, scales = [c.image.image for c in said], [c.weight for c in said]
    factor = {"adapter_conditioning_factor": said[0].end} if xl else {}
    return pipe(
        asked.prompt, height=asked.height, width=asked.width, image=images if len(made) > 1 else images[0],
        adapter_conditioning_scale=scales if len(made) > 1 else scales[0], num_inference_steps=asked.steps,
        guidance_scale=asked.guidance, negative_prompt=asked.negative_prompt or None, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(asked.seed), **factor,
    ).images  # fmt: skip


CASES: dict[str, tuple[str, tuple[T2IAdapter, ...]]] = {
    "full": ("sd1 full", (T2IAdapter(model="first", image=photo(5), weight=0.8),)),
    "light": ("sd1 light", (T2IAdapter(model="first", image=photo(5)),)),
    "two": ("sd1 full", (T2IAdapter(model="first", image=photo(5), weight=0.7), T2IAdapter(model="second", image=photo(6), weight=0.4))),
    "a hint of another size": ("sd1 full", (T2IAdapter(model="first", image=photo(5, 50, 40), resample="smooth"),)),
    "sdxl": ("sdxl", (T2IAdapter(model="first", image=photo(5), weight=0.9),)),
    "sdxl, two": ("sdxl", (T2IAdapter(model="first", image=photo(5), weight=0.7), T2IAdapter(model="second", image=photo(6), weight=0.4))),
    "sdxl, until half": ("sdxl", (T2IAdapter(model="first", image=photo(5), end=0.5),)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize(
    ("case", "scheduler_name"),
    some([(c, s) for c in CASES for s in THREE], quick=[("two", "DPM++ 2M Karras")]),
)
def test_latents(case: str, scheduler_name: str) -> None:
    kind, conditions = CASES[case]
    asked = Recipe(model="tiny", prompt="a red cube on a table", width=32, height=32, steps=5, guidance=6.0, seed=11,
                   scheduler=scheduler_name, conditions=conditions)  # fmt: skip
    ours, stocked = engine(kind).run(asked).latents, theirs(kind, asked)
    assert ours.shape == stocked.shape and torch.isfinite(stocked).all()
    difference = float((ours - stocked).abs().max() / stocked.abs().max())
    print(f"{difference:.1e}")
    assert difference < TOLERANCE
    silent = engine(kind).run(asked.model_copy(update={"conditions": ()})).latents
    assert (silent - stocked).abs().max() / stocked.abs().max() > 1e-2, "the adapter changes nothing here"

"""Bases whose latents are an eighth of a picture's side."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel

import tiny
from infuse import (
    BrushNet,
    Inpaint,
    PowerPaint,
)
from infuse.engine.engine import Engine
from infuse.network.unet import Network

FACTOR = 8


def eight(one: Any, kind: type = Network) -> Any:
    """A tiny base with a VAE that has 8 pixels to a place of the latent, as all of Stable Diffusion's have."""
    torch.manual_seed(5)
    vae = AutoencoderKL(
        block_out_channels=(8,) * 4, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1, norm_num_groups=4, latent_channels=4, sample_size=64,
    )  # fmt: skip
    base = one.base
    network = kind(base.network.unet, replace(base.network.spec, vae_factor=FACTOR))
    return replace(one, base=replace(base, network=network, vae=tiny.randomized(vae, 5)))


@cache
def canny() -> ControlNetModel:
    """Its hint encoder makes a map as much smaller as that VAE makes a picture."""
    torch.manual_seed(7)
    net = ControlNetModel.from_unet(tiny.unet("sd1"), conditioning_embedding_out_channels=(8, 16, 16, 16))
    return tiny.randomized(net, 7)  # type: ignore[return-value]


@cache
def engine(kind: str) -> Engine:
    base = {"nine": lambda: tiny.base("sd1", 9), "powerpaint": tiny.powerpaint1}.get(kind, lambda: tiny.base("sd1"))()
    modules = {"brush": tiny.brushnet(), "canny": canny(), "face": tiny.adapter("sd1", "plain", 9)}
    return tiny.engine(eight(base), modules)


def condition(kind: str, image: Any, mask: Any) -> Any:
    if kind == "powerpaint":
        return PowerPaint(image=image, mask=mask, task="removal")
    return BrushNet(model="brush", image=image, mask=mask) if kind == "brushnet" else Inpaint(image=image, mask=mask)

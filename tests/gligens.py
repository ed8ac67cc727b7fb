"""A tiny GLIGEN in two forms: a UNet with gated layers inside, as diffusers has it, and what those layers are without it."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.clip_image_project_model import CLIPImageProjection
from torch import Tensor, nn

import tiny
from infuse.network.gligen import Gligen as Network

KINDS = {"text": "gated", "text_image": "gated-text-image"}


@cache
def gated(kind: str) -> Any:
    """The tiny SD 1.x with gated layers."""
    plain = tiny.unet("sd1")
    torch.manual_seed(60)
    net = UNet2DConditionModel(**{**plain.config, "attention_type": KINDS[kind]})
    net.load_state_dict(plain.state_dict(), strict=False)
    net = tiny.randomized(net, 61)
    for name, gate in net.named_parameters():
        if "alpha_" in name:  # wide open: a wrong rule is to be heard
            gate.fill_(1.5)
    return net


@cache
def eye() -> tuple[Any, Any]:
    return tiny.vision(32)


@cache
def projected() -> Any:
    torch.manual_seed(62)
    return CLIPImageProjection(32).eval().requires_grad_(False)


@cache
def adapter(kind: str) -> nn.Module:
    """What those layers are without their UNet."""
    state: dict[str, Tensor] = {
        k: t for k, t in gated(kind).state_dict().items() if "position_net" in k or ".fuser." in k
    }
    layers = {
        k.removesuffix(".fuser.linear.weight"): (t.shape[0], 4)
        for k, t in state.items()
        if k.endswith(".fuser.linear.weight")
    }
    net = Network(kind, 32, 32, layers, image=kind == "text_image")
    if kind == "text_image":
        state |= {f"image_project.{k}": t for k, t in projected().state_dict().items()}
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)

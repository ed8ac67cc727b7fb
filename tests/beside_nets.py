"""Tiny networks of every kind that stands beside a base, and bases with the two layers a block that ControlNet-XS walks beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from diffusers import ControlNetModel, ControlNetXSAdapter, UNet2DConditionModel
from moulds import moulded
from torch import Tensor

import tiny
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.network.union import Union

HINT = (8, 16)
"""Widths of hint encoders that halve once, as the tiny VAE does."""


@moulded
def unet(family: str, in_channels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(60)
    config = {**tiny.unet(family, in_channels).config, "layers_per_block": 2}
    return tiny.randomized(UNet2DConditionModel.from_config(config), 61)  # type: ignore[return-value, arg-type]


def base(family: str, in_channels: int = 4, dtype: torch.dtype = torch.float32) -> tiny.Tiny:
    """Two layers in each block."""
    plain = tiny.base(family, in_channels, dtype)
    net, own = (tiny.cast(unet(family, in_channels), dtype) for _ in range(2))
    spec = NetworkSpec.from_unet_config(
        family, net.config, vae_factor=2, prediction=plain.base.spec.prediction, family=family
    )
    ours = replace(plain.base, network=Network(own, spec))
    return tiny.Tiny(family, plain.parts | {"unet": net}, ours)


def union(family: str = "sdxl", types: int = 8, seed: int = 62, like: Any = None) -> Union:
    """Beside the base `like`; by itself, beside the tiny one of a family."""
    torch.manual_seed(seed)
    config = (like or tiny.unet(family)).config
    keys = ("down_block_types", "block_out_channels", "layers_per_block", "cross_attention_dim", "attention_head_dim",
            "transformer_layers_per_block", "use_linear_projection", "norm_num_groups", "addition_embed_type",
            "projection_class_embeddings_input_dim")  # fmt: skip
    net = Union(
        **{k: config[k] for k in keys}, addition_time_embed_dim=8, conditioning_embedding_out_channels=HINT,
        num_control_type=types, num_trans_channel=32, num_proj_channel=32,
    )  # fmt: skip
    return tiny.randomized(net, seed)  # type: ignore[return-value]


def control(like: Any, seed: int) -> ControlNetModel:
    """A plain ControlNet beside the base `like`."""
    torch.manual_seed(seed)
    return tiny.randomized(ControlNetModel.from_unet(like, conditioning_embedding_out_channels=HINT), seed)  # type: ignore[return-value]


@moulded
def xs(family: str, seed: int = 63, learned: bool = True) -> ControlNetXSAdapter:
    """diffusers' own class, as its users have it in memory."""
    torch.manual_seed(seed)
    net = ControlNetXSAdapter.from_unet(
        unet(family), size_ratio=0.5, learn_time_embedding=learned, time_embedding_mix=0.9,
        conditioning_embedding_out_channels=HINT,
    )  # fmt: skip
    return tiny.randomized(net, seed)  # type: ignore[return-value]


def lora_state(net: Any, base_unet: Any, rank: int = 2, seed: int = 64) -> dict[str, Tensor]:
    """A Control-LoRA file around a ControlNet: low-rank differences to a base, and whole what has one axis or none in the base."""
    g = torch.Generator().manual_seed(seed)
    of_base = base_unet.state_dict()
    out: dict[str, Tensor] = {"lora_controlnet": torch.tensor([1.0])}
    for key, w in net.state_dict().items():
        if key not in of_base or w.ndim == 1:
            out[key] = w
            continue
        stem = key.removesuffix(".weight")
        out[f"{stem}.up"] = torch.randn((w.shape[0], rank, *([1] * (w.ndim - 2))), generator=g) * 0.1
        out[f"{stem}.down"] = torch.randn((rank, *w.shape[1:]), generator=g) * 0.1
    return out

"""Full-size networks without memory: real configs on the meta device, their keys and shapes in any layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from infuse.network.brushnet import BrushNet, config_beside, stored
from infuse.weights.formats import Entry, Header

from . import ldm

SD1: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8, "sample_size": 64}
SD2: dict[str, Any] = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True,
                       "sample_size": 96}  # fmt: skip
SDXL: dict[str, Any] = {
    "cross_attention_dim": 2048, "attention_head_dim": (5, 10, 20), "use_linear_projection": True, "sample_size": 128,
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": (1, 2, 10), "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
UPSCALER: dict[str, Any] = {
    "in_channels": 7, "cross_attention_dim": 1024, "attention_head_dim": 8, "use_linear_projection": True, "sample_size": 128,
    "block_out_channels": (256, 512, 512, 1024), "num_class_embeds": 1000, "only_cross_attention": (True, True, True, False),
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
}  # fmt: skip
REFINER: dict[str, Any] = {
    "cross_attention_dim": 1280, "attention_head_dim": (6, 12, 24, 24), "use_linear_projection": True,
    "block_out_channels": (384, 768, 1536, 1536), "transformer_layers_per_block": 4, "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2560,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}  # fmt: skip
UNCLIP = SD2 | {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2048}
CONFIGS = {
    "sd15": SD1, "sd15-inpaint": SD1 | {"in_channels": 9}, "pix2pix": SD1 | {"in_channels": 8}, "sd21": SD2,
    "sd2-inpaint": SD2 | {"in_channels": 9}, "sd2-depth": SD2 | {"in_channels": 5}, "unclip": UNCLIP, "upscaler": UPSCALER,
    "sdxl": SDXL, "sdxl-inpaint": SDXL | {"in_channels": 9}, "refiner": REFINER,
}  # fmt: skip
VIT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
VIT_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
         "hidden_act": "gelu", "projection_dim": 1280}  # fmt: skip
VAE = {"block_out_channels": (128, 256, 512, 512), "down_block_types": ("DownEncoderBlock2D",) * 4,
       "up_block_types": ("UpDecoderBlock2D",) * 4, "layers_per_block": 2}  # fmt: skip


INITS = {name: lambda tensor, *_, **__: tensor for name in dir(torch.nn.init) if name.endswith("_") and name[0] != "_"}


@contextmanager
def numberless() -> Iterator[None]:
    """Networks made here have no memory, and nobody draws the numbers that are not there: half of the time."""
    with torch.device("meta"), patch.multiple(torch.nn.init, **INITS):
        yield


@cache
def unet(name: str) -> UNet2DConditionModel:
    with numberless():
        return UNet2DConditionModel(**CONFIGS[name])


@cache
def checkpoint(name: str) -> dict[str, torch.Tensor]:
    """Every tensor of the published checkpoint of this form, on the meta device."""
    state = ldm.prefixed("model.diffusion_model.", ldm.ldm_unet(unet(name)))
    state |= ldm.prefixed("first_stage_model.", _common("vae"))
    if name in ("sd15", "sd15-inpaint", "pix2pix"):
        state |= ldm.prefixed("cond_stage_model.transformer.", _common("l"))
    elif "sdxl" in name:
        state |= ldm.prefixed("conditioner.embedders.0.transformer.", _common("l"))
        state |= ldm.prefixed("conditioner.embedders.1.model.", _common("g"))
    elif name == "refiner":
        state |= ldm.prefixed("conditioner.embedders.0.model.", _common("g"))
    else:
        state |= ldm.prefixed("cond_stage_model.model.", _common("h"))
    return state


@cache
def _common(part: str) -> dict[str, torch.Tensor]:
    """What checkpoints have in common."""
    with numberless():
        if part == "vae":
            return ldm.ldm_vae(AutoencoderKL(**VAE))
        if part == "l":
            return ldm.hf_text(CLIPTextModel(CLIPTextConfig(**VIT_L)))
        if part == "g":
            return ldm.open_clip_text(CLIPTextModelWithProjection(CLIPTextConfig(**BIG_G)), spare_layer=False)
        return ldm.open_clip_text(CLIPTextModel(CLIPTextConfig(**VIT_H)), spare_layer=True)


def controlnet(name: str, **more: Any) -> ControlNetModel:
    config = {k: v for k, v in CONFIGS[name].items() if k not in ("up_block_types", "sample_size")}
    with numberless():
        return ControlNetModel(**(config | {"conditioning_embedding_out_channels": (16, 32, 96, 256)} | more))


def brushnet(name: str = "sd15", attention: bool = True) -> dict[str, torch.Tensor]:
    """A BrushNet as it is released: PowerPaint's, or a plain one."""
    return dict(_brushnet(name, attention))


@cache
def _brushnet(name: str, attention: bool) -> dict[str, torch.Tensor]:
    with numberless():
        net = BrushNet(config_beside(unet(name).config, attention))
    return {stored(k): t for k, t in net.state_dict().items()}


def clip() -> dict[str, torch.Tensor]:
    """SD 1.x's text encoder, as it is released."""
    return {k: t for k, t in _common("l").items() if "position_ids" not in k}


def wrapped_clip(vectors: int = 10) -> dict[str, torch.Tensor]:
    """The same with PowerPaint's learned vectors."""
    table, state = "text_model.embeddings.token_embedding", clip()
    learned = {
        f"{table}.trainable_embeddings.P_{x}": torch.empty(vectors, 768, device="meta")
        for x in ("ctxt", "shape", "obj")
    }
    return {k.replace(f"{table}.", f"{table}.wrapped."): t for k, t in state.items()} | learned


def header(state: dict[str, Any], **metadata: str) -> Header:
    """A header with the shapes of these tensors (or plain shapes), as if read from a file of halves."""
    shapes = {k: tuple(getattr(v, "shape", v)) for k, v in state.items()}
    return Header(Path("model.safetensors"), {k: Entry("F16", s) for k, s in shapes.items()}, metadata)


def ip_adapter(context: int, proj: dict[str, tuple[int, ...]], layers: int = 16) -> dict[str, tuple[int, ...]]:
    state = {f"image_proj.{k}": s for k, s in proj.items()}
    for n in range(layers):
        state |= {f"ip_adapter.{2 * n + 1}.to_{p}_ip.weight": (320, context) for p in "kv"}
    return state

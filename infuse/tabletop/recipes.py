"""How each tabletop model is made: sizes, data and training plan in one place. `make tabletop` runs it from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import TRAIN
from infuse.tabletop.world import scene_at
from infuse.training.objectives_diffusion import Captions, Denoise, Drop

SCHEDULE: dict[str, Any] = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.42.1", "num_train_timesteps": 1000, "beta_start": 0.00085,
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False,
    "prediction_type": "v_prediction", "timestep_spacing": "leading",
}
UNET: dict[str, Any] = {
    "sample_size": 16, "block_out_channels": (64, 128, 160), "layers_per_block": 1, "norm_num_groups": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 128, "attention_head_dim": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4, "projection_dim": 128,
    "max_position_embeddings": 77, "hidden_act": "quick_gelu",
}


def caption(index: int, rng: np.random.Generator) -> str:
    """A fresh caption of a training scene."""
    return describe(scene_at(TRAIN, index), rng).text


def new_base(vae: Any, tokenizer: Any) -> Base:
    """An untrained tabletop model in SD 1.x layout around a trained VAE."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **ids, **TEXT))
    unet = UNet2DConditionModel(**UNET)
    spec = NetworkSpec.from_unet_config("tabletop", unet.config, prediction="v_prediction", family="tabletop")
    return Base("tabletop", Network(unet, spec), vae, TextEncoders([text], [tokenizer]), SCHEDULE)


def latents_of(path: Path, scale: float) -> tuple[Any, int]:
    """Cached posterior means as a function of picks, and their number."""
    cached = np.load(path, mmap_mode="r")

    def picked(picks: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(cached[picks], dtype=np.float32)) * scale

    return picked, len(cached)


def base_objective(base: Base, latents: Path, batch_size: int = 32) -> Denoise:
    """UNet and text encoder together, from nothing."""
    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    learn = {"unet": base.network.unet, "text_encoder": base.texts.models[0]}
    return Denoise(base, picked, count, [Drop(Captions(base, caption, learn=True), 0.1)], learn, batch_size=batch_size)

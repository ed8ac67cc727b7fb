"""How each tabletop model is made: sizes, data and training plan in one place. `make tabletop` runs it from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from infuse.encoders.ip_adapter import Adapter, Resampler
from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders
from infuse.network.attention import install
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import TRAIN, Dataset
from infuse.tabletop.making.data_sources import Edges, states_of
from infuse.tabletop.world import scene_at
from infuse.training.data_sources import Looks
from infuse.training.objectives_diffusion import Captions, Denoise, Drop, freeze

SCHEDULE: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "_diffusers_version": "0.42.1",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "v_prediction",
    "timestep_spacing": "leading",
}
UNET: dict[str, Any] = {
    "sample_size": 16,
    "block_out_channels": (64, 128, 160),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
}
TEXT: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "projection_dim": 128,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
GUIDANCE = 4.0
"""The guidance scale of a recipe that names none: where the judge found most attributes right."""
HINT = (16, 32, 48, 64)
"""Widths of the ControlNet's hint encoder; three halvings take 128 px to the latent's 16."""


def caption(index: int, rng: np.random.Generator) -> str:
    """A fresh caption of a training scene."""
    return describe(scene_at(TRAIN, index), rng).text


VAGUE, NAMELESS = 0.6, ("a picture of", "a render of", "a scene of")
"""Captions of an image prompt's lessons that name nothing, and how they begin: what people write beside a picture that
says it all."""


def vaguely(index: int, rng: np.random.Generator) -> str:
    """A caption of a training scene, or words that would do for any."""
    if rng.random() >= VAGUE:
        return caption(index, rng)
    opening, what = str(rng.choice(NAMELESS)), str(rng.choice(("a table", "solids", "solids on a table", "the table")))
    return f"{opening} {what}" if rng.random() < 0.7 else what


def new_base(vae: Any, tokenizer: Any) -> Base:
    """An untrained tabletop model in SD 1.x layout around a trained VAE."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = CLIPTextModel(CLIPTextConfig(vocab_size=len(tokenizer), **ids, **TEXT))
    text.set_attn_implementation("eager")  # the fused kernel's backward is slow on a CPU
    unet = UNet2DConditionModel(**UNET)
    spec = NetworkSpec.from_unet_config(
        "tabletop", unet.config, prediction="v_prediction", family="tabletop", guidance=GUIDANCE
    )
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


def edges_objective(base: Base, data: Dataset, latents: Path, batch_size: int = 32) -> Denoise:
    """A ControlNet for edge maps beside the frozen base."""
    from diffusers import ControlNetModel

    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    freeze(base)
    branch = ControlNetModel.from_unet(base.network.unet, conditioning_embedding_out_channels=HINT)  # type: ignore[arg-type]
    install(branch)
    conditions = [Drop(Captions(base, caption), 0.3), Drop(Edges(data, branch), 0.0)]
    return Denoise(
        base, picked, min(count, len(data)), conditions, {"controlnet": branch}, batch_size=batch_size, early=1.5
    )


def looks_objective(base: Base, data: Dataset, latents: Path, batch_size: int = 32) -> Denoise:
    """An IP-Adapter (plus) beside the frozen base. Captions often fall silent or name nothing, so that the picture must speak."""
    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    freeze(base)
    spec, width = base.spec, base.image_encoder.config.hidden_size
    widths = [w for _, w in spec.cross_layers]
    adapter = Adapter(
        "plus", Resampler(width, spec.context_width, 16, 2, spec.context_width), len(widths), widths, spec.context_width
    )
    modules = dict(base.network.unet.named_modules())
    with torch.no_grad():  # K and V start as the text's own (IP-Adapter's training code)
        for (path, _), pair in zip(spec.cross_layers, adapter.kv, strict=True):
            for mine, name in zip(pair, ("to_k", "to_v"), strict=True):  # type: ignore[arg-type]
                mine.weight.copy_(getattr(modules[path], name).weight)
    looks = Looks(adapter, *states_of(base, data))
    conditions = [Drop(Captions(base, vaguely), 0.5), Drop(looks, 0.1)]
    return Denoise(
        base, picked, min(count, len(data)), conditions, {"ip_adapter": adapter}, batch_size=batch_size, early=1.5
    )

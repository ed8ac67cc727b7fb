"""Tiny bases that are told more beside their latents, in SD's and SDXL's layout, and what stock pipelines make of the same recipe."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDPMScheduler, UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import StableUnCLIPImageNormalizer
from torch import Tensor, nn

import tiny
from infuse import Recipe
from infuse.conditions import Condition
from infuse.encoders.noise_augmentation import ImageNoise
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network

from . import stock

EYE = 24
"""Projection of the tiny image encoder."""
UNETS: dict[str, dict[str, Any]] = {
    "depth": {"in_channels": 5},
    "edit": {"in_channels": 8},
    "upscale": {"in_channels": 7, "num_class_embeds": 400},
    "unclip": {"class_embed_type": "projection", "projection_class_embeddings_input_dim": 2 * EYE},
}  # fmt: skip


@cache
def normalizer() -> StableUnCLIPImageNormalizer:
    net = StableUnCLIPImageNormalizer(EYE)
    g = torch.Generator().manual_seed(9)
    net.mean.data = torch.randn(1, EYE, generator=g) * 0.2
    net.std.data = torch.rand(1, EYE, generator=g) + 0.5
    return net.requires_grad_(False)


@cache
def upscaling_vae() -> AutoencoderKL:
    """Of factor 4."""
    torch.manual_seed(2)
    net = AutoencoderKL(
        block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1, norm_num_groups=8, latent_channels=4, sample_size=64, scaling_factor=0.08333,
    )  # fmt: skip
    return tiny.randomized(net, 2)  # type: ignore[return-value]


@cache
def base(kind: str, family: str, dtype: torch.dtype = torch.float32) -> tiny.Tiny:
    """The family's tiny model, whose network is told what this kind of condition says."""
    plain = tiny.base(family, dtype=dtype)
    torch.manual_seed(0)
    config = {k: v for k, v in plain.parts["unet"].config.items() if not k.startswith("_")}
    pristine = tiny.cast(tiny.randomized(UNet2DConditionModel(**config | UNETS[kind]), 1), dtype)
    vae = tiny.cast(copy.deepcopy(upscaling_vae()), dtype) if kind == "upscale" else plain.parts["vae"]
    factor = 4 if kind == "upscale" else 2
    spec = NetworkSpec.from_unet_config(
        family, pristine.config, vae_factor=factor, prediction=plain.base.scheduler["prediction_type"], family=family
    )
    noise = ImageNoise(normalizer().mean[0], normalizer().std[0]) if kind == "unclip" else None
    ours = replace(plain.base, network=Network(copy.deepcopy(pristine), spec), vae=vae, image_noise=noise)
    return tiny.Tiny(family, plain.parts | {"unet": pristine, "vae": vae}, ours)


def asked(*conditions: Condition, **fields: Any) -> Recipe:
    plain = {"model": "tiny", "prompt": "a red cube on a table", "steps": 5, "guidance": 6.0, "seed": 11,
             "negative_prompt": "blurry, grey"}  # fmt: skip
    return Recipe(conditions=conditions, **{**plain, **fields})


def latents(own: tiny.Tiny, recipe: Recipe) -> Tensor:
    """(count c h w): what the stock pipeline for its condition makes of the recipe."""
    by_kind = {c.kind: c for c in recipe.conditions}
    parts: dict[str, Any] = {**own.parts, "scheduler": stock.scheduler(own, recipe)}
    xl = own.family == "sdxl"
    safe = {"add_watermarker": False} if xl else {"safety_checker": None, "requires_safety_checker": False}
    call: dict[str, Any] = {
        "prompt": recipe.prompt, "negative_prompt": recipe.negative_prompt or None, "guidance_scale": recipe.guidance,
        "num_inference_steps": recipe.steps, "output_type": "latent", "num_images_per_prompt": recipe.count,
        "generator": torch.Generator("cpu").manual_seed(recipe.seed),
    }  # fmt: skip
    unseen = ("image_encoder", "feature_extractor")
    if "depth" in by_kind:
        name, start, depth = "StableDiffusionDepth2ImgPipeline", by_kind["img2img"], by_kind["depth"]
        parts = {k: p for k, p in parts.items() if k not in unseen} | {
            "depth_estimator": None,
            "feature_extractor": None,
        }
        call |= {"image": start.image.image, "strength": start.strength, "depth_map": grey(depth.image.image)}
        pipe = getattr(diffusers, name)(**parts)
    elif "edit" in by_kind:
        edit = by_kind["edit"]
        name = "StableDiffusionXLInstructPix2PixPipeline" if xl else "StableDiffusionInstructPix2PixPipeline"
        parts = {k: p for k, p in parts.items() if k not in unseen}
        parts |= {"is_cosxl_edit": edit.scaled} if xl else {"feature_extractor": None}
        call |= {"image": edit.image.image, "image_guidance_scale": edit.image_guidance_scale}
        call |= {"width": edit.image.size[0], "height": edit.image.size[1]} if xl else {}
        pipe = getattr(diffusers, name)(**parts, **safe)
    elif "upscale" in by_kind:
        up = by_kind["upscale"]
        low = DDPMScheduler(beta_schedule="scaled_linear", beta_start=1e-4, beta_end=0.02)
        parts = {k: p for k, p in parts.items() if k not in unseen} | {"low_res_scheduler": low}
        call |= {"image": up.image.image, "noise_level": up.noise_level}
        pipe = diffusers.StableDiffusionUpscalePipeline(**parts)
    else:
        vary = by_kind["unclip"]
        parts |= {
            "image_normalizer": copy.deepcopy(normalizer()),
            "image_noising_scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        }
        call |= {
            "image": vary.image[0].image,
            "noise_level": vary.noise_level,
            "width": recipe.width,
            "height": recipe.height,
        }
        pipe = diffusers.StableUnCLIPImg2ImgPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe(**call).images


def grey(image: Any) -> Tensor:
    """A picture as the depth map that diffusers takes, (1 height width)."""
    import numpy as np

    return torch.from_numpy(np.asarray(image.convert("L"), dtype=np.float32) / 255)[None]


@cache
def modules(kind: str, family: str) -> dict[str, nn.Module]:
    """A ControlNet for the base's own factor between pixels and latents, and an IP-Adapter."""
    torch.manual_seed(7)
    widths = (8, 16, 16) if kind == "upscale" else (8, 16)
    branch = ControlNetModel.from_unet(tiny.unet(family), conditioning_embedding_out_channels=widths)
    return {"control0": tiny.randomized(branch, 7), "plain": tiny.adapter(family, "plain", 17)}

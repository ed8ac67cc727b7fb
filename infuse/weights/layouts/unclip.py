"""What an unCLIP model brings besides: an eye, and the mean and spread of what it says. From a folder, or from one file.

Folders are diffusers' StableUnCLIPImg2ImgPipeline (`image_encoder/`, `image_normalizer/`); files are the original's, where the eye is
an OpenAI ViT-L or an OpenCLIP ViT-H under `embedder.`, the numbers under `noise_augmentor.`. Source: Stability-AI/stablediffusion,
configs/stable-diffusion/v2-1-stable-unclip-*-inference.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infuse.notices import note
from infuse.weights.formats import Header, read_keys, read_tensors
from infuse.weights.layouts import ldm_configs, ldm_keys
from infuse.weights.source import Source

if TYPE_CHECKING:
    from infuse.encoders.noise_augmentation import ImageNoise

EYE = "embedder.model.visual."
STATS = "noise_augmentor.data_mean", "noise_augmentor.data_std"
FOLDER = "image_normalizer"
VIT_L = 1024, 768
"""Width and projection of OpenAI's ViT-L, whose activation is quick_gelu; OpenCLIP's eyes have gelu."""


def vision_config(header: Header) -> dict[str, Any] | None:
    """Config of the image encoder inside of a checkpoint; None if there is none."""
    own = header.shapes(EYE)
    names = ldm_keys.open_clip_visual(own)
    shapes = {new: own[old][::-1] if old == "proj" else own[old] for old, new in names.items()}
    if "visual_projection.weight" not in shapes:
        return None
    return ldm_configs.vision(shapes, act=activation(shapes))


def activation(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of an image encoder with these shapes, in transformers' names."""
    projection, width = shapes["visual_projection.weight"]
    return "quick_gelu" if (width, projection) == VIT_L else "gelu"


def load_noise(source: Source, width: int) -> ImageNoise:
    """Mean and spread of the embeddings (width e) of a model's image encoder; 0 and 1 where nobody stored any.

    So it was trained with ViT-H. ViT-L has numbers, which its one file leaves out (they lie in ViT-L-14_stats.th).
    """
    import torch

    from infuse.encoders.noise_augmentation import ImageNoise

    found: dict[str, Any] = {}
    if source.is_folder and FOLDER in source.weights:
        found = {k: t for path in source.weights[FOLDER] for k, t in read_tensors(path).items()}
    elif not source.is_folder and all(k in source.header for k in STATS):
        mean, std = (read_keys(source.header, STATS)[k] for k in STATS)
        found = {"mean": mean, "std": std}
    if not found and width == VIT_L[1]:
        note(f"{source.name}: the mean and spread of its image encoder's embeddings are not in this file, so an unclip condition's noise_level "
             "does not act quite as in the original; at 0 there is no difference. The model's diffusers folder has them.")  # fmt: skip
    return ImageNoise(found.get("mean", torch.zeros(width)), found.get("std", torch.ones(width)))

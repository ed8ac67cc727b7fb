"""What a loaded base model consists of, whatever it was loaded from."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel

from infuse.errors import WeightsError
from infuse.network.spec import NetworkSpec
from infuse.network.stc import Composer
from infuse.weights.source import Source

log = logging.getLogger("infuse.weights")


@dataclass
class BaseParts:
    """A base model, ready to run. `spec` is what conditions check themselves against."""

    source: Source
    unet: UNet2DConditionModel | UNet3DConditionModel
    vae: AutoencoderKL
    text_encoders: list[Any]
    tokenizers: list[Any]
    spec: NetworkSpec
    scheduler_config: dict[str, Any]
    image_encoder: Any | None = None
    feature_extractor: Any | None = None
    force_zeros_for_empty_prompt: bool = False
    """SDXL: an empty negative prompt is a context of zeros, not the encoding of ""."""
    notes: tuple[str, ...] = ()
    tasks: Any | None = None
    """TaskTexts of a PowerPaint 1."""
    composer: Composer | None = None
    """The small networks of a VideoComposer."""
    image_noise: Any | None = None
    """ImageNoise of an unCLIP model."""

    @property
    def digest(self) -> str:
        """sha256 over the weights' content; read on first use."""
        return self.source.digest


@dataclass
class Loading:
    """What every step of one load needs; its letters are about `source.field`."""

    source: Source
    dtype: torch.dtype
    device: torch.device | str
    notes: list[str] = field(default_factory=list)

    def error(self, message: str) -> WeightsError:
        return WeightsError(self.source.field, message)


def vae_dtype(wanted: torch.dtype, force_upcast: bool) -> torch.dtype:
    """SDXL's VAE overflows half precision (its config says `force_upcast`), so there it stays in float32."""
    return torch.float32 if force_upcast and wanted == torch.float16 else wanted

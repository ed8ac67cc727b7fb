"""What a PowerPaint starts from: a base widened to nine channels, and a text encoder with task tokens.

New channels start at zero, and every task token as the word "a".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from infuse.encoders.generations import V1, Generation
from infuse.encoders.kit import Base
from infuse.encoders.tasks import TaskTexts, widened
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network


def inpaint_base(base: Base, name: str) -> Base:
    """The same model with nine input channels; the new ones start at zero (Rombach et al. 2022, inpainting)."""
    from diffusers import UNet2DConditionModel

    narrow: Any = base.network.unet
    config: dict[str, Any] = {k: v for k, v in narrow.config.items() if not k.startswith("_")} | {"in_channels": 9}
    unet: Any = torch.nn.Module.to(UNet2DConditionModel(**config), base.network.device, base.network.dtype)
    state = narrow.state_dict()
    wide = torch.zeros_like(unet.conv_in.weight)
    wide[:, :4] = state["conv_in.weight"]
    unet.load_state_dict(state | {"conv_in.weight": wide})
    return replace(base, name=name, network=Network(unet, nine_channels(base.spec, name)))


def nine_channels(spec: NetworkSpec, name: str) -> NetworkSpec:
    """The spec of the widened network, which has PowerPaint's task tokens."""
    return NetworkSpec.from_unet_config(
        name, {**spec.config, "in_channels": 9}, vae_factor=spec.vae_factor, prediction=spec.prediction, family=spec.family,
        parameters=spec.parameters, guidance=spec.guidance, tasks=V1.name,
    )  # fmt: skip


def task_texts(base: Base, generation: Generation = V1) -> TaskTexts:
    """The base's task encoder if it has one; else a copy of its text encoder whose task tokens all start as "a"."""
    if base.tasks is not None and base.tasks.generation == generation:
        return base.tasks
    tokenizer = base.texts.tokenizers[0]
    a = tokenizer.convert_tokens_to_ids("a</w>")
    return TaskTexts(widened(base.texts.models[0], like=a), tokenizer, generation)

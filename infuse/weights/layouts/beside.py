"""Whatever can stand beside a base under `kind: controlnet`: which loader it needs, its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from infuse.weights.layouts.control_lora import load_control_lora
from infuse.weights.layouts.controlnet import load_controlnet
from infuse.weights.layouts.lllite import load_lllite
from infuse.weights.layouts.union import load_union
from infuse.weights.layouts.xs import load_xs
from infuse.weights.source import Source

LOADERS = {
    "controlnet_union": load_union,
    "controlnet_xs": load_xs,
    "control_lora": load_control_lora,
    "lllite": load_lllite,
}


def load_beside(
    source: Source | str | Path,
    *,
    base: UNet2DConditionModel | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Any:
    """A ControlNet, ControlNet-Union, ControlNet-XS, ControlNet-LLLite or Control-LoRA, in eval mode.

    Raises WeightsError for any other kind and for missing or misshapen tensors, RecipeError for another base than its own.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source), field="conditions.0.model")
    load = LOADERS.get(source.identity.kind)
    if load is None:
        return load_controlnet(source, base=base, dtype=dtype, device=device)
    return load(source, base, dtype, device)

"""Whatever is built for one base and stands beside it: which loader it needs, the condition's kind and its file say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from infuse.network.attention import install
from infuse.weights.layouts import controlnet, powerpaint
from infuse.weights.layouts.control_lora import load_control_lora
from infuse.weights.layouts.gligen import load_gligen
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
        return controlnet.load_controlnet(source, base=base, dtype=dtype, device=device)
    return load(source, base, dtype, device)


def built(kind: str, what: Any, base: Any, dtype: torch.dtype) -> Any:
    """What a condition of this kind (controlnet, brushnet, gligen) names, on the CPU, ready to hear ports. `base`: the UNet.

    Raises as its loader does.
    """
    if kind == "brushnet":
        net: Any = powerpaint.load_brushnet(what, base, dtype, "cpu")
    else:
        net = load_gligen(what, base, dtype) if kind == "gligen" else load_beside(what, base=base, dtype=dtype)
    net.eval().requires_grad_(False)
    if kind == "controlnet" and hasattr(net, "set_attn_processor"):
        install(net)
    return net

"""A ControlNet from any of the files it comes in: a diffusers folder or file, or an original one under any prefix.

Its config is read off the tensors. What tensors cannot tell (heads, how SDXL's vector is divided) is copied from the
base it will steer, since a ControlNet is a copy of its base's encoder (arXiv:2302.05543, section 3).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from infuse.errors import WeightsError
from infuse.notices import note
from infuse.weights.base import load_module
from infuse.weights.build import assemble
from infuse.weights.formats import Header
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.layouts import ldm_configs, ldm_keys
from infuse.weights.layouts.ldm_checkpoint import shapes_of, take
from infuse.weights.source import Source, read_json

FROM_BASE = ("attention_head_dim", "num_attention_heads", "norm_num_groups", "addition_time_embed_dim")


def load_controlnet(
    source: Source | str | Path,
    *,
    base: UNet2DConditionModel | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> ControlNetModel:
    """Load a ControlNet of any public layout.

    `base` is the UNet it will steer: needed for "difference" files (stored minus their base), welcome for all others.
    Raises WeightsError for another kind of file, RecipeError for another family than the base's (both before the
    tensors are read), WeightsError for missing or misshapen tensors.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source), field="conditions.0.model")
    identity, name = source.identity, source.name
    width = _context(base) if base is not None else None
    if identity.kind != "controlnet" or (width and identity.context_width not in (None, width)):
        raise wrong_kind(source.field, identity, "controlnet", name=name, base=width)
    what = f'the ControlNet "{name}"'
    if source.is_folder:
        return load_module(ControlNetModel, source.path, dtype, device, what, source.field)
    tensors = _tensors(source.header, identity, what)
    if identity.variant == "difference":
        _add_base(tensors, base, source)
    config = _config(tensors, identity, base, source)
    return assemble(lambda: made(config), tensors, dtype, device, what, source.field)


def _context(base: UNet2DConditionModel) -> int:
    width = base.config["cross_attention_dim"]
    return width[0] if isinstance(width, list | tuple) else width


def _tensors(header: Header, identity: Identity, what: str) -> dict[str, Tensor]:
    keys = [k.removeprefix(identity.prefix) for k in header if k.startswith(identity.prefix)]
    names = ldm_keys.controlnet(keys) if identity.layout == "ldm" else {k: k for k in keys}
    names = {k: n for k, n in names.items() if k not in ("difference", "global_step")}
    rest = [k for k in keys if k not in names and k != "difference"]
    if rest:
        note(f"{what}: {len(rest)} tensors have no place in a ControlNet and are left out (first: {rest[0]})")
    return take(header, identity.prefix, names, set())


def _add_base(tensors: dict[str, Tensor], base: UNet2DConditionModel | None, source: Source) -> None:
    """W = file + base, for every tensor that the base has too (webui's "difference" files)."""
    if base is None:
        raise WeightsError(source.field, f'"{source.name}" holds only the difference to its base model. Load it together with '
                                         "the base of the recipe.")  # fmt: skip
    for key, weight in base.state_dict().items():
        if key in tensors:
            stored = tensors[key]
            weight = weight.detach().to("cpu", torch.float32)
            if key == "conv_in.weight":
                weight = weight[:, : stored.shape[1]]  # an inpainting base: latents come first
            tensors[key] = stored.float() + weight.reshape(stored.shape)


def _config(
    tensors: dict[str, Tensor], identity: Identity, base: UNet2DConditionModel | None, source: Source
) -> dict[str, Any]:
    beside = read_json(source.path.parent / "config.json", source.field) if identity.layout == "diffusers" else {}
    if beside.get("_class_name") == "ControlNetModel":
        return beside
    return config_of(tensors, base)


def config_of(tensors: dict[str, Tensor], base: UNet2DConditionModel | None) -> dict[str, Any]:
    """Config of the ControlNet with these tensors (diffusers' names), its heads and groups those of the base."""
    text = None
    if base is not None and base.config.get("addition_embed_type") == "text_time":
        text = base.config["projection_class_embeddings_input_dim"] - 6 * base.config["addition_time_embed_dim"]
    config = ldm_configs.controlnet(shapes_of(tensors), pooled=text)
    if base is not None and list(base.config["block_out_channels"]) == config["block_out_channels"]:
        config |= {k: base.config[k] for k in FROM_BASE if base.config.get(k) is not None}
    return config


def made(config: dict[str, Any]) -> ControlNetModel:
    """An untrained ControlNet of this config."""
    net = ControlNetModel.from_config(config)
    assert isinstance(net, ControlNetModel)
    return net

"""A ControlNet-Union from any of its files: a ControlNet, and the small block that tells kinds of maps apart.

Widths and counts are read off the tensors, whatever a config.json beside them says: released ones name other classes.
Source of the names: xinsir6/ControlNetPlus@b484205; files in LDM names as the webui extension reads them.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from infuse.network.union import Union
from infuse.notices import note
from infuse.weights.build import assemble
from infuse.weights.layouts import ldm_keys
from infuse.weights.layouts.controlnet import config_of
from infuse.weights.layouts.stored import stored
from infuse.weights.source import Source, read_json

OWN = ("task_embedding", "transformer_layes.", "spatial_ch_projs.", "control_add_embedding.")
"""What a union has beside a ControlNet; spelled so in all files."""
HEADS = 8
"""Of the block in every release; attention to itself alone does not depend on it."""


def load_union(
    source: Source, base: UNet2DConditionModel | None, dtype: torch.dtype, device: torch.device | str
) -> Union:
    """Raises WeightsError for missing or misshapen tensors."""
    what = f'the ControlNet-Union "{source.name}"'
    tensors = _tensors(source, what)
    config = union_config(tensors, base)
    said = read_json(source.path / "config.json", source.field) if source.is_folder else {}
    if said.get("global_pool_conditions"):
        config["global_pool_conditions"] = True
    return assemble(lambda: _make(config), tensors, dtype, device, what, source.field)


def union_config(tensors: dict[str, Tensor], base: UNet2DConditionModel | None) -> dict[str, Any]:
    """Config of the union with these tensors (diffusers' names)."""
    config = config_of(tensors, base)
    types, width = tensors["task_embedding"].shape
    waves = tensors["control_add_embedding.linear_1.weight"].shape[1] // types
    config.pop("mid_block_type", None)  # this class has one kind of middle only
    config.setdefault("addition_time_embed_dim", waves)
    layers = {k.split(".")[1] for k in tensors if k.startswith("transformer_layes.")}
    return config | {
        "num_control_type": types,
        "num_trans_channel": width,
        "num_trans_head": HEADS if width % HEADS == 0 else 1,
        "num_trans_layer": len(layers),
        "num_proj_channel": tensors["spatial_ch_projs.weight"].shape[0],
    }


def _tensors(source: Source, what: str) -> dict[str, Tensor]:
    prefix = source.identity.prefix
    keys = [k.removeprefix(prefix) for k in source.header if k.startswith(prefix)]
    names = ldm_keys.controlnet(keys) if "input_hint_block.0.weight" in keys else {k: k for k in keys}
    names |= {k: k.replace(".in_proj.", ".in_proj_") for k in keys if k.startswith(OWN)}
    rest = [k for k in keys if k not in names]
    if rest:
        note(f"{what}: {len(rest)} tensors have no place in a ControlNet-Union and are left out (first: {rest[0]})")
    return stored(source, names)


def _make(config: dict[str, Any]) -> Union:
    made = Union.from_config(config)
    assert isinstance(made, Union)
    return made

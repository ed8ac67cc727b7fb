"""A ControlNet-XS adapter: a folder of diffusers, or its file alone. Widths are read off the tensors.

What tensors cannot tell (heads, groups) is its base's, since the adapter walks beside that base; how much of a learned
time embedding counts is in config.json only, and all of it if there is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from infuse.errors import RecipeError
from infuse.network.xs import XS
from infuse.notices import note
from infuse.weights.build import assemble
from infuse.weights.layouts.ldm_checkpoint import shapes_of
from infuse.weights.layouts.stored import stored
from infuse.weights.source import Source, read_json

SAID = (
    "conditioning_channel_order",
    "time_embedding_mix",
    "num_attention_heads",
    "max_norm_num_groups",
    "upcast_attention",
)
"""What only a config.json tells."""


def load_xs(source: Source, base: UNet2DConditionModel | None, dtype: torch.dtype, device: torch.device | str) -> XS:
    """Raises WeightsError for missing or misshapen tensors, RecipeError if the base has other widths than its own."""
    prefix, what = source.identity.prefix, f'the ControlNet-XS "{source.name}"'
    names = spelled(k.removeprefix(prefix) for k in source.header if k.startswith(prefix))
    tensors = stored(source, names)
    folder = source.path if source.is_folder else source.path.parent
    said = read_json(folder / "config.json", source.field)
    said = said if said.get("_class_name") == "ControlNetXSAdapter" else {}
    config = xs_config(shapes_of(tensors), base) | {k: said[k] for k in SAID if k in said}
    beside(source, config, base)
    if "time_embedding_mix" not in said and config["learn_time_embedding"]:
        note(f"{what} has a time embedding of its own, and no config.json says how much of it counts: all of it.")
    return assemble(lambda: _make(config), tensors, dtype, device, what, source.field)


FUSED = (
    ("ctrl_conv_in.", "conv_in."), ("ctrl_time_embedding.", "time_embedding."), (".ctrl_resnets.", ".resnets."),
    (".ctrl_attentions.", ".attentions."), (".ctrl_downsamplers.", ".downsamplers."), (".ctrl_midblock.", ".midblock."),
    ("up_blocks.", "up_connections."),
)  # fmt: skip
"""How diffusers' UNetControlNetXSModel, base and adapter in one, calls the adapter's parts."""


def spelled(keys: Iterable[str]) -> dict[str, str]:
    """Stored key -> the adapter's; of a file that holds the base as well, its part only."""
    keys = list(keys)
    if not any(k.startswith("ctrl_conv_in.") for k in keys):
        return {k: k for k in keys}
    own = [k for k in keys if re.match(r"ctrl_|control", k) or re.search(r"\.(ctrl_|base_to_ctrl)", k)]
    return {k: reduce(lambda name, pair: name.replace(*pair), FUSED, k) for k in own}


def beside(source: Source, config: dict[str, Any], base: UNet2DConditionModel | None) -> None:
    """Raises RecipeError if this is the adapter of another base."""
    if base is None:
        return
    theirs, ours = list(config["base_block_out_channels"]), list(base.config["block_out_channels"])
    if theirs != ours:
        raise RecipeError(source.field, f'"{source.name}" walks beside a base of widths {theirs}, this one has {ours}. Choose a '
                                        "ControlNet-XS that was trained for this base.")  # fmt: skip


def xs_config(shapes: dict[str, tuple[int, ...]], base: UNet2DConditionModel | None) -> dict[str, Any]:
    """Config of the ControlNetXSAdapter with these tensors."""
    blocks = range(1 + max(int(m[1]) for k in shapes if (m := re.match(r"down_blocks\.(\d+)\.", k))))
    hint = "controlnet_cond_embedding"
    steps = 1 + max((int(m[1]) for k in shapes if (m := re.match(rf"{hint}\.blocks\.(\d+)\.", k))), default=-1)
    deep = [_depth(shapes, f"down_blocks.{b}.") for b in blocks]
    context = next((s[1] for k, s in shapes.items() if k.endswith("attn2.to_k.weight")), 1024)
    config: dict[str, Any] = {
        "conditioning_channels": shapes[f"{hint}.conv_in.weight"][1],
        "conditioning_embedding_out_channels": [
            shapes[f"{hint}.conv_in.weight"][0], *(shapes[f"{hint}.blocks.{i}.weight"][0] for i in range(1, steps, 2))
        ],
        "learn_time_embedding": "time_embedding.linear_1.weight" in shapes,
        "block_out_channels": [shapes[f"down_blocks.{b}.resnets.0.conv1.weight"][0] for b in blocks],
        "base_block_out_channels": [shapes[f"down_blocks.{b}.ctrl_to_base.0.weight"][0] for b in blocks],
        "cross_attention_dim": context,
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in deep],
        "transformer_layers_per_block": [d or 1 for d in deep[:-1]] + [_depth(shapes, "mid_block.") or 1],
        "use_linear_projection": any(k.endswith(".proj_in.weight") and len(s) == 2 for k, s in shapes.items()),
        "upcast_attention": False,
    }  # fmt: skip
    heads = [max(1, w // 64) for w in config["base_block_out_channels"]] if context != 768 else 8
    config |= {"num_attention_heads": heads, "max_norm_num_groups": 32}
    if base is not None:
        config["num_attention_heads"] = base.config[
            "attention_head_dim"
        ]  # diffusers' field of this name holds the count
        config["max_norm_num_groups"] = base.config["norm_num_groups"]
    return config


def _depth(shapes: dict[str, tuple[int, ...]], block: str) -> int:
    found = (int(m[1]) for k in shapes if k.startswith(block) and (m := re.search(r"transformer_blocks\.(\d+)\.", k)))
    return 1 + max(found, default=-1)


def _make(config: dict[str, Any]) -> XS:
    made = XS.from_config(config)
    assert isinstance(made, XS)
    return made

"""A Control-LoRA: what a ControlNet has beside its base, and low-rank differences to the base's own encoder.

Its network is made from the base that the recipe uses, whatever that was changed by: W = W_base + up down, nothing
scaled; tensors that are given whole (norms, biases, hint encoder, zero convolutions) replace the base's.
Source: Stability's files as ComfyUI@a125cd8 (comfy/controlnet.py) and the webui extension read them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from infuse.errors import RecipeError, WeightsError
from infuse.notices import note
from infuse.weights.build import assemble
from infuse.weights.layouts import ldm_keys
from infuse.weights.layouts.controlnet import config_of, made
from infuse.weights.layouts.stored import stored
from infuse.weights.source import Source

MARKER, LEFT_OVER = "lora_controlnet", "__"
"""Says what the file is; names with the second are left from quantising it."""
ENCODER = ("conv_in.", "time_embedding.linear_", "add_embedding.", "down_blocks.", "mid_block.")
"""What a ControlNet copies of its base."""
LEAVES = {
    "up": "up", "lora_up.weight": "up", "lora_B.weight": "up", "lora.up.weight": "up",
    "down": "down", "lora_down.weight": "down", "lora_A.weight": "down", "lora.down.weight": "down",
}  # fmt: skip
"""How the two factors of a layer are spelled: Stability's way, kohya's, PEFT's, diffusers'."""


def load_control_lora(
    source: Source, base: UNet2DConditionModel | None, dtype: torch.dtype, device: torch.device | str
) -> ControlNetModel:
    """Raises WeightsError without a base, RecipeError for one whose layers are not those that it differs from."""
    what = f'the Control-LoRA "{source.name}"'
    if base is None:
        raise WeightsError(source.field, f'"{source.name}" holds only the difference to its base model. Load it together with '
                                         "the base of the recipe.")  # fmt: skip
    prefix = source.identity.prefix
    keys = [k.removeprefix(prefix) for k in source.header if k.startswith(prefix)]
    found = stored(source, spelled(keys))
    tensors = merged(found, base.state_dict(), source.field, source.name)
    config = config_of(tensors, base)
    rest = [k for k in keys if k not in spelled(keys) and k != MARKER and LEFT_OVER not in k]
    if rest:
        note(f"{what}: {len(rest)} tensors have no place in a ControlNet and are left out (first: {rest[0]})")
    return assemble(lambda: made(config), tensors, dtype, device, what, source.field)


def spelled(keys: Iterable[str]) -> dict[str, str]:
    """Stored key -> diffusers' name of the layer, and `up` or `down` or its own leaf."""
    keys = [k for k in keys if k != MARKER and LEFT_OVER not in k]
    one = {
        k: next((f"{k.removesuffix(end)}{leaf}" for end, leaf in LEAVES.items() if k.endswith(f".{end}")), k)
        for k in keys
    }
    if not any(k.startswith("input_hint_block.") for k in keys):
        return one
    names = ldm_keys.controlnet(one.values())
    return {k: names[n] for k, n in one.items() if n in names}


def merged(found: Mapping[str, Tensor], base: Mapping[str, Tensor], field: str, name: str) -> dict[str, Tensor]:
    """The ControlNet's tensors: the base's encoder in float32, changed by the file's."""
    out = {k: w.detach().to("cpu", torch.float32) for k, w in base.items() if k.startswith(ENCODER)}
    out |= {k: t for k, t in found.items() if k.rpartition(".")[2] not in ("up", "down")}
    for key, up in found.items():
        layer, _, leaf = key.rpartition(".")
        if leaf != "up":
            continue
        down, weight = found.get(f"{layer}.down"), out.get(f"{layer}.weight")
        if down is None:
            raise WeightsError(field, f'"{name}" is incomplete: {layer} has one factor of two. Download it again.')
        if weight is not None and layer == "conv_in":
            weight = weight[:, : down.shape[1]]  # an inpainting base: latents come first
        if weight is None or (up.shape[0], *down.shape[1:]) != tuple(weight.shape[: down.ndim]):
            raise other_base(field, name, layer, (up.shape[0], *down.shape[1:]), weight)
        product = up.flatten(1).float() @ down.flatten(1).float()
        out[f"{layer}.weight"] = weight + product.reshape(weight.shape)
    return out


def other_base(field: str, name: str, layer: str, theirs: tuple[int, ...], weight: Tensor | None) -> RecipeError:
    ours = "has no such layer" if weight is None else f"has it of shape {tuple(weight.shape)}"
    return RecipeError(field, f'"{name}" changes {layer} of another base, of shape {theirs}; this recipe\'s base {ours}. Choose a '
                              "Control-LoRA of the base's family, or another base.")  # fmt: skip

"""A folder of components becomes one file in the original layout (LDM for SD 1.x and 2.x, SGM for SDXL).

Whoever reads such a file takes heads, groups and scaling from the family: what a config says otherwise cannot be written,
and is a letter before anything is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import gcd
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from infuse.errors import WeightsError
from infuse.weights.formats import read_tensors
from infuse.weights.layouts import ldm_back, ldm_configs
from infuse.weights.layouts.difference import Difference
from infuse.weights.layouts.powerpaint import tasks_of
from infuse.weights.layouts.wrapped import unwrapped
from infuse.weights.looks.bases import UNET, VAE
from infuse.weights.outline import UNET_DEFAULTS, whole
from infuse.weights.overrides import SCALE, renamed
from infuse.weights.source import Source, read_json
from infuse.weights.to_folder import PIPELINES, Tell

HEARD = (23, 1024)
"""Layers and width of SD 2.x's text encoder without the layer that nobody hears, as it is known to readers."""


def to_checkpoint(source: Source, out: Path, dtype: torch.dtype | None = None, tell: Tell = lambda _: None) -> int:
    """Write a folder's UNet, VAE and text encoders into one new .safetensors file; returns the number of tensors.

    dtype: of all floats; None keeps each tensor's own. Raises WeightsError for what that layout cannot say.
    """
    kin = _checked(source)
    state: dict[str, Tensor] = {}
    for part, put in (("unet", _unet), ("vae", _vae)):
        found = put(_read(source, part))
        tell(f"{part}: {len(found)} tensors")
        state |= found
    texts = ["text_encoder", "text_encoder_2"] if kin == "sdxl" else ["text_encoder"]
    for i, part in enumerate(texts):
        found = _text(_read(source, part), kin, i, source)
        tell(f"{part}: {len(found)} tensors")
        state |= found
    state |= {k: torch.zeros(0) for k in _markers(source)}
    state = {k: t.to(dtype if dtype and t.is_floating_point() else t.dtype).contiguous() for k, t in state.items()}
    tell(f"writing {out.name.removesuffix('.part').lstrip('.')}")
    save_file(state, out, metadata={"format": "pt"})
    return len(state)


def _checked(source: Source) -> str:
    """sd1, sd2 or sdxl. Raises WeightsError for what is no base, or one that the layout cannot say."""
    identity, field = source.identity, source.field

    def refuse(why: str) -> WeightsError:
        return WeightsError(field, f'"{source.name}" {why}. Keep it as a folder.')

    if isinstance(source, Difference) or source.lent:
        raise refuse("holds only what is added to another model")
    if source.component("unet") is None:
        raise WeightsError(field, f'"{source.name}" is {identity.described}, and no pipeline with unet/, vae/ and text_encoder/.')  # fmt: skip
    whole(source, identity)
    second = source.component("text_encoder_2") is not None
    if (identity.variant, second) not in PIPELINES or tasks_of(source):
        raise refuse(f"is {identity.described}, which has no one layout")
    config = {**UNET_DEFAULTS, **source.config("unet")}
    if config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        raise refuse(f"has a {config['_class_name']}")
    kin = "sdxl" if second else "sd2" if config.get("use_linear_projection") else "sd1"
    widths = list(config["block_out_channels"])
    ours = [max(1, w // 64) for w in widths] if kin != "sd1" else [8] * len(widths)
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    theirs = list(heads) if isinstance(heads, list | tuple) else [heads] * len(widths)
    if theirs != ours:
        raise refuse(f"has {theirs} attention heads, where readers of the original layout take {ours}")
    groups = 32 if all(w % 32 == 0 for w in widths) else gcd(*widths)
    if config.get("norm_num_groups", 32) != groups:
        raise refuse(f"has {config['norm_num_groups']} groups in its norms, where readers of the original layout take {groups}")  # fmt: skip
    scaling = source.config("vae").get("scaling_factor", SCALE)
    if abs(scaling - ldm_configs.SCALING[kin]) > 1e-6:
        raise refuse(f"has a VAE with a scaling factor of {scaling:g}, where readers of the original layout take {ldm_configs.SCALING[kin]:g}")  # fmt: skip
    return kin


def _markers(source: Source) -> list[str]:
    """Empty tensors by which readers know what no tensor says."""
    folder = source.component("scheduler")
    said = read_json(folder / "scheduler_config.json", source.field) if folder else {}
    marks = {"v_pred": said.get("prediction_type") == "v_prediction", "ztsnr": bool(said.get("rescale_betas_zero_snr"))}
    return [name for name, on in marks.items() if on]


def _read(source: Source, part: str) -> dict[str, Tensor]:
    return {unwrapped(k): t for path in source.weights[part] for k, t in read_tensors(path).items()}


def _unet(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {UNET + key: tensors[name] for name, key in ldm_back.unet(tensors).items()}


def _vae(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The attention's projections are 1x1 convolutions there."""
    tensors = {renamed(k): t for k, t in tensors.items()}
    names = ldm_back.vae(tensors)
    grown = re.compile(r"\.attn_1\.(q|k|v|proj_out)\.weight$")
    return {
        VAE + key: tensors[name][:, :, None, None] if grown.search(key) and tensors[name].ndim == 2 else tensors[name]
        for name, key in names.items()
    }


def _text(tensors: Mapping[str, Tensor], kin: str, which: int, source: Source) -> dict[str, Tensor]:
    """SD 1.x and SDXL's first in transformers' names; SD 2.x and SDXL's second in OpenCLIP's."""
    own = {
        k if k.startswith(("text_model.", "text_projection.")) else f"text_model.{k}": t
        for k, t in tensors.items() if not k.endswith("position_ids")
    }  # fmt: skip
    if kin == "sd1" or (kin == "sdxl" and not which):
        prefix = "conditioner.embedders.0.transformer." if kin == "sdxl" else "cond_stage_model.transformer."
        return {prefix + k: t for k, t in own.items() if not k.startswith("text_projection.")}
    if kin == "sd2":
        own.pop("text_projection.weight", None)
        own = _with_spare(own)
    prefix = "conditioner.embedders.1.model." if kin == "sdxl" else "cond_stage_model.model."
    if kin == "sdxl" and "text_projection.weight" not in own:
        raise WeightsError(source.field, f'the second text encoder of "{source.name}" has no projection. Download it again.')  # fmt: skip
    out: dict[str, Tensor] = {}
    for name, key in ldm_back.open_clip(own).items():
        if ".in_proj_" in key:
            out[prefix + key] = torch.cat([own[re.sub(r"self_attn\.[qkv]_proj", f"self_attn.{p}_proj", name)] for p in "qkv"])  # fmt: skip
        else:
            out[prefix + key] = own[name].T if key == "text_projection" else own[name]
    return out


def _with_spare(own: dict[str, Tensor]) -> dict[str, Tensor]:
    """Readers leave out SD 2.x's last layer, but where they know that it is not there: elsewhere one stands in for it."""
    layer = re.compile(r"text_model\.encoder\.layers\.(\d+)\.")
    last = max(int(m[1]) for k in own if (m := layer.match(k)))
    if (last + 1, own["text_model.embeddings.token_embedding.weight"].shape[1]) == HEARD:
        return own
    head = f"text_model.encoder.layers.{last}."
    return own | {k.replace(head, f"text_model.encoder.layers.{last + 1}."): t.clone() for k, t in own.items() if k.startswith(head)}  # fmt: skip

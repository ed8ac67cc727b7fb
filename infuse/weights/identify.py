"""What is this file? Its tensors say so: which marker keys it has and how wide they are. File names are never asked.

`identify` walks a list of kinds from the most to the least specific; the first whose marker key is there answers.
Imports no torch: a check of a recipe reads headers only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from infuse.weights.formats import Header
from infuse.weights.kinds import Identity
from infuse.weights.layouts import video_keys
from infuse.weights.layouts.wrapped import EMA, UNET
from infuse.weights.prediction import predicted

CHANNELS = {4: "", 5: "depth", 7: "upscaler", 8: "pix2pix", 9: "inpaint"}
VAE = "first_stage_model."
LEARNED, TASK_ROWS, VOCABULARY = "trainable_embeddings.", 30, 49408
"""PowerPaint's learned vectors as the releases name them, how many they are, and CLIP's words before them."""


def identify(header: Header, *, prediction: str | None = None) -> Identity:
    """Decide what a file is from its keys and shapes.

    `prediction` overrides what a base model predicts (epsilon, v_prediction), which tensors cannot tell: without it,
    marker keys (`v_pred`), then metadata, then the family's usual answer decide, and a note says which did.
    Never raises: an unrecognised file is an Identity of kind "unknown".
    """
    try:
        found = next((i for look in LOOKS if (i := look(header))), Identity("unknown"))
    except (IndexError, KeyError, ValueError, ZeroDivisionError, TypeError):  # known names, shapes of nothing known
        found = Identity("unknown", notes=("its tensors have the names of a known model, but not the shapes",))
    if found.kind in ("base", "unet"):
        said, evidence, notes = predicted(header, found.family, found.variant, prediction)
        found = replace(found, prediction=said, evidence=evidence, notes=(*found.notes, *notes))
    return found


def _prefix(header: Header, *markers: str) -> str | None:
    """What stands before the first of these markers that any key ends with; None when none is there."""
    for marker in markers:
        if marker in header:
            return ""
        hits = [k[: -len(marker)] for k in header if k.endswith(("." + marker, "/" + marker))]
        if hits:
            return min(hits, key=len)
    return None


def _dim(header: Header, key: str, axis: int) -> int | None:
    entry = header.get(key)
    return entry.shape[axis] if entry is not None and len(entry.shape) > axis else None


def _context(header: Header, prefix: str = "") -> int | None:
    """Input width of any cross-attention key projection; the layouts agree on that name."""
    found = (e for k, e in header.items() if k.startswith(prefix) and k.endswith("attn2.to_k.weight"))
    return next((e.shape[1] for e in found), None)


def _base(header: Header) -> Identity | None:
    ldm = _prefix(header, "input_blocks.0.0.weight")
    if ldm is not None and f"{ldm}out.2.weight" in header and "control" not in ldm:
        layout, prefix, first = "ldm", ldm, f"{ldm}input_blocks.0.0.weight"
    else:
        prefix = _prefix(header, "up_blocks.0.resnets.0.conv1.weight")
        if prefix is None or f"{prefix}time_embedding.linear_1.weight" not in header:
            return None
        layout, first = "diffusers", f"{prefix}conv_in.weight"
    parts = _parts(header)
    context, channels = _context(header, prefix), _dim(header, first, 1)
    unclip = any(k.startswith((f"{prefix}label_emb.0.0.w", f"{prefix}class_embedding.linear_1.w")) for k in header)
    variant = CHANNELS.get(channels or 4, f"{channels} channels")
    vector = f"{prefix}label_emb.0.0.weight", f"{prefix}add_embedding.linear_1.weight"
    if context == 1280 and any(v in header for v in vector):
        variant = "refiner"
    elif context == 1024 and unclip:
        variant = "unclip"
    elif variant == "inpaint" and has_tasks(header):
        variant = "powerpaint"
    notes: list[str] = []
    ema = sum(k.startswith("model_ema.") for k in header)
    if any(EMA in old for old in header.stored.values()):
        notes.append("only the averages (EMA) of its UNet are there; they are used")
    elif ema > 2:  # two are counters that stay behind when the copies are pruned
        notes.append(f"EMA copies are there too ({ema:,} tensors); the plain weights are used")
    if variant == "unclip" and layout == "ldm":
        notes.append("its image encoder is read from the model's diffusers folder only")
    kind = "base" if len(parts) > 1 else "unet"
    return Identity(kind, layout, variant, prefix, context, channels, parts=parts, notes=tuple(notes))


def _video(header: Header) -> Identity | None:
    """A network of clips. Asked before `_base`, which would take it for one of pictures."""
    found = video_keys.identity(header)
    if found is None:
        return None
    parts = _parts(header)
    kind = "base" if len({*parts, "unet"}) > 1 else "unet"
    variant = "videocomposer" if found.kind == "video_composer" else "video"
    return Identity(kind, found.layout, variant, found.prefix, found.context_width, found.in_channels, parts=parts)


PARTS = {
    "unet": (UNET, "unet/"),
    "vae": (f"{VAE}decoder.", "vae/decoder.", "vae.decoder."),
    "text_encoder": ("cond_stage_model.transformer.", "cond_stage_model.model.token_embedding",
                     "conditioner.embedders.0.transformer.", "conditioner.embedders.0.model.", "text_encoder/"),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoder_2/"),
    "image_encoder": ("embedder.model.visual.", "image_encoder/"),
}  # fmt: skip


def _parts(header: Header) -> tuple[str, ...]:
    return tuple(name for name, starts in PARTS.items() if any(k.startswith(starts) for k in header))


def has_tasks(shapes: Mapping[str, Any]) -> bool:
    """Does a text encoder in there have PowerPaint's task tokens? Wrapped (releases), or 30 rows in its table (dev)."""
    tables = [e for k, e in shapes.items() if k.endswith("embeddings.token_embedding.weight")]
    return any(LEARNED in k for k in shapes) or any(e.shape[0] == VOCABULARY + TASK_ROWS for e in tables)


def _brushnet(header: Header) -> Identity | None:
    prefix = _prefix(header, "brushnet_down_blocks.0.weight")
    if prefix is None:
        return None
    context, sites = _context(header, prefix), sum(k.startswith(f"{prefix}brushnet_down_blocks.") for k in header) // 2
    variant = "powerpaint" if context else "plain"
    if variant == "plain" and _dim(header, f"{prefix}brushnet_mid_block.weight", 0) == 1280:
        context = {12: 768, 9: 2048}.get(sites)  # without attention no width tells; there are some for SD 1.x and SDXL
    channels = _dim(header, f"{prefix}conv_in_condition.weight", 1)
    return Identity("brushnet", "diffusers", variant, prefix, context, channels)


def _controlnet(header: Header) -> Identity | None:
    prefix = _prefix(header, "input_hint_block.0.weight")
    if prefix is not None:
        layout, hint, first = "ldm", "input_hint_block.0.weight", "input_blocks.0.0.weight"
        vector, deep = "label_emb.0.0.weight", "input_blocks.8.1.transformer_blocks.9.norm3.weight"
    else:
        prefix = _prefix(header, "controlnet_cond_embedding.conv_in.weight")
        if prefix is None:
            return None
        layout, hint, first = "diffusers", "controlnet_cond_embedding.conv_in.weight", "conv_in.weight"
        vector, deep = "add_embedding.linear_1.weight", "down_blocks.2.attentions.1.transformer_blocks.9.norm3.weight"
    kind = "controlnet"
    if "lora_controlnet" in header:
        kind = "control_lora"
    elif f"{prefix}task_embedding" in header:
        kind = "controlnet_union"
    sdxl = f"{prefix}{vector}" in header
    context, variant = _context(header, prefix) or (2048 if sdxl else None), "full"
    if sdxl and f"{prefix}{deep}" not in header:
        variant = "mid" if _context(header, prefix) else "small"
    if "difference" in header or f"{prefix}difference" in header:
        variant = "difference"
    return Identity(kind, layout, variant, prefix, context, _dim(header, prefix + first, 1), _dim(header, prefix + hint, 1),
                    parts=_parts(header))  # fmt: skip


def _ip_adapter(header: Header) -> Identity | None:
    layers = [k for k in header if k.endswith("to_k_ip.weight")]
    if not layers:
        return None
    context = header[layers[0]].shape[1]
    proj = header.shapes("image_proj.")
    width = tokens = None
    if "proj.weight" in proj:
        variant, (out, width) = "plain", proj["proj.weight"]
        tokens = out // context
    elif "proj.3.weight" in proj:
        variant, width, tokens = "full", proj["proj.0.weight"][1], 257
    elif "perceiver_resampler.proj_in.weight" in proj:
        variant, width = "faceid_plus", proj["perceiver_resampler.proj_in.weight"][1]
        tokens = proj["proj.2.weight"][0] // context
    elif "proj.2.weight" in proj:
        variant, width, tokens = "faceid", proj["proj.0.weight"][1], proj["proj.2.weight"][0] // context
    elif "latents" in proj:
        width, tokens = proj["proj_in.weight"][1], proj["latents"][1]
        variant = "instantid" if width == 512 else "plus"
    else:
        variant = "foreign"
    twins = "v1 and v2 have the same tensors; v2 adds a shortcut that the recipe must ask for"
    notes = (twins,) * (variant == "faceid_plus")
    if any("_lora." in k for k in header):
        notes += ("a LoRA for the attention layers is inside",)
    if any("image_proj_model." in k for k in header.stored.values()):
        notes += ("a checkpoint of its trainer; only the adapter is read",)
    return Identity("ip_adapter", "ip_adapter", variant, "", context, tokens=tokens,
                    encoder_width=width, cross_layers=len(layers), notes=notes)  # fmt: skip


def _t2i(header: Header) -> Identity | None:
    if "style_embedding" in header:
        tokens, context = _dim(header, "style_embedding", 1), _dim(header, "proj", 1)
        return Identity("t2i_style", "original", tokens=tokens, context_width=context)
    prefix = _prefix(header, "body.0.in_conv.weight", "body.0.block1.weight", "body.0.resnets.0.block1.weight")
    if prefix is None:
        return None
    diffusers = any(".resnets." in k for k in header)
    light = f"{prefix}conv_in.weight" not in header
    first = _dim(header, f"{prefix}{'body.0.in_conv' if light else 'conv_in'}.weight", 1) or 0
    sdxl = first in (256, 768)  # pixels are unshuffled by 16 for SDXL, by 8 for SD 1.x
    return Identity("t2i_adapter", "diffusers" if diffusers else "original", "light" if light else "full", prefix,
                    2048 if sdxl else 768, hint_channels=first // (256 if sdxl else 64))  # fmt: skip


def _lora(header: Header) -> Identity | None:
    ends = re.compile(r"(lora_down|lora_A|lora\.down|\.down|hada_w1_b|lokr_w2)(\.\w+)?(\.weight)?$")
    down = [k for k in header if ends.search(k) and re.search(r"lora|hada|lokr", k)]
    if not down:
        return None
    layout = "peft" if any("lora_A" in k for k in header) else "diffusers"
    if any(k.startswith("lora_") for k in header):
        layout = "kohya"
    shapes = [header[k].shape for k in down if "attn2" in k and re.search(r"to_[kv][._]", k)]
    context = next((s[1] for s in shapes if len(s) > 1), None)
    if context is None and any("te2_" in k or k.startswith("text_encoder_2") for k in header):
        context = 2048
    return Identity("lora", layout, context_width=context, rank=min(header[down[0]].shape, default=None))


def _inversion(header: Header) -> Identity | None:
    if "clip_g" in header and "clip_l" in header:
        return Identity("textual_inversion", "original", context_width=2048, tokens=header["clip_l"].shape[0])
    keys = [k for k in header if k == "emb_params" or k.startswith("string_to_param.") or len(header) == 1]
    shape = header[keys[0]].shape if keys else (0, 0, 0)
    if len(shape) not in (1, 2) or shape[-1] not in (768, 1024, 1280):
        return None
    return Identity("textual_inversion", "original", context_width=shape[-1], tokens=1 if len(shape) == 1 else shape[0])


def _component(header: Header) -> Identity | None:
    """A VAE or a CLIP tower on its own, or several of a checkpoint's parts without its UNet."""
    parts = _parts(header)
    if len(parts) > 1:
        return Identity("parts", "diffusers" if any("/" in k for k in header) else "ldm", parts=parts)
    prefix = _prefix(header, "decoder.conv_in.weight")
    if prefix is not None and f"{prefix}encoder.conv_in.weight" in header:
        ldm = any(k.startswith(f"{prefix}decoder.mid.") for k in header)
        return Identity("vae", "ldm" if ldm else "diffusers", prefix=prefix, parts=("vae",))
    for marker, kind, layout in (
        ("vision_model.embeddings.class_embedding", "image_encoder", "diffusers"),
        ("visual.class_embedding", "image_encoder", "open_clip"),
        ("text_model.embeddings.token_embedding.weight", "text_encoder", "diffusers"),
        ("text_model.embeddings.token_embedding.wrapped.weight", "text_encoder", "diffusers"),
        ("token_embedding.weight", "text_encoder", "open_clip"),
    ):
        if (prefix := _prefix(header, marker)) is not None:
            tasks = kind == "text_encoder" and has_tasks(header)
            return Identity(kind, layout, "powerpaint" * tasks, prefix, parts=(kind,))
    return None


MARKERS = (
    ("foreign", ("double_blocks.0.img_attn.norm.key_norm.scale", "joint_blocks.0.context_block.adaLN_modulation.1.bias",
                 "clip_txt_mapper.weight", "transformer_blocks.0.norm1_context.linear.weight", "head.modulation")),
    ("controlnet_xs", ("ctrl_to_base_for_conv_in.weight", "controls_to_base_for_conv_in.weight")),
    ("gligen", ("position_net.null_positive_feature",)),
    ("judge", ("judge.version",)),
)  # fmt: skip


def _marked(header: Header) -> Identity | None:
    """Kinds told by one key each: things that infuse names in a letter, or whose loader lies elsewhere."""
    for kind, markers in MARKERS:
        if (prefix := _prefix(header, *markers)) is not None:
            context = None if kind == "foreign" else _context(header, prefix)
            return Identity(kind, "diffusers", prefix=prefix, context_width=context)
    if any(k.startswith("lllite_unet") for k in header):
        return Identity("lllite", "kohya")
    temporal = any(".motion_modules." in k or "temporal_transformer" in k for k in header)
    if temporal and _prefix(header, "conv_in.weight", "input_blocks.0.0.weight") is None:
        return Identity("motion", "original")
    return None


LOOKS: tuple[Callable[[Header], Identity | None], ...] = (
    _marked, _brushnet, _ip_adapter, _controlnet, _lora, _video, _base, _t2i, _component, _inversion,
)  # fmt: skip
"""Most specific first: a ControlNet 1.0 file holds a whole base model as well."""

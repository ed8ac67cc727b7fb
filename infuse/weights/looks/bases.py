"""Base models: which family by the width of the context, which variant by the first convolution and what is embedded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infuse.weights.kinds import Identity
from infuse.weights.layouts import video_keys
from infuse.weights.layouts.wrapped import EMA, UNET
from infuse.weights.looks.table import Table

CHANNELS = {4: "", 5: "depth", 7: "upscaler", 8: "pix2pix", 9: "inpaint"}
VAE = "first_stage_model."
LEARNED, TASK_ROWS, VOCABULARY = "trainable_embeddings.", 30, 49408
"""PowerPaint's learned vectors as the releases name them, how many they are, and CLIP's words before them."""
PARTS = {
    "unet": (UNET, "unet/"),
    "vae": (f"{VAE}decoder.", "vae/decoder.", "vae.decoder."),
    "text_encoder": ("cond_stage_model.transformer.", "cond_stage_model.model.token_embedding",
                     "conditioner.embedders.0.transformer.", "conditioner.embedders.0.model.", "text_encoder/"),
    "text_encoder_2": ("conditioner.embedders.1.model.", "text_encoder_2/"),
    "image_encoder": ("embedder.model.visual.", "image_encoder/"),
}  # fmt: skip


def parts(table: Table) -> tuple[str, ...]:
    """Components inside of a checkpoint or folder."""
    return tuple(name for name, starts in PARTS.items() if table.starts(starts))


def has_tasks(shapes: Mapping[str, Any]) -> bool:
    """Does a text encoder in there have PowerPaint's task tokens? Wrapped (releases), or 30 rows in its table (dev)."""
    tables = [e for k, e in shapes.items() if k.endswith("embeddings.token_embedding.weight")]
    return any(LEARNED in k for k in shapes) or any(e.shape[0] == VOCABULARY + TASK_ROWS for e in tables)


def video(table: Table) -> Identity | None:
    """A network of clips. Asked before `base`, which would take it for one of pictures."""
    found = video_keys.identity(table.header)
    if found is None:
        return None
    inside = parts(table)
    kind = "base" if len({*inside, "unet"}) > 1 else "unet"
    variant = "videocomposer" if found.kind == "video_composer" else "video"
    return Identity(kind, found.layout, variant, found.prefix, found.context_width, found.in_channels, parts=inside)


def base(table: Table) -> Identity | None:
    """A UNet of Stable Diffusion, alone or with what belongs to it."""
    ldm = table.before("input_blocks.0.0.weight")
    if ldm is not None and f"{ldm}out.2.weight" in table.header and "control" not in ldm:
        layout, prefix, first, last = "ldm", ldm, f"{ldm}input_blocks.0.0.weight", f"{ldm}out.2.weight"
    else:
        prefix = table.before("up_blocks.0.resnets.0.conv1.weight")
        if prefix is None or f"{prefix}time_embedding.linear_1.weight" not in table.header:
            return None
        layout, first, last = "diffusers", f"{prefix}conv_in.weight", f"{prefix}conv_out.weight"
    inside, context = parts(table), table.context(prefix)
    channels, answers = table.dim(first, 1), table.dim(last, 0)
    variant = _variant(table, prefix, channels or 4, answers or 4, context)
    if answers not in (4, 5, None):
        return Identity("unknown", notes=(f"a UNet that answers with {answers} channels, where latents have 4",))
    notes: list[str] = []
    ema = sum(k.startswith("model_ema.") for k in table.header)
    if any(EMA in old for old in table.header.stored.values()):
        notes.append("only the averages (EMA) of its UNet are there; they are used")
    elif ema > 2:  # two are counters that stay behind when the copies are pruned
        notes.append(f"EMA copies are there too ({ema:,} tensors); the plain weights are used")
    if variant == "unclip" and layout == "ldm" and "image_encoder" not in inside:
        notes.append("its image encoder is not in this file; the model's diffusers folder has it")
    kind = "base" if len(inside) > 1 else "unet"
    reads = _vector(table, prefix) if variant == "unclip" else None
    return Identity(
        kind, layout, variant, prefix, context, channels, encoder_width=reads, parts=inside, notes=tuple(notes)
    )


def _variant(table: Table, prefix: str, channels: int, answers: int, context: int | None) -> str:
    """What makes it more, or other, than a model that hears text: extra channels, a vector, a distilled guidance scale."""
    here = table.header
    if (channels, answers) == (8, 5):
        return "latent_upscaler"  # the fifth channel of its answer is dropped (sd-x2-latent-upscaler)
    variant = CHANNELS.get(channels, f"{channels} channels")
    vector = f"{prefix}label_emb.0.0.weight", f"{prefix}add_embedding.linear_1.weight"
    if context == 1280 and any(v in here for v in vector):
        return "refiner"
    if context == 1024 and _vector(table, prefix):
        return "unclip"
    if variant == "inpaint" and has_tasks(here):
        return "powerpaint"
    scale = f"{prefix}time_embed.cond_proj.weight", f"{prefix}time_embedding.cond_proj.weight"
    return "lcm" if variant == "" and any(s in here for s in scale) else variant


def _vector(table: Table, prefix: str) -> int | None:
    """Width of the image embedding that an unCLIP's class vector holds: half of it (the other half is the noise level)."""
    widths = (table.dim(f"{prefix}{k}", 1) for k in ("label_emb.0.0.weight", "class_embedding.linear_1.weight"))
    return next((w // 2 for w in widths if w), None)

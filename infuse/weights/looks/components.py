"""One part of a model on its own: autoencoders large and tiny, the towers of CLIP, what enlarges pixels.

Source of the names: diffusers 0.42.1, transformers 5.23, mlfoundations/open_clip, madebyollin/taesd, xinntao/ESRGAN.
"""

from __future__ import annotations

from infuse.weights.kinds import Identity
from infuse.weights.looks.bases import has_tasks, parts
from infuse.weights.looks.table import Table

LATENTS = {16: "the VAE of SD3 or FLUX.1", 32: "the VAE of FLUX.2"}
"""Channels of a latent -> whose autoencoder has so many, where all else is like Stable Diffusion's."""


def component(table: Table) -> Identity | None:
    """Several of a checkpoint's parts without its UNet, or one of them."""
    inside = parts(table)
    if len(inside) > 1:
        return Identity("parts", "diffusers" if any("/" in k for k in table.header) else "ldm", parts=inside)
    return _vae(table) or _tiny(table) or _tower(table) or _enlarger(table)


def _vae(table: Table) -> Identity | None:
    prefix = table.before("decoder.conv_in.weight")
    if prefix is None:
        return None
    whole = f"{prefix}encoder.conv_in.weight" in table.header
    first = table.shape(f"{prefix}decoder.conv_in.weight")
    channels = first[1]
    if len(first) > 4:
        return Identity("foreign", variant="the VAE of a film model", prefix=prefix)
    if channels != 4:
        return Identity("foreign", variant=LATENTS.get(channels, f"a VAE of {channels}-channel latents"), prefix=prefix)
    ldm = table.starts(f"{prefix}decoder.mid.")
    notes = ("only its decoder is there",) * (not whole)
    if table.starts(f"{prefix}decoder.condition_encoder."):
        notes += ("its decoder also reads a masked picture (asymmetric), which infuse does not give it",)
    return Identity("vae", "ldm" if ldm else "diffusers", "" if whole else "decoder", prefix, in_channels=channels,
                    parts=("vae",), notes=notes)  # fmt: skip


TINY = (
    ("diffusers", "encoder.layers.0.weight", "encoder.layers.1.conv.0.weight", "decoder.layers.0.weight", "decoder.layers.2.conv.0.weight"),
    ("original", "encoder.0.weight", "encoder.1.conv.0.weight", "decoder.1.weight", "decoder.3.conv.0.weight"),
    ("original", "taesd_encoder.0.weight", "taesd_encoder.1.conv.0.weight", "taesd_decoder.1.weight", "taesd_decoder.3.conv.0.weight"),
    ("original", "0.weight", "1.conv.0.weight", "1.weight", "3.conv.0.weight"),
)  # fmt: skip
"""Layout; first and second convolution of the encoder, and of the decoder."""


def _tiny(table: Table) -> Identity | None:
    """A TAESD: both halves in one file, or one in each."""
    for layout, enter, then, leave, after in TINY:
        prefix = next((p for m in (then, after) if (p := table.before(m)) is not None), "")
        reads = table.shape(prefix + enter) if table.under(prefix, enter, then) else ()
        draws = table.shape(prefix + leave) if table.under(prefix, leave, after) else ()
        reads, draws = (s if len(s) == 4 and s[0] == 64 else () for s in (reads, draws))
        if not reads and not draws:
            continue
        channels = draws[1] if draws else _last(table, prefix)
        if channels not in (4, None):
            return Identity("foreign", variant="a TAESD of SD3 or FLUX", prefix=prefix)
        half = "" if reads and draws else "encoder" if reads else "decoder"
        return Identity("taesd", layout, half, prefix, in_channels=channels)
    prefix = table.before("conv8.weight")
    if prefix is not None and table.shape(f"{prefix}conv1.weight") == (8, 4, 7, 7):
        return Identity("taesd", "webui", "approximation", prefix, in_channels=4)
    return None


def _last(table: Table, prefix: str) -> int | None:
    """Channels of the latents that a tiny encoder ends in: its only convolution that narrows."""
    outs = [
        e.shape[0] for k, e in table.header.items() if k.startswith(prefix) and len(e.shape) == 4 and e.shape[0] != 64
    ]
    return outs[-1] if outs else None


def _tower(table: Table) -> Identity | None:
    """A text or an image encoder of CLIP. `encoder_width` is its own: 768 and 1024 ViT-L, 1024 and 1280 ViT-H, 1280 and 1664 bigG."""
    if table.has("concept_embeds"):
        return Identity("safety_checker", "diffusers", prefix=table.before("concept_embeds") or "")
    both = table.before("text_model.embeddings.token_embedding.weight", "positional_embedding") is not None
    for marker, kind, layout in (
        ("vision_model.embeddings.class_embedding", "image_encoder", "diffusers"),
        ("visual.class_embedding", "image_encoder", "open_clip"),
        ("text_model.embeddings.token_embedding.weight", "text_encoder", "diffusers"),
        ("text_model.embeddings.token_embedding.wrapped.weight", "text_encoder", "diffusers"),
        ("embeddings.class_embedding", "image_encoder", "diffusers"),  # transformers 5 has one level less
        ("embeddings.token_embedding.weight", "text_encoder", "diffusers"),
        ("token_embedding.weight", "text_encoder", "open_clip"),
    ):
        if (prefix := table.before(marker)) is not None:
            tasks = kind == "text_encoder" and has_tasks(table.header)
            width = table.dim(prefix + marker, -1) if table.shape(prefix + marker) else None
            notes = ("the text encoder is there, too",) * (kind == "image_encoder" and both)
            return Identity(kind, layout, "powerpaint" * tasks, prefix, encoder_width=width, parts=(kind,), notes=notes)
    return None


def _enlarger(table: Table) -> Identity | None:
    """A network that enlarges pixels, after the picture is made."""
    for name, markers in (
        ("ESRGAN", ("model.1.sub.0.RDB1.conv1.0.weight", "RRDB_trunk.0.RDB1.conv1.weight", "body.0.rdb1.conv1.weight")),
        ("SwinIR, HAT or DAT", ("layers.0.residual_group.blocks.0.attn.relative_position_bias_table",
                                "layers.0.residual_group.blocks.0.norm1.weight", "layers.0.blocks.0.norm1.weight")),
    ):  # fmt: skip
        if (prefix := table.before(*markers)) is not None:
            return Identity("upscaler", variant=name, prefix=prefix)
    return None

"""A base model as what it adds to another one: some tensors whole, and of others two factors of what is added to them.

Told from a LoRA by the whole tensors, from a UNet by most of it being away. Keys begin with the part that they change.
"""

from __future__ import annotations

from infuse.weights.kinds import Identity
from infuse.weights.layouts.lora_names import split
from infuse.weights.looks.table import Table

PARTS = ("unet.", "text_encoder.", "text_encoder_2.")
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"
FIRST = "unet.conv_in.weight"
SKELETON = (
    FIRST,
    "unet.time_embedding.linear_1.weight",
    "unet.mid_block.resnets.0.conv1.weight",
    "unet.conv_out.weight",
)
"""What a UNet that needs no other has whole."""


def difference(table: Table) -> Identity | None:
    """Both kinds of tensors under a UNet's name, or a first convolution of its own and no skeleton."""
    keys = [k for k in table.header if k.startswith(PARTS)]
    if not keys or len(keys) < len(table.header) or table.under("", *SKELETON):
        return None
    factors = [k for k in keys if k.startswith(PARTS[0]) and k.endswith(UP)]
    whole = [k for k in keys if k.startswith(PARTS[0]) and (split(k) or ("", "weight"))[1] == "weight"]
    if not (whole and factors) and FIRST not in keys:
        return None
    ranks = [r for k in keys if k.endswith(DOWN) and (r := table.dim(k, 0))]
    inside = tuple(p[:-1] for p in PARTS if any(k.startswith(p) for k in keys))
    return Identity(
        "difference", "diffusers", context_width=context(table), in_channels=table.dim(FIRST, 1), rank=max(ranks, default=None),
        modules=sum(k.endswith(UP) for k in keys), parts=inside,
    )  # fmt: skip


def context(table: Table) -> int | None:
    """Width of the text that its base hears, where a key projection of a cross-attention is changed."""
    ends = f".attn2.to_k{DOWN}", ".attn2.to_k.weight"
    reads = (table.shape(k) for k in table.header if k.startswith(PARTS[0]) and k.endswith(ends))
    return next((s[1] for s in reads if len(s) > 1), None)

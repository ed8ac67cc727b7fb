"""Motion modules: temporal attention that makes a base of pictures move (AnimateDiff and its relatives).

Told apart as Kosinkadink/ComfyUI-AnimateDiff-Evolved @ d8d163c does: by the levels that have modules, by the middle
block, and by the positions. Source of the layouts: guoyww/AnimateDiff @ e92bd56, hotshotco/Hotshot-XL @ cc01f7f.
"""

from __future__ import annotations

from infuse.weights.kinds import Identity
from infuse.weights.looks.table import Table, numbers

TEMPORAL = r"(^|\.)(motion_modules|temporal_attentions|temporal_transformer)\."
POSITIONS = (".pos_encoder.pe", ".pos_embed.pe", ".pos_encoder.positional_encoding")


def motion(table: Table) -> Identity | None:
    """A motion module. Asked after LoRAs and SparseCtrls, whose keys look alike, and before bases."""
    keys = table.keys(TEMPORAL)
    if not keys:
        return None
    header = table.header
    layout = (
        "original" if any(".temporal_transformer." in k or ".temporal_attentions." in k for k in keys) else "diffusers"
    )
    levels = numbers(keys, r"down_blocks\.(\d+)\.")
    prefix = table.before("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",
                          "down_blocks.0.motion_modules.0.norm.weight") or ""  # fmt: skip
    sdxl = bool(levels) and max(levels) < 3
    frames = next((header[k].shape[-2] for k in keys if k.endswith(POSITIONS) and len(header[k].shape) > 1), None)
    first = f"{prefix}conv_in.weight"
    notes: tuple[str, ...] = ()
    if any(k.endswith("positional_encoding") for k in keys):
        variant = "hotshot_xl"
    elif table.dim(first, 1) == 9:
        variant = "pia"
    elif table.starts(f"{prefix}img_encoder."):
        variant = "animatelcm_i2v"
    elif sdxl:
        variant = "sdxl"
    elif frames is None and layout == "original":
        variant = "animatelcm"  # its positions are a constant that was not saved
    elif any("mid_block." in k for k in keys):
        variant = "v2" if frames in (None, 32) else "animatelcm"
    else:
        variant = "v1" if frames == 24 else "v3"
    if table.before("up_blocks.0.resnets.0.conv1.weight", "output_blocks.0.0.in_layers.0.weight") is not None:
        notes = ("inside of a whole UNet of its base",)
    blocks = sum(k.endswith("proj_in.weight") for k in keys)
    return Identity(
        "motion", layout, variant, prefix, 2048 if sdxl else 768, frames=frames, modules=blocks, notes=notes
    )

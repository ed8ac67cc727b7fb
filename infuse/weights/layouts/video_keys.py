"""What the tensors of text-to-video files are called: in VideoComposer and ModelScope, in diffusers, and how to tell them apart.

ModelScope's `UNetSD` is diffusers' `UNet3DConditionModel` under other names; VideoComposer's is the same with a wider first
convolution and its own small networks beside it. Names and shapes only: imports no torch.

Source of the layouts: damo-vilab/videocomposer @ 5c14d4f2, modelscope/modelscope @ 2905da12.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from infuse.weights.layouts.ldm_keys import EMBEDDINGS, ENDS, RESNET

STC = {
    "depth": ("depth_embedding", "depth_embedding_after"),
    "motion": ("motion_embedding", "motion_embedding_after"),
    "sketch": ("sketch_embedding", "sketch_embedding_after"),
    "single_sketch": ("single_sketch_embedding", "single_sketch_embedding_after"),
    "canny": ("canny_embedding", "canny_embedding_after"),  # in the code, not in the released file
    "local_image": ("local_image_embedding", "local_image_embedding_after"),
    "masked": ("masked_embedding", "mask_embedding_after"),  # two spellings, both as in the file
}
"""Condition -> where its encoder's convolutions and its temporal layers stand in the file."""
STYLE, FPS = "pre_image_condition.", "fps_embedding."
TEMPORAL_CONV = "temopral_conv."  # spelled so in the file
FIRST_HEADS = 8  # the temporal transformer behind the first convolution always has eight heads, whatever its width
MARKER = {"unet_sd": "input_blocks.0.1.proj_in.weight", "diffusers": "transformer_in.proj_in.weight"}


@dataclass(frozen=True)
class VideoIdentity:
    """What a file's names and shapes tell. `conditions` are those with an encoder inside."""

    kind: str
    """video_composer or text_to_video."""
    layout: str
    """unet_sd (VideoComposer's and ModelScope's own) or diffusers (the UNet alone)."""
    prefix: str
    in_channels: int
    context_width: int
    conditions: tuple[str, ...] = ()
    style: bool = False


def identity(header: Mapping[str, Any]) -> VideoIdentity | None:
    """VideoComposer, ModelScope text-to-video, or either one's UNet in diffusers' layout; None for anything else.

    `header` maps keys to anything with a `shape`. Ask before an image model is looked for: the names of both overlap.
    """
    for layout, marker in MARKER.items():
        prefix = min((k.removesuffix(marker) for k in header if k.endswith(marker)), key=len, default=None)
        if prefix is None or (prefix and not prefix.endswith((".", "/"))):
            continue
        first = header.get(prefix + ("conv_in.weight" if layout == "diffusers" else "input_blocks.0.0.weight"))
        text = text_key(k for k in header if k.startswith(prefix))
        if first is None or not text:
            continue
        inside = tuple(
            c for c, (look, after) in STC.items()
            if f"{prefix}{look}.0.weight" in header and any(k.startswith(f"{prefix}{after}.layers.") for k in header)
        )  # fmt: skip
        channels = first.shape[1]
        if inside or channels in (4, 12):
            kind = "video_composer" if inside or channels == 12 else "text_to_video"
            style = f"{prefix}{STYLE}0.weight" in header
            return VideoIdentity(kind, layout, prefix, channels, header[text].shape[1], inside, style)
    return None


def text_key(keys: Iterable[str]) -> str:
    """The key of a spatial transformer that reads the text (slot 1; slot 2 is temporal and reads itself); "" if none."""
    spatial = re.compile(
        r"(put_blocks\.[1-9]\d*\.1|_blocks\.\d+\.attentions\.\d+)\.transformer_blocks\.0\.attn2\.to_k\.weight$"
    )
    return next((k for k in keys if spatial.search(k)), "")


# ── names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def names(keys: Iterable[str]) -> dict[str, str]:
    """UNetSD key -> UNet3DConditionModel key. Keys without a place there (encoders, strangers) are not in the answer."""
    keys = list(keys)
    per = per_level(keys)
    return {k: name for k in keys if (name := _name(k, per))}


def per_level(keys: Iterable[str]) -> int:
    """Resnets per level: what stands before the first downsampler, or all there is when there is only one level."""
    keys = list(keys)
    down = [int(m[1]) for k in keys if (m := re.match(r"input_blocks\.(\d+)\.op\.", k))]
    blocks = [int(m[1]) for k in keys if (m := re.match(r"input_blocks\.(\d+)\.", k))]
    return min(down) - 1 if down else max(blocks, default=2)


SLOTS = {"0": "resnets", "1": "attentions", "2": "temp_attentions"}
MIDDLE = {"0": ("resnets", 0), "1": ("attentions", 0), "2": ("temp_attentions", 0), "3": ("resnets", 1)}


def _name(key: str, per: int) -> str:
    module, _, leaf = key.rpartition(".")
    if module in EMBEDDINGS or module in ENDS:
        return f"{(EMBEDDINGS | ENDS)[module]}.{leaf}"
    if key.startswith("input_blocks.0.1."):
        return key.replace("input_blocks.0.1", "transformer_in", 1)
    if m := re.fullmatch(r"middle_block\.([0-3])\.(.+)", key):
        kind, at = MIDDLE[m[1]]
        return _inner("mid_block", kind, at, m[2])
    m = re.fullmatch(r"(in|out)put_blocks\.(\d+)\.(?:(op)|(\d+))\.(.+)", key)
    if m is None:
        return ""
    level, at = divmod(int(m[2]) - (m[1] == "in"), per + 1)
    block = f"{'down' if m[1] == 'in' else 'up'}_blocks.{level}"
    if m[3]:
        return f"{block}.downsamplers.0.conv.{m[5]}" if at == per else ""
    if m[1] == "out" and m[5].startswith("conv."):  # slot 1 after a resnet alone, slot 3 after attention
        return f"{block}.upsamplers.0.{m[5]}"
    return _inner(block, SLOTS[m[4]], at, m[5]) if m[4] in SLOTS else ""


def _inner(block: str, kind: str, at: int, rest: str) -> str:
    if kind != "resnets":
        return f"{block}.{kind}.{at}.{rest}"
    if rest.startswith(TEMPORAL_CONV):
        return f"{block}.temp_convs.{at}.{rest.removeprefix(TEMPORAL_CONV)}"
    module, _, leaf = rest.rpartition(".")
    return f"{block}.resnets.{at}.{RESNET[module]}.{leaf}" if module in RESNET else ""


def original_names(keys: Iterable[str]) -> dict[str, str]:
    """UNet3DConditionModel key -> UNetSD key: `names` the other way round."""
    keys = list(keys)
    per = 1 + max((int(m[1]) for k in keys if (m := re.match(r"down_blocks\.0\.resnets\.(\d+)\.", k))), default=1)
    attended = {m[1] for k in keys if (m := re.match(r"up_blocks\.(\d+)\.attentions\.", k))}
    return {k: name for k in keys if (name := _original(k, per, attended))}


def _original(key: str, per: int, attended: set[str]) -> str:
    flat = {new: old for old, new in (EMBEDDINGS | ENDS).items()}
    module, _, leaf = key.rpartition(".")
    if module in flat:
        return f"{flat[module]}.{leaf}"
    if key.startswith("transformer_in."):
        return key.replace("transformer_in", "input_blocks.0.1", 1)
    m = re.fullmatch(r"(down|up|mid)_block(?:s\.(\d+))?\.(\w+)\.(\d+)\.(.+)", key)
    if m is None:
        return ""
    side, level, kind, at, rest = m[1], m[2] or "0", m[3], int(m[4]), m[5]
    if kind == "downsamplers":
        return f"input_blocks.{(int(level) + 1) * (per + 1)}.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{int(level) * (per + 1) + per}.{3 if level in attended else 1}.{rest}"
    if kind == "temp_convs":
        kind, rest = "resnets", TEMPORAL_CONV + rest
    elif kind == "resnets":
        module, _, leaf = rest.rpartition(".")
        rest = f"{ {new: old for old, new in RESNET.items()}[module] }.{leaf}"
    if side == "mid":
        return f"middle_block.{next(s for s, place in MIDDLE.items() if place == (kind, at))}.{rest}"
    block = f"{'in' if side == 'down' else 'out'}put_blocks.{int(level) * (per + 1) + at + (side == 'down')}"
    return f"{block}.{next(s for s, k in SLOTS.items() if k == kind)}.{rest}"


def was_convolution(name: str) -> bool:
    """Temporal transformers project with Conv1d (o, i, 1) in the file, with Linear (o, i) in diffusers."""
    return ("temp_attentions." in name or name.startswith("transformer_in.")) and name.endswith(
        ("proj_in.weight", "proj_out.weight")
    )


def encoder_name(key: str) -> tuple[str, str] | None:
    """Condition and STCEncoder key of a stored key."""
    stem, _, inner = key.partition(".")
    for condition, (look, after) in STC.items():
        if stem in (look, after):
            return condition, f"{'convs' if stem == look else 'after'}.{inner}"
    return None

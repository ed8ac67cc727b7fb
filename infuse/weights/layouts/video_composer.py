"""One VideoComposer file is a text-to-video UNet, a tiny encoder for each condition and a style network. Here it is taken apart.

Every tensor must find its place: the original loads non-strictly, which hides a wrong file until the picture shows it. A
ModelScope text-to-video file is the same without the small networks. The released VideoComposer has 1,574 tensors
(1,413,435,636 numbers), ModelScope's 1,480 (1,411,233,860).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.weights.layouts.video_keys import (
    FIRST_HEADS,
    FPS,
    STC,
    STYLE,
    encoder_name,
    identity,
    names,
    original_names,
    per_level,
    text_key,
    was_convolution,
)

if TYPE_CHECKING:
    import torch
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
    from torch import Tensor, nn

    from infuse.network.stc import FpsEmbedding, StyleMLP


@dataclass(frozen=True)
class VideoParts:
    """A file taken apart. Every tensor of it is in exactly one of the states."""

    config: dict[str, Any]
    """What UNet3DConditionModel is made with."""
    unet: dict[str, Tensor]
    stc: dict[str, dict[str, Tensor]]
    """Condition -> the state of its STCEncoder."""
    style: dict[str, Tensor] | None = None
    fps: dict[str, Tensor] | None = None


def read(tensors: Mapping[str, Tensor], *, head_dim: int | None = None, field: str = "model") -> VideoParts:
    """Take a VideoComposer or ModelScope state dict (UNetSD layout) apart.

    `head_dim` is read off the first temporal transformer, which has eight heads (512 wide, so 64, in the releases); give
    it to insist. Raises WeightsError, with the names, when a tensor is missing, left over or misshapen.
    """
    found = identity(tensors)
    if found is None or found.layout != "unet_sd":
        raise WeightsError(field, "this is no VideoComposer or ModelScope text-to-video file in its original layout. Choose "
                                  "non_ema_228000.pth (VideoComposer) or text2video_pytorch_model.pth.")  # fmt: skip
    stored = {k.removeprefix(found.prefix): t for k, t in tensors.items() if k.startswith(found.prefix)}
    strangers = [k for k in tensors if not k.startswith(found.prefix)]
    shapes = {k: tuple(t.shape) for k, t in stored.items()}
    trunk = names(stored)
    unet = {new: stored[k].squeeze(-1) if was_convolution(new) else stored[k] for k, new in trunk.items()}
    stc: dict[str, dict[str, Tensor]] = {c: {} for c in found.conditions}
    for key, tensor in stored.items():
        if (place := encoder_name(key)) and place[0] in stc:
            stc[place[0]][place[1]] = tensor
    style, fps = ({k.removeprefix(p): t for k, t in stored.items() if k.startswith(p)} or None for p in (STYLE, FPS))
    parts = VideoParts(unet_config(shapes, head_dim, field), unet, stc, style, fps)
    _complete(parts, shapes, strangers, field)
    return parts


def write(parts: VideoParts) -> dict[str, Tensor]:
    """The state dict that `read` took apart, under the original's names."""
    old = original_names(parts.unet)
    found = {old[k]: t.unsqueeze(-1) if was_convolution(k) else t for k, t in parts.unet.items()}
    for condition, state in parts.stc.items():
        look, after = STC[condition]
        for key, tensor in state.items():
            side, _, inner = key.partition(".")
            found[f"{look if side == 'convs' else after}.{inner}"] = tensor
    found |= {STYLE + k: t for k, t in (parts.style or {}).items()}
    return found | {FPS + k: t for k, t in (parts.fps or {}).items()}


def unet_config(shapes: Mapping[str, tuple[int, ...]], head_dim: int | None, field: str) -> dict[str, Any]:
    """UNet3DConditionModel's arguments, from the shapes of a UNetSD. `attention_head_dim` there is the width of one head.

    Raises WeightsError for an incomplete file.
    """
    per = per_level(shapes)
    starts = [i for i in range(1, len(shapes), per + 1) if f"input_blocks.{i}.0.out_layers.3.weight" in shapes]
    text, time = text_key(shapes), "input_blocks.0.1.proj_in.weight"
    if not starts or not text or "out.2.weight" not in shapes:
        raise WeightsError(field, "this text-to-video file is incomplete: its first blocks, its text attention or its last "
                                  "convolution are missing. Choose a complete file.")  # fmt: skip
    widths = [shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0] for i in starts]
    attends = [f"input_blocks.{i}.1.norm.weight" in shapes for i in starts]
    inner = shapes[time][0]
    size = inner // FIRST_HEADS if head_dim is None else head_dim
    if not size or inner != FIRST_HEADS * size or any(w % size for w in widths):
        raise WeightsError(field, f"heads of {size} channels do not fit this file: its first temporal transformer is {inner} wide "
                                  f"(eight heads) and its levels are {widths}. Leave head_dim out, or give {inner // 8}.")  # fmt: skip
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "down_block_types": tuple("CrossAttnDownBlock3D" if a else "DownBlock3D" for a in attends),
        "up_block_types": tuple("CrossAttnUpBlock3D" if a else "UpBlock3D" for a in reversed(attends)),
        "block_out_channels": tuple(widths),
        "layers_per_block": per,
        "cross_attention_dim": shapes[text][1],
        "attention_head_dim": size,
    }


def _complete(parts: VideoParts, shapes: Mapping[str, tuple[int, ...]], strangers: list[str], field: str) -> None:
    """Every slot of the networks has its tensor, and every tensor its slot; told in the names of the file."""
    wanted = {k: tuple(t.shape) for k, t in write(_empty(parts)).items()}
    missing = [k for k in wanted if k not in shapes]
    extra = [*(k for k in shapes if k not in wanted), *strangers]
    wrong = [f"{k} {shapes[k]} for {s}" for k, s in wanted.items() if shapes.get(k, s) != s]
    if missing or extra or wrong:
        lists = (("missing", missing), ("left over", extra), ("of another shape", wrong))
        told = "; ".join(f"{len(k)} {what} ({', '.join(k[:3])}{', ...' * (len(k) > 3)})" for what, k in lists if k)
        raise WeightsError(field, f"this video model does not fit its own network of {len(wanted):,} tensors: {told}. Choose a "
                                  "complete file of one model.")  # fmt: skip


def _empty(parts: VideoParts) -> VideoParts:
    """The same parts with what their networks ask for, without memory."""
    made = _empty_modules(parts)
    style, fps = (None if m is None else dict(m.state_dict()) for m in (made.style, made.fps))
    stc = {c: dict(m.state_dict()) for c, m in made.stc.items()}
    return VideoParts(parts.config, dict(made.unet.state_dict()), stc, style, fps)


@dataclass(frozen=True, eq=False)
class VideoModules:
    """The networks of one file."""

    unet: UNet3DConditionModel
    stc: nn.ModuleDict
    """Condition -> STCEncoder."""
    style: StyleMLP | None
    fps: FpsEmbedding | None


def build(
    parts: VideoParts, dtype: torch.dtype, device: torch.device | str = "cpu", field: str = "model"
) -> VideoModules:
    """The networks with their tensors, in eval mode. Raises WeightsError as `assemble` does."""
    from infuse.weights.build import assemble

    def filled(network: str, module: Any, state: Mapping[str, Tensor] | None) -> Any:
        if module is None or state is None:
            return None
        return assemble(lambda: module, state, dtype, device, f"the video model's {network}", field)

    made = _empty_modules(parts)
    stc = made.stc
    for condition, state in parts.stc.items():
        filled(f"{condition} encoder", stc[condition], state)
    return VideoModules(
        filled("UNet", made.unet, parts.unet),
        stc.eval(),
        filled("style network", made.style, parts.style),
        filled("frame-rate embedding", made.fps, parts.fps),
    )


def _empty_modules(parts: VideoParts) -> VideoModules:
    from accelerate import init_empty_weights
    from diffusers.models.unets.unet_3d_condition import UNet3DConditionModel
    from torch import nn

    from infuse.network.stc import FpsEmbedding, STCEncoder, StyleMLP

    def encoder(state: Mapping[str, Tensor]) -> STCEncoder:
        channels = state["convs.0.weight"].shape[1]
        dim = parts.config["in_channels"] - parts.config["out_channels"]
        layers = len({k.split(".")[2] for k in state if k.startswith("after.layers.")})
        return STCEncoder(channels, dim, layers)

    c, first = parts.config, parts.config["block_out_channels"][0]
    with init_empty_weights():
        return VideoModules(
            UNet3DConditionModel(**c),
            nn.ModuleDict({name: encoder(state) for name, state in parts.stc.items()}),
            None if parts.style is None else StyleMLP(c["cross_attention_dim"]),
            None if parts.fps is None else FpsEmbedding(first, 4 * first),
        )

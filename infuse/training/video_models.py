"""A network of pictures becomes one of clips, and one of clips becomes a VideoComposer; neither changes what it knew.

What is new is silent at first: the last projection of every temporal layer is zero, so a clip begins as pictures side by
side, and so are the new input channels, so conditions are not heard yet. Source: ModelScope (Wang et al. 2023), sec. 3;
VideoComposer (Wang et al. 2023), sec. 3.3; damo-vilab/videocomposer @ 5c14d4f2 (its two loaders of pretrained weights).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import gcd
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.errors import RecipeError
from infuse.network.spec import CLIP, NetworkSpec, is_video
from infuse.network.stc import Composer, STCEncoder, StyleMLP
from infuse.network.video import HEADS, VideoNetwork, with_heads

CHANNELS = {"depth": 1, "motion": 2, "sketch": 1, "single_sketch": 1, "local_image": 3, "masked": 4}
"""Condition -> channels of what its encoder is shown: those of the released VideoComposer."""
DIM = 8
"""Channels that the encoders fill together."""
TEMPORAL = ("transformer_in.", "temp_convs.", "temp_attentions.")


def is_temporal(name: str) -> bool:
    """Is this parameter of a UNet3DConditionModel one that no picture network has?"""
    return any(part in name for part in TEMPORAL)


def video_from_image(unet: Any) -> Any:
    """A UNet3DConditionModel that answers each frame of a clip as this UNet2DConditionModel answers a picture.

    Raises RecipeError for a network whose blocks have no counterpart there (SDXL: deeper transformers, size embedding).
    """
    from diffusers import UNet3DConditionModel

    config: Any = unet.config
    heads = heads_per_level(config)
    widths = tuple(config["block_out_channels"])
    odd = config.get("addition_embed_type") or config.get("class_embed_type") or config.get("time_cond_proj_dim")
    if odd or config.get("transformer_layers_per_block", 1) != 1 or not isinstance(config["layers_per_block"], int):
        raise RecipeError("model", "clips are made of networks in the shape of SD 1.x and 2.x, and this one has more (SDXL?). Choose such a "
                                   "base.")  # fmt: skip
    sizes = {w // h for w, h in zip(widths, heads, strict=True)}
    size = widths[0] // heads[0]
    size = size if all(w % size == 0 for w in widths) else gcd(*widths)
    same = ("sample_size", "in_channels", "out_channels", "block_out_channels", "layers_per_block", "downsample_padding",
            "mid_block_scale_factor", "act_fn", "norm_num_groups", "norm_eps", "cross_attention_dim")  # fmt: skip
    clip = UNet3DConditionModel(
        **{k: config[k] for k in same},
        down_block_types=tuple(k.replace("2D", "3D") for k in config["down_block_types"]),
        up_block_types=tuple(k.replace("2D", "3D") for k in config["up_block_types"]),
        attention_head_dim=size,
    )
    slots = clip.state_dict()
    known = {k: t.reshape(slots[k].shape) for k, t in unet.state_dict().items()}  # 1 x 1 convolutions are linear there
    missing, extra = clip.load_state_dict(known, strict=False)
    assert not extra and all(map(is_temporal, missing)), (missing, extra)
    with torch.no_grad():
        for name, parameter in clip.named_parameters():
            last = name.rpartition(".")[0].endswith("proj_out")  # a temporal convolution's last is zero as it is made
            if is_temporal(name) and last:
                parameter.zero_()
    moved = nn.Module.to(clip, next(unet.parameters()).device, next(unet.parameters()).dtype)
    return moved if sizes == {size} else with_heads(moved, heads)


def heads_per_level(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Of a picture network. What its config calls `attention_head_dim` is the number of heads."""
    heads, levels = (
        config.get("num_attention_heads") or config["attention_head_dim"],
        len(config["block_out_channels"]),
    )
    return (heads,) * levels if isinstance(heads, int) else tuple(heads)


def video_base(base: Base, frames: int = CLIP, name: str | None = None) -> Base:
    """A base that makes clips, and as yet knows only what that base of pictures knows."""
    unet, spec = video_from_image(base.network.unet), base.spec
    made = _spec(spec, unet, name or base.name, frames)
    return replace(base, name=made.name, network=VideoNetwork(unet, made), tasks=None)


def composed_base(base: Base, conditions: Sequence[str] = tuple(CHANNELS), style: bool = True) -> Base:
    """A base of clips with an encoder for each of these conditions; those that it has already stay as they are.

    Raises RecipeError if a condition has no encoder, or `base` makes pictures.
    """
    for name in conditions:
        if name not in CHANNELS:
            raise RecipeError("conditions", f"there is no {name!r}. Choose from: {', '.join(CHANNELS)}, style.")
    if not is_video(base.spec.config):
        raise RecipeError("model", f"{base.name} makes pictures; conditions are learned on top of a network that makes clips. Train stage 1 "
                                   "first, or choose a text-to-video model.")  # fmt: skip
    device, dtype, had = base.network.device, base.network.dtype, base.composer
    dim = (base.spec.in_channels - base.spec.latent_channels) or DIM
    stc = {n: STCEncoder(CHANNELS[n], dim) for n in conditions if had is None or n not in had.stc}
    stc |= {} if had is None else dict(had.stc.items())  # type: ignore[arg-type]
    mlp = (
        had.style if had is not None and had.style is not None else StyleMLP(base.spec.context_width) if style else None
    )
    composer = Composer(nn.ModuleDict({n: stc[n] for n in CHANNELS if n in stc}), mlp).to(device, dtype)
    unet = base.network.unet if base.spec.channel_slots else widened(base.network.unet, dim)
    spec = _spec(base.spec, unet, base.name, base.spec.frames, composer)
    return replace(base, network=VideoNetwork(unet, spec), composer=composer)


@torch.no_grad()
def settle(encoder: STCEncoder, video: Float[Tensor, "b c f height width"], size: tuple[int, int]) -> None:
    """Scale a new encoder's convolutions until each answers typical input with mean 0 and deviation 1.

    As they are made, what differs between places and frames is a few hundredths of what the latents say, and takes long to
    be heard. Source: Mishkin & Matas 2016 ("All you need is a good init"), their LSUV without the orthogonal start.
    """
    answers: list[Tensor] = []

    def heard(module: nn.Module, given: Any, answer: Any) -> None:
        answers.append(answer)

    for conv in (layer for layer in encoder.convs if isinstance(layer, nn.Conv2d)):
        assert conv.bias is not None
        hook = conv.register_forward_hook(heard)
        encoder.look(video, size)
        hook.remove()
        said = answers.pop()
        mean, scale = said.mean((0, 2, 3)), float(said.sub(said.mean((0, 2, 3), keepdim=True)).std()) + 1e-6
        conv.weight /= scale
        conv.bias.sub_(mean).div_(scale)


def widened(unet: Any, more: int) -> Any:
    """The same network of clips with `more` input channels, which it does not hear yet."""
    from diffusers import UNet3DConditionModel

    config = {k: v for k, v in unet.config.items() if not k.startswith("_")}
    first = config["in_channels"]
    wide: Any = UNet3DConditionModel(**config | {"in_channels": first + more})
    state = dict(unet.state_dict())
    weight = state["conv_in.weight"]
    state["conv_in.weight"] = torch.cat([weight, weight.new_zeros(len(weight), more, *weight.shape[2:])], dim=1)
    wide.load_state_dict(state)
    wide = nn.Module.to(wide, weight.device, weight.dtype)
    return with_heads(wide, unet.config[HEADS]) if HEADS in unet.config else wide


def _spec(old: NetworkSpec, unet: Any, name: str, frames: int, composer: Composer | None = None) -> NetworkSpec:
    return NetworkSpec.from_unet_config(
        name, unet.config, vae_factor=old.vae_factor, prediction=old.prediction, family=old.family, guidance=old.guidance,
        parameters=sum(p.numel() for p in unet.parameters()), frames=frames,
        compositions=composer.names if composer else (), style=bool(composer and composer.style is not None),
    )  # fmt: skip


class Parted(nn.Module):
    """A first convolution in two: what it knew of latents, and what it learns of new channels. Only the second can learn."""

    def __init__(self, conv: nn.Conv2d, known: int) -> None:
        super().__init__()
        inner: Any = {"kernel_size": conv.kernel_size, "padding": conv.padding, "device": conv.weight.device}
        self.known = nn.Conv2d(known, conv.out_channels, **inner).to(conv.weight.dtype).requires_grad_(False)
        self.learned = nn.Conv2d(conv.in_channels - known, conv.out_channels, bias=False, **inner).to(conv.weight.dtype)
        with torch.no_grad():
            self.known.weight.copy_(conv.weight[:, :known])
            self.learned.weight.copy_(conv.weight[:, known:])
            assert self.known.bias is not None and conv.bias is not None
            self.known.bias.copy_(conv.bias)

    @property
    def out_channels(self) -> int:
        return self.known.out_channels

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h w"]:
        n = self.known.in_channels
        return self.known(x[:, :n]) + self.learned(x[:, n:])

    def whole(self) -> nn.Conv2d:
        """The one convolution that both are."""
        weight = torch.cat([self.known.weight, self.learned.weight], dim=1).detach()
        inner: Any = {"kernel_size": self.known.kernel_size, "padding": self.known.padding, "device": weight.device}
        conv = nn.Conv2d(weight.shape[1], self.out_channels, **inner).to(weight.dtype)
        with torch.no_grad():
            conv.weight.copy_(weight)
            assert conv.bias is not None and self.known.bias is not None
            conv.bias.copy_(self.known.bias)
        return conv


def joined(unet: Any) -> None:
    """Undo `Parted`, in place: what is saved and run has one first convolution."""
    if isinstance(unet.conv_in, Parted):
        unet.conv_in = unet.conv_in.whole()

"""BrushNet: a copy of the whole UNet reads noisy latents, the masked picture and its mask, and answers at every site.

Ju et al. 2024 (BrushNet) dropped the cross-attention; PowerPaint 2 put it back, for its task tokens. Both are this
class: which it is follows from its blocks. Source: TencentARC/BrushNet; open-mmlab/PowerPaint@5b4c3d5 (BrushNet_CA).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.attention import install
from infuse.network.walk import Layers, Plain, Stroll, site_widths, walk

CONDITIONING = 5
"""Channels beside the noisy latent: masked latent 4, mask 1."""


class BrushNet(nn.Module):
    """`network` is a stock UNet without its head; its first convolution reads 4 + 5 channels.

    sites: how many answers it gives, in the order down, middle, up (28 beside SD 1.5).
    """

    place = "inside"
    """Its answers enter inside of the base's blocks, not at the skips."""
    tasks: Any = None
    """TaskTexts, for a PowerPaint 2 that is made in memory."""

    def __init__(self, config: Mapping[str, Any], *, bgr: bool = False) -> None:
        super().__init__()
        self.bgr = bgr
        self.network: Any = UNet2DConditionModel(**dict(config))
        del self.network.conv_norm_out, self.network.conv_out
        if (
            self.network.config.mid_block_type == "UNetMidBlock2D"
        ):  # released files have two resnets there, this class one
            self.network.mid_block = plain_middle(self.network.config)
        down, middle, up = site_widths(self.network)
        self.brushnet_down_blocks = nn.ModuleList(nn.Conv2d(c, c, 1) for c in down)
        self.brushnet_mid_block = nn.Conv2d(middle, middle, 1)
        self.brushnet_up_blocks = nn.ModuleList(nn.Conv2d(c, c, 1) for c in up)
        self.sites = len(down) + 1 + len(up)
        install(self.network)

    @classmethod
    def from_unet(cls, unet: Any, *, attention: bool = True) -> BrushNet:
        """Untrained, beside this base: weights copied, zero convolutions at zero.

        Channels 0-3 and 4-7 of the first convolution start as the base's, the mask's at 0.
        """
        net = cls(config_beside(unet.config, attention))
        state = {k: v for k, v in unet.state_dict().items() if k in net.network.state_dict()}
        first = torch.zeros_like(net.network.conv_in.weight)
        first[:, :4] = first[:, 4:8] = unet.conv_in.weight[:, :4]
        net.network.load_state_dict(state | {"conv_in.weight": first}, strict=False)
        for conv in net.zeros():
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        return net

    @property
    def attends(self) -> bool:
        """Does it hear tokens?"""
        return any("attn2" in name for name in self.network.attn_processors)

    def zeros(self) -> list[nn.Conv2d]:
        """The convolution of each site, in order."""
        return [*self.brushnet_down_blocks, self.brushnet_mid_block, *self.brushnet_up_blocks]  # type: ignore[list-item]

    def forward(
        self,
        x: Float[Tensor, "b 4 h w"],
        timestep: Float[Tensor, " b"],
        hint: Float[Tensor, "b 5 h w"],
        context: Float[Tensor, "b n d"],
        attention: Mapping[str, Any],
        embedding: Mapping[str, Any] | None = None,
        layers: Layers | None = None,
    ) -> list[Float[Tensor, "b c h w"]]:
        """One answer per site. The features themselves go on unchanged. layers: how they are computed, the modules' own way if None."""
        tap = _Tap(self.zeros())
        x = torch.cat([x, hint.flip(1) if self.bgr else hint], dim=1)
        walk(self.network, x, timestep, layers or Plain(context, attention), tap, embedding=embedding)
        return tap.answers


class _Tap(Stroll):
    """Listens at every site through a convolution."""

    def __init__(self, convs: Sequence[nn.Module]) -> None:
        self.convs, self.answers = iter(convs), list[Tensor]()

    def __call__(self, h: Tensor, before: Tensor) -> None:
        self.answers.append(next(self.convs)(h))


def config_beside(config: Mapping[str, Any], attention: bool = True) -> dict[str, Any]:
    """The UNet config of a BrushNet beside a base of this config."""
    own = {k: v for k, v in dict(config).items() if not k.startswith("_")} | {"in_channels": 4 + CONDITIONING}
    if not attention:
        n = len(list(config["block_out_channels"]))
        own |= {"down_block_types": ("DownBlock2D",) * n, "up_block_types": ("UpBlock2D",) * n}
        own["mid_block_type"] = "UNetMidBlock2D"
    return own


def plain_middle(config: Any) -> UNetMidBlock2D:
    """Two resnets without attention: 322 tensors in a BrushNet beside SD 1.5."""
    width = config.block_out_channels[-1]
    return UNetMidBlock2D(
        width, config.block_out_channels[0] * 4, num_layers=1, add_attention=False, resnet_groups=config.norm_num_groups,
        resnet_eps=config.norm_eps, output_scale_factor=config.mid_block_scale_factor,
    )  # fmt: skip


def stored(key: str) -> str:
    """A module key as released files spell it."""
    key = key.removeprefix("network.")
    return key.replace("conv_in.", "conv_in_condition.", 1) if key.startswith("conv_in.") else key

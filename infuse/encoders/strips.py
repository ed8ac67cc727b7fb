"""A VAE asked in strips: layer by layer, each in a few rows of the picture at a time. The same answer, to rounding, in half the memory.

Tiles, each decoded by itself, have seams that must be blended: a norm sees its own tile, not the picture. Here every layer is
whole. A norm's mean and spread are taken of the whole map, strip by strip, before it is applied; a convolution reads the rows
beside its strip. What is in memory is what one layer reads and what it writes; and on a GPU these may lie in the machine's
memory, with the strip alone on the device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float
from torch import Tensor

MOST = 2**26
"""Bytes that a layer's strip has about; its convolution takes some of the same beside it."""
Pointwise = Callable[[Tensor], Tensor]


class Strips:
    """One VAE, asked in strips. hold: where whole maps lie; None: where the VAE does. most: bytes of a strip."""

    def __init__(self, vae: Any, hold: torch.device | None = None, most: int = MOST) -> None:
        self.vae, self.most = vae, most
        self.device, self.dtype = vae.device, vae.dtype
        self.hold = hold or self.device

    @staticmethod
    def knows(vae: Any) -> bool:
        """Are all of its blocks of the kinds that Stable Diffusion's VAEs have? Whoever has set tiles wants tiles."""
        if not isinstance(vae, AutoencoderKL) or vae.use_tiling:
            return False
        blocks: list[Any] = [*vae.decoder.up_blocks, *vae.encoder.down_blocks]
        return all(_plain(r) for b in blocks for r in b.resnets) and not any(hasattr(b, "attentions") for b in blocks)

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """As `vae.decode`."""
        d: Any = self.vae.decoder
        if self.vae.post_quant_conv is not None:
            z = self.vae.post_quant_conv(z)
        x = d.mid_block(d.conv_in(z)).to(self.hold)
        for block in d.up_blocks:
            for resnet in block.resnets:
                x = self._resnet(x, resnet)
            for up in block.upsamplers or ():
                x = self._conv(x, up.conv, up=2)
        return self._conv(x, d.conv_out, self._normed(x, d.conv_norm_out, d.conv_act)).to(self.device)

    def encode(self, pixels: Float[Tensor, "b 3 height width"]) -> DiagonalGaussianDistribution:
        """As `vae.encode`."""
        e: Any = self.vae.encoder
        x = self._conv(pixels.to(self.hold), e.conv_in)
        for block in e.down_blocks:
            for resnet in block.resnets:
                x = self._resnet(x, resnet)
            for down in block.downsamplers or ():
                x = self._conv(x, down.conv, edge=1)
        x = e.mid_block(x.to(self.device))
        x = e.conv_out(e.conv_act(e.conv_norm_out(x)))
        return DiagonalGaussianDistribution(x if self.vae.quant_conv is None else self.vae.quant_conv(x))

    def _resnet(self, x: Tensor, block: Any) -> Tensor:
        """x + conv(act(norm(conv(act(norm(x)))))), in place of x where it is as wide."""
        h = self._conv(x, block.conv1, self._normed(x, block.norm1, block.nonlinearity))
        act, short = self._normed(h, block.norm2, block.nonlinearity), block.conv_shortcut
        return self._conv(h, block.conv2, act, beside=x, short=short, out=x if short is None else None)

    def _rows(self, channels: int, width: int) -> int:
        return max(1, self.most // (channels * width * self.dtype.itemsize))

    def _normed(self, x: Tensor, norm: Any, act: Pointwise) -> Pointwise:
        """What a group norm and what follows it make of a strip of x. Its mean and spread are those of the whole."""
        b, c, height, width = x.shape
        rows, kind = self._rows(c, width), torch.promote_types(x.dtype, torch.float32)

        def summed(of: Pointwise) -> Tensor:
            """Over each group, (b g)."""
            parts = (x[:, :, a : a + rows].to(self.device, kind) for a in range(0, height, rows))
            sums = (of(p.reshape(b, norm.num_groups, -1)).sum(-1, dtype=torch.float64) for p in parts)
            return sum(sums, start=torch.zeros(b, norm.num_groups, dtype=torch.float64, device=self.device))

        n = c // norm.num_groups * height * width
        mean = summed(lambda p: p) / n
        about = mean.to(kind)[..., None]
        spread = summed(lambda p: (p - about).square_()) / n
        each = (t.repeat_interleave(c // norm.num_groups, 1) for t in (mean, (spread + norm.eps).rsqrt()))
        (m, s), w, bias = each, norm.weight.double(), norm.bias.double()
        scale, shift = ((t[..., None, None]).to(kind) for t in (s * w, bias - m * s * w))
        return lambda strip: act((strip.to(kind) * scale + shift).to(strip.dtype))

    def _conv(
        self,
        x: Tensor,
        conv: Any,
        before: Pointwise | None = None,
        up: int = 1,
        edge: int = 0,
        beside: Tensor | None = None,
        short: Any = None,
        out: Tensor | None = None,
    ) -> Tensor:
        """conv(before(x)) + short(beside), strip by strip. up: x is enlarged so much, by repetition. edge: columns and rows of zeros on
        the right and below alone, as diffusers' encoder has them where it halves a picture."""
        (kernel, _), (step, _), (pad, _) = conv.kernel_size, conv.stride, conv.padding
        b, c, height, width = x.shape[0], conv.out_channels, x.shape[2] * up, x.shape[3] * up
        tall, wide = ((n + 2 * pad + edge - kernel) // step + 1 for n in (height, width))
        if out is None:
            last = conv.weight.is_contiguous(memory_format=torch.channels_last) and not conv.weight.is_contiguous()
            out = torch.empty(
                (b, c, tall, wide), dtype=x.dtype, device=self.hold,
                memory_format=torch.channels_last if last else torch.contiguous_format,
            )  # fmt: skip
        rows = self._rows(max(c, x.shape[1]), max(wide, width))
        for a in range(0, tall, rows):
            to = min(a + rows, tall)
            low, high = a * step - pad, (to - 1) * step - pad + kernel
            first, end = max(low, 0), min(high, height)
            strip = x[:, :, first // up : -(-end // up)].to(self.device)
            if before is not None:
                strip = before(strip)
            if up > 1:
                strip = F.interpolate(strip, scale_factor=float(up), mode="nearest")
                strip = strip[:, :, first % up : first % up + end - first]
            strip = F.pad(strip, (pad, pad + edge, first - low, high - end))
            made = F.conv2d(strip, conv.weight, conv.bias, conv.stride)
            if beside is not None:
                other = beside[:, :, a:to].to(self.device)
                made = made + (other if short is None else short(other))
            out[:, :, a:to].copy_(made)
        return out


def _plain(resnet: Any) -> bool:
    """No time, no scaling of its own, no scales on the way: as in every VAE of Stable Diffusion."""
    return (
        isinstance(resnet, ResnetBlock2D) and resnet.time_emb_proj is None and resnet.output_scale_factor == 1
        and resnet.upsample is None and resnet.downsample is None
    )  # fmt: skip

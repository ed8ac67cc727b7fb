"""A T2I-Adapter: a hint is folded to the latent's size and read once, level by level; each level's features are an answer.

Source: T2I-Adapter (Mou et al. 2023), sec. 3.2; TencentARC/T2I-Adapter@16bba67 and, for SDXL, @c408b05.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.t2i_kinds import Anatomy, anatomy, named


class T2IAdapter(nn.Module):
    """Full or light, of any base. Its tensors have the names that diffusers' T2IAdapter gives them."""

    def __init__(self, anatomy: Anatomy) -> None:
        super().__init__()
        self.anatomy = anatomy
        self.adapter = nn.Module()
        befores = [anatomy.inputs if anatomy.light else anatomy.widths[0], *anatomy.widths[:-1]]
        if not anatomy.light:
            self.adapter.conv_in = nn.Conv2d(anatomy.inputs, anatomy.widths[0], 3, padding=1)
        self.adapter.body = nn.ModuleList(
            _Level(anatomy, before, width, i in anatomy.strided)
            for i, (before, width) in enumerate(zip(befores, anatomy.widths, strict=True))
        )

    def forward(
        self, hint: Float[Tensor, "b c height width"], levels: Sequence[int], vae_factor: int = 8
    ) -> list[Float[Tensor, "b c h w"]]:
        """Features of hints (0-1), shallow to deep, at the sizes that the latent (the hint's by `vae_factor`) has after so many
        halvings each.

        Any size: what is odd is rounded up, as the UNet's strided convolutions do. So does diffusers' adapter; the original's
        means drop a last odd row instead, and its features then lack a row that the UNet has.
        """
        fold = vae_factor << levels[0]
        h, w = hint.shape[-2:]
        hint = F.pad(hint, (0, -w % fold, 0, -h % fold), mode="replicate")  # SDXL's 16 x 16 of a canvas of 8 x 8
        x = F.pixel_unshuffle(hint, fold)
        if not self.anatomy.light:
            x = self.adapter.conv_in(x)  # type: ignore[operator]
        features = []
        for i, level in enumerate(self.adapter.body):  # type: ignore[arg-type]
            if i and levels[i] > levels[i - 1]:
                x = level.halved(x)
            features.append(x := level(x))
        return features

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor]) -> T2IAdapter:
        """From the tensors of a file in either layout. Raises WeightsError unless they are one whole adapter."""
        found = anatomy({k: tuple(t.shape) for k, t in tensors.items()}, "this file")
        with torch.device("meta"):
            out = cls(found)
        out.load_state_dict({new: tensors[old] for old, new in named(tensors).items()}, assign=True)
        return out


class _Level(nn.Module):
    def __init__(self, anatomy: Anatomy, before: int, width: int, strided: bool) -> None:
        super().__init__()
        light = anatomy.light
        inner, outer = (width // 4, 1) if light else (width, anatomy.kernel)
        self.downsample = _Strided(before) if strided else None
        self.in_conv = nn.Conv2d(before, inner, outer, padding=outer // 2) if light or before != width else None
        self.resnets = nn.Sequential(*(_Block(inner, 3 if light else anatomy.kernel) for _ in range(anatomy.layers)))
        self.out_conv = nn.Conv2d(inner, width, 1) if light else None

    def halved(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, ceil_mode=True) if self.downsample is None else self.downsample(x)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.in_conv is None else self.in_conv(x)
        x = self.resnets(x)
        return x if self.out_conv is None else self.out_conv(x)


class _Strided(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class _Block(nn.Module):
    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.block1 = nn.Conv2d(width, width, 3, padding=1)
        self.block2 = nn.Conv2d(width, width, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block2(F.relu(self.block1(x)))


def features_of(
    adapter: nn.Module, hint: Float[Tensor, "c *f height width"], levels: Sequence[int], vae_factor: int
) -> tuple[Float[Tensor, "c *f h w"], ...]:
    """Features of a hint, or of each frame of a film. `adapter` may be diffusers' own, which somebody has in memory."""
    if not isinstance(adapter, T2IAdapter):
        adapter = T2IAdapter.load(adapter.state_dict())
    if hint.ndim == 4:
        return tuple(f.transpose(0, 1) for f in adapter(hint.transpose(0, 1), levels, vae_factor))
    return tuple(f[0] for f in adapter(hint[None], levels, vae_factor))

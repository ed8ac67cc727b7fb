"""MiDaS v3 tells the inverse depth of a picture: a vision transformer, listened to at four depths, fused from coarse to fine.

The condition is clamp(raw / 20, 0, 10), near things being large. `transformers.DPTForDepthEstimation` from
`Intel/dpt-large` is the same network (but for the norms' epsilon, 1e-12 there and 1e-5 here) and the easier way: its
`predicted_depth` goes through `as_condition` as well.
This file is for `midas_v3_dpt_large.pth`, which comes with VideoComposer, in the original's own keys.

Source: arXiv:2103.13413; damo-vilab/videocomposer @ 5c14d4f2, artist/models/midas.py (343,028,417 numbers).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.annotators.files import MIDAS, PATCH
from infuse.encoders.annotators.strict import bare, fitted


@dataclass(frozen=True)
class Sizes:
    """Of DPT-Large; all but `heads` can be read off the tensors."""

    grid: int = 24
    """Positions were learned for grid x grid patches, 384 pixels; they are stretched for other sizes."""
    patch: int = PATCH
    dim: int = 1024
    layers: int = 24
    heads: int = 16
    necks: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    fusion: int = 256


class DPT(nn.Module):
    """Inverse depth, in the network's own unit. Module names are the file's."""

    def __init__(self, sizes: Sizes | None = None) -> None:
        super().__init__()
        s = self.sizes = sizes or Sizes()
        self.cls_embedding = nn.Parameter(torch.empty(1, 1, s.dim))
        self.pos_embedding = nn.Parameter(torch.empty(1, 1 + s.grid**2, s.dim))
        self.patch_embedding = nn.Conv2d(3, s.dim, s.patch, stride=s.patch)
        self.blocks = nn.ModuleList(_Block(s.dim, s.heads) for _ in range(s.layers))
        resize: tuple[tuple[nn.Module, ...], ...] = (
            (nn.ConvTranspose2d(s.necks[0], s.necks[0], 4, stride=4),),
            (nn.ConvTranspose2d(s.necks[1], s.necks[1], 2, stride=2),),
            (),
            (nn.Conv2d(s.necks[3], s.necks[3], 3, stride=2, padding=1),),
        )
        for i, (width, sized) in enumerate(zip(s.necks, resize, strict=True), start=1):
            last = nn.Conv2d(width, s.fusion, 3, padding=1, bias=False)
            self.add_module(f"fc{i}", nn.Sequential(nn.Linear(2 * s.dim, s.dim), nn.GELU()))
            self.add_module(f"conv{i}", nn.Sequential(nn.Conv2d(s.dim, width, 1), *sized, last))
            self.add_module(f"fusion{i}", _Fusion(s.fusion))
        self.head = nn.Sequential(
            nn.Conv2d(s.fusion, s.fusion // 2, 3, padding=1),
            nn.UpsamplingBilinear2d(scale_factor=2),
            nn.Conv2d(s.fusion // 2, 32, 3, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 1, 1),  # a 1x1 convolution, stored the other way round
            nn.ReLU(),
        )

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], heads: int = 16, field: str = "") -> DPT:
        """From the state dict of `midas_v3_dpt_large.pth`. Raises WeightsError when a tensor does not fit."""
        found = bare(tensors, "cls_embedding")
        return fitted(lambda: cls(_sizes(found, heads)), found, "MiDaS v3 DPT-Large", MIDAS, field)

    @property
    def step(self) -> int:
        """Sides of a picture are multiples of this many pixels."""
        return 2 * self.sizes.patch

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """`rgb` in -1 to 1. Raises ValueError when a side is no multiple of `step`."""
        if rgb.shape[2] % self.step or rgb.shape[3] % self.step:
            raise ValueError(
                f"depth wants sides that are multiples of {self.step}, not {tuple(rgb.shape[2:])}; resize first."
            )
        patches = self.patch_embedding(rgb)
        h, w = patches.shape[2:]
        x = torch.cat([self.cls_embedding.expand(len(rgb), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
        x = x + self.positions(h, w)
        taps = []
        for i, block in enumerate(self.blocks, start=1):
            x = block(x)
            if i % (len(self.blocks) // 4) == 0:
                taps.append(self.neck(len(taps) + 1, x, h, w))
        fused = None
        for i in (4, 3, 2, 1):
            fused = self.get_submodule(f"fusion{i}")(taps[i - 1], fused)
        answer = self.head(fused)  # 16 pixels a patch, of whatever size the patches are
        same = answer.shape[2:] == rgb.shape[2:]
        return answer if same else F.interpolate(answer, rgb.shape[2:], mode="bilinear", align_corners=False)

    def positions(self, h: int, w: int) -> Float[Tensor, "1 n d"]:
        grid = self.pos_embedding[:, 1:].transpose(1, 2).unflatten(-1, (self.sizes.grid, self.sizes.grid))
        grid = F.interpolate(grid, (h, w), mode="bilinear", align_corners=False)
        return torch.cat([self.pos_embedding[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def neck(self, i: int, x: Float[Tensor, "b n d"], h: int, w: int) -> Float[Tensor, "b c hh ww"]:
        """What the class token knows of the whole is told to every patch; then a map of the right size and width."""
        both = torch.cat([x[:, 1:], x[:, :1].expand(-1, h * w, -1)], dim=-1)
        told = self.get_submodule(f"fc{i}")(both).transpose(1, 2).unflatten(-1, (h, w))
        return self.get_submodule(f"conv{i}")(told)


class _Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = nn.ModuleDict({"to_qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        qkv = self.attn["to_qkv"](self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        answer = F.scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2)
        x = x + self.attn["proj"](answer)
        return x + self.mlp(self.norm2(x))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        convs = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.residual = nn.Sequential(*(m for conv in convs for m in (nn.ReLU(), conv)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual(x)


class _Fusion(nn.Module):
    """The finer map corrects what came from the coarser one, and both grow by two. The coarsest has no `layer1` to use."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = _Residual(width), _Residual(width)
        self.conv_out = nn.Conv2d(width, width, 1)

    def forward(self, here: Tensor, coarser: Tensor | None) -> Tensor:
        x = self.layer2(here if coarser is None else coarser + self.layer1(here))
        return self.conv_out(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True))


def _sizes(tensors: Mapping[str, Any], heads: int) -> Sizes:
    """What the tensors tell; what is missing keeps DPT-Large's size, so that the letter can name it."""

    def dim(key: str, axis: int, otherwise: int) -> int:
        return tensors[key].shape[axis] if key in tensors else otherwise

    s = Sizes()
    a, b, c, d = (dim(f"conv{i}.0.weight", 0, n) for i, n in enumerate(s.necks, start=1))
    return Sizes(
        grid=math.isqrt(dim("pos_embedding", 1, 1 + s.grid**2) - 1),
        patch=dim("patch_embedding.weight", 2, s.patch),
        dim=dim("cls_embedding", 2, s.dim),
        layers=1 + max((int(k.split(".")[1]) for k in tensors if k.startswith("blocks.")), default=s.layers - 1),
        heads=heads,
        necks=(a, b, c, d),
        fusion=dim("head.0.weight", 1, s.fusion),
    )


def as_condition(raw: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Raw inverse depth of DPT-Large to what VideoComposer's depth encoder knows: 0 (far) to 10."""
    return (raw / 20).clamp(0, 10)


@torch.no_grad()
def depth(rgb: Float[Tensor, "f 3 h w"], net: DPT) -> Float[Tensor, "f 1 h w"]:
    """The depth condition of frames in 0-1 (384 x 384 in the original), one at a time."""
    return torch.cat([as_condition(net(2 * frame[None] - 1)) for frame in rgb])

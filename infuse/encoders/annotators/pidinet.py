"""PiDiNet finds edges with convolutions of pixel differences; those are plain convolutions after a change of weights.

A difference layer multiplies its weights with differences between pixels of a window. Collecting what each pixel is
multiplied with in total gives an ordinary kernel, so the file is converted once and the network stays ordinary.

Source: arXiv:2108.07009; hellozhuo/pidinet in damo-vilab/videocomposer @ 5c14d4f2, tools/annotator/sketch. The released
`table5_pidinet.pth`: width 60, dilated width 24, 710,149 numbers stored, 720,709 converted.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.annotators.strict import bare, fitted

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet
KINDS = ("cd", "ad", "rd", "cv")  # central, angular, radial differences, then none; again in each stage
BLOCKS = {1: 3, 2: 4, 3: 4, 4: 4}  # the first layer of stage 1 is `init_block`
LAYERS = ("init_block", *(f"block{s}_{i}.conv1" for s, n in BLOCKS.items() for i in range(1, n + 1)))

CLOCKWISE = (3, 0, 1, 6, 4, 2, 7, 8, 5)  # each window position's neighbour, for angular differences
OUTER, INNER = (0, 2, 4, 10, 14, 20, 22, 24), (6, 7, 8, 11, 13, 16, 17, 18)  # rays in a 5x5 window, for radial ones


def kind_of(layer: int) -> str:
    return KINDS[layer % 4]


def plain(kind: str, weight: Float[Tensor, "o i 3 3"]) -> Float[Tensor, "o i k k"]:
    """The ordinary kernel of a difference layer: 3 x 3, or 5 x 5 for radial differences."""
    flat = weight.flatten(2)
    if kind == "cd":  # every pixel minus the centre
        flat = flat.clone()
        flat[..., 4] -= weight.sum((2, 3))
    elif kind == "ad":  # every pixel minus its neighbour on the ring
        flat = flat - flat[..., CLOCKWISE]
    elif kind == "rd":  # every outer pixel minus the inner one on the same ray; the centre weight is not used
        wide = flat.new_zeros(*flat.shape[:2], 25)
        wide[..., OUTER], wide[..., INNER] = flat[..., 1:], -flat[..., 1:]
        return wide.unflatten(-1, (5, 5))
    return flat.unflatten(-1, (3, 3))


class PiDiNet(nn.Module):
    """Edges of a picture. Module names are the file's."""

    def __init__(self, width: int = 60, dilated: int = 24) -> None:
        super().__init__()
        self.init_block = nn.Conv2d(3, width, 3, padding=1, bias=False)
        widths, have, layer = (width, 2 * width, 4 * width, 4 * width), width, 1
        for stage, count in BLOCKS.items():
            for i in range(1, count + 1):
                block = _Block(have, widths[stage - 1], kind_of(layer), shrink=stage > 1 and i == 1)
                self.add_module(f"block{stage}_{i}", block)
                have, layer = widths[stage - 1], layer + 1
        self.dilations = nn.ModuleList(_Dilations(w, dilated) for w in widths)
        self.attentions = nn.ModuleList(_Gate(dilated) for _ in widths)
        self.conv_reduces = nn.ModuleList(nn.ModuleDict({"conv": nn.Conv2d(dilated, 1, 1)}) for _ in widths)
        self.classifier = nn.Conv2d(4, 1, 1)

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], field: str = "") -> PiDiNet:
        """From the stored (pixel-difference) weights of `table5_pidinet.pth`, or from weights converted before.

        Raises WeightsError that names the keys when any does not fit.
        """
        found = bare(tensors, "init_block.weight")
        kernels = {f"{name}.weight": kind_of(i) for i, name in enumerate(LAYERS) if f"{name}.weight" in found}
        if not any(found[k].shape[2:] == (5, 5) for k in kernels):  # else the file was converted before
            found |= {k: plain(kind, found[k]) for k, kind in kernels.items()}
        width, dilated = (len(found[k]) if k in found else n
                          for k, n in (("init_block.weight", 60), ("dilations.0.conv1.weight", 24)))  # fmt: skip
        return fitted(lambda: cls(width, dilated), found, "PiDiNet", "table5_pidinet.pth", field)

    def forward(self, rgb: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
        """`rgb` in 0-1; edges in 0-1, light on dark."""
        mean, std = (rgb.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
        x, sides = self.init_block((rgb - mean) / std), []
        for stage, count in BLOCKS.items():
            for i in range(1, count + 1):
                x = self.get_submodule(f"block{stage}_{i}")(x)
            side = self.attentions[stage - 1](self.dilations[stage - 1](x))
            side = self.conv_reduces[stage - 1]["conv"](side)  # type: ignore[index]
            sides.append(F.interpolate(side, rgb.shape[2:], mode="bilinear", align_corners=False))
        return self.classifier(torch.cat(sides, dim=1)).sigmoid()


class _Block(nn.Module):
    def __init__(self, have: int, make: int, kind: str, *, shrink: bool) -> None:
        super().__init__()
        self.shrink = shrink
        if shrink:
            self.shortcut = nn.Conv2d(have, make, 1)
        reach = 2 if kind == "rd" else 1
        self.conv1 = nn.Conv2d(have, have, 2 * reach + 1, padding=reach, groups=have, bias=False)
        self.conv2 = nn.Conv2d(have, make, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(x, 2) if self.shrink else x
        return self.conv2(self.conv1(x).relu()) + (self.shortcut(x) if self.shrink else x)


class _Dilations(nn.Module):
    """Four looks at once, each wider than the one before, summed."""

    def __init__(self, have: int, make: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(have, make, 1)
        for i, d in enumerate((5, 7, 9, 11), start=1):
            self.add_module(f"conv2_{i}", nn.Conv2d(make, make, 3, padding=d, dilation=d, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x.relu())
        return self.conv2_1(x) + self.conv2_2(x) + self.conv2_3(x) + self.conv2_4(x)  # type: ignore[operator]


class _Gate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4, 1)
        self.conv2 = nn.Conv2d(4, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv2(self.conv1(x.relu())).sigmoid()

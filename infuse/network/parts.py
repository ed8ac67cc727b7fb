"""The arithmetic of layers between products: step by step, or compiled, so that a GPU reads and writes features once for each part.

Norms, nonlinearities and sums move much memory for little work. `Compiled` has torch.compile make one kernel of what stands
between two products. A part is a function of tensors, whatever module they belong to: all layers of a kind share its code, and
sizes are symbols in it, so that other pictures, rows, scales and conditions compile nothing new. Where a layer has more to say
(a LoRA in this call, a weight of another kind, somebody who watches), it is computed step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infuse.network.edits import LISTENING, NOW

BARE = (*LISTENING, *LISTENING.values())
"""Kinds of layers whose answer is nothing but their weight and bias."""


class Parts:
    """As torch does it, sums in place."""

    def resnet(self, module: Any, h: Tensor, t: Tensor | None) -> Tensor:
        """A residual block (b c h w) without resampling. t: (b c) of the time, which is added between its convolutions."""
        x = module.conv1(F.silu(module.norm1(h), inplace=True))
        if t is not None:
            x += t[:, :, None, None]
        x = module.conv2(F.silu(module.norm2(x), inplace=True))
        x += h if module.conv_shortcut is None else module.conv_shortcut(h)
        return x

    def entrance(self, module: Any, h: Tensor) -> Tensor:
        """(b c h w) to the tokens (b n c) of a spatial transformer."""
        x = module.norm(h)
        if module.use_linear_projection:
            return module.proj_in(x.permute(0, 2, 3, 1).flatten(1, 2))
        return module.proj_in(x).permute(0, 2, 3, 1).flatten(1, 2)

    def feed(self, block: Any, x: Tensor) -> Tensor:
        """Gated feed-forward beside its input (b n c), of which nothing is written into."""
        left, right = block.ff.net[0].proj(block.norm3(x)).chunk(2, dim=-1)
        return block.ff.net[2](F.gelu(right).mul_(left)).add_(x)


class Compiled(Parts):
    """The same by torch.compile. backend: as it names them; "aot_eager" traces alike and compiles nothing."""

    def __init__(self, backend: Any = "inductor") -> None:
        self.backend = backend
        self._made: dict[Any, Callable[..., Tensor]] = {}

    def _of(self, make: Callable[..., Any], *fixed: Any) -> Callable[..., Tensor]:
        if (make, fixed) not in self._made:
            part = make(*fixed)
            # torch counts what it compiled by code: a copy, so that each network and each kind of layer has a count of its own
            own = FunctionType(part.__code__.replace(), part.__globals__, make.__name__, None, part.__closure__)
            self._made[make, fixed] = torch.compile(own, backend=self.backend, dynamic=True)
        return self._made[make, fixed]

    def resnet(self, module: Any, h: Tensor, t: Tensor | None) -> Tensor:
        layers = (module.norm1, module.conv1, module.norm2, module.conv2, module.conv_shortcut)
        if t is None or not all(map(bare, layers)):
            return super().resnet(module, h, t)
        one, _, two, _, short = layers
        run = self._of(residual, one.num_groups, one.eps, two.num_groups, two.eps, short is not None)
        return run(h, t, *numbers(*layers))

    def entrance(self, module: Any, h: Tensor) -> Tensor:
        norm, project = module.norm, module.proj_in
        if not bare(norm) or not bare(project):
            return super().entrance(module, h)
        run = self._of(tokens, norm.num_groups, norm.eps, bool(module.use_linear_projection))
        return run(h, *numbers(norm, project))

    def feed(self, block: Any, x: Tensor) -> Tensor:
        norm, up, down = block.norm3, block.ff.net[0].proj, block.ff.net[2]
        if not all(map(bare, (norm, up, down))):
            return super().feed(block, x)
        run = self._of(gated, norm.eps)
        return run(x, *numbers(norm, up, down))


def bare(layer: Any) -> bool:
    """Is this layer's answer, in this call, nothing but its weight and bias? None has none, and is."""
    return layer is None or (
        type(layer) in BARE
        and NOW.get() is None
        and not (layer._forward_hooks or layer._forward_pre_hooks or "forward" in layer.__dict__)
        and layer.weight is not None
        and layer.bias is not None
        and (not isinstance(layer, nn.Conv2d) or plain_convolution(layer))
    )


def numbers(*layers: Any) -> list[Tensor]:
    """Weight and bias of each layer, as tensors of any size: of parameters, torch compiles every size by itself."""
    return [t.detach() for layer in layers if layer is not None for t in (layer.weight, layer.bias)]


def plain_convolution(layer: nn.Conv2d) -> bool:
    """Does it keep the size, each place seeing its neighbours once?"""
    at = layer.kernel_size[0] // 2
    alike = layer.stride == (1, 1) and layer.dilation == (1, 1) and layer.groups == 1 and layer.padding_mode == "zeros"
    return alike and layer.padding == (at, at) and layer.kernel_size in ((1, 1), (3, 3))


@cache
def residual(groups1: int, eps1: float, groups2: int, eps2: float, short: bool) -> Callable[..., Tensor]:
    """`Parts.resnet` of tensors."""

    def part(h: Tensor, t: Tensor, *own: Tensor) -> Tensor:
        n1, m1, w1, b1, n2, m2, w2, b2 = own[:8]
        x = F.conv2d(F.silu(F.group_norm(h, groups1, n1, m1, eps1)), w1, b1, padding=1) + t[:, :, None, None]
        x = F.conv2d(F.silu(F.group_norm(x, groups2, n2, m2, eps2)), w2, b2, padding=1)
        return x + (F.conv2d(h, own[8], own[9]) if short else h)

    return part


@cache
def tokens(groups: int, eps: float, linear: bool) -> Callable[..., Tensor]:
    """`Parts.entrance` of tensors."""

    def part(h: Tensor, n: Tensor, m: Tensor, w: Tensor, b: Tensor) -> Tensor:
        x = F.group_norm(h, groups, n, m, eps)
        if linear:
            return F.linear(x.permute(0, 2, 3, 1).flatten(1, 2), w, b)
        return F.conv2d(x, w, b).permute(0, 2, 3, 1).flatten(1, 2)

    return part


@cache
def gated(eps: float) -> Callable[..., Tensor]:
    """`Parts.feed` of tensors."""

    def part(x: Tensor, n: Tensor, m: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        left, right = F.linear(F.layer_norm(x, n.shape, n, m, eps), w1, b1).chunk(2, dim=-1)
        return F.linear(F.gelu(right) * left, w2, b2) + x

    return part

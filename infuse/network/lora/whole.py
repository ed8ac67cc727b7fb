"""Changes as large as the weight itself: a difference, a norm's, another weight in its place, the scattered rest of an extraction. And
what holds others: sums, and what a narrower layer learned in a wider one.

Sources: KohakuBlueleaf/LyCORIS@f49d30d (modules/full.py, norms.py, utils/__init__.py), Comfy-Org/ComfyUI@a125cd8 (lora.py).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, own, run


class Whole(Change):
    """Delta itself, in the shape of the weight; of norms, too."""

    D: Float[Tensor, "out ..."]

    def __init__(self, D: Tensor, bias: Tensor | None = None, kind: str = "diff") -> None:
        super().__init__(bias)
        self.kind = kind
        self.register_buffer("D", D)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        return self.D.to(exact(self.D, own(layer))) * strength

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        return run(layer, x, self.D) * s


class Replaced(Change):
    """Another weight in W's place, whatever the strength is."""

    kind = "set"
    linear = False
    T: Float[Tensor, "out ..."]

    def __init__(self, T: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("T", T)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        W = own(layer)
        dtype = exact(W, self.T)
        return self.T.to(dtype) - W.to(dtype)


class Scattered(Change):
    """A few entries of the weight, seen as (out, all else): what a low rank left of a difference."""

    kind = "rest"
    at: Int[Tensor, "2 n"]
    values: Float[Tensor, " n"]

    def __init__(self, at: Tensor, values: Tensor, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.register_buffer("at", at)
        self.register_buffer("values", values)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        values = self.values.to(exact(self.values, own(layer))) * strength
        D = values.new_zeros(self.shape)
        D.flatten(1).index_put_((self.at[0], self.at[1]), values, accumulate=True)
        return D


class Sum(Change):
    """Several changes of one module, each from W0."""

    def __init__(self, parts: Sequence[Change], bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.parts = nn.ModuleList(parts)
        self.kind = "+".join(p.kind for p in parts)
        self.linear = all(p.linear for p in parts)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        first, *others = (p.delta(layer, strength) for p in self.parts)  # pyright: ignore[reportCallIssue]
        return sum(others, first)

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        first, *others = (p.said(layer, x, s, y) for p in self.parts)  # pyright: ignore[reportCallIssue]
        return sum(others, first)


class Widened(Change):
    """A change of a convolution with fewer input channels, as of conv_in before a base learned to see masks: it concerns the first
    ones, and is made from their weights alone."""

    def __init__(self, inner: Change, channels: int) -> None:
        super().__init__(inner.bias)
        inner.bias = None
        self.kind, self.linear = inner.kind, inner.linear
        self.inner, self.channels = inner, channels

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        return widened(self.inner.delta(narrow(layer, self.channels), strength), own(layer).shape[1])

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        return self.inner.said(narrow(layer, self.channels), x[:, : self.channels], s)


def widened(weight: Float[Tensor, "out inside kh kw"], channels: int) -> Float[Tensor, "out channels kh kw"]:
    """With zeros for further input channels."""
    return F.pad(weight, (0, 0, 0, 0, 0, channels - weight.shape[1]))


def narrow(layer: nn.Module, channels: int) -> nn.Module:
    """The same layer, sharing its weight, as one that has its first input channels only."""
    seen: Any = copy.copy(layer)
    seen._parameters = {**seen._parameters, "weight": nn.Parameter(own(layer)[:, :channels], requires_grad=False)}
    seen.in_channels = channels
    return seen

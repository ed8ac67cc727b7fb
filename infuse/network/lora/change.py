"""What a network of the LoRA family says about one layer is a change of its weight: a matrix to add, or a way to answer without it.

Every change is computed from the layer's own weight W0 and added to it, also that of kinds that read the weight (DoRA, OFT, BOFT,
GLoRA, IA3). This is peft's rule. The webui and ComfyUI hand a weight from one network to the next, so that the last one rotates what
the first one added: then the order of two networks matters, and a row cannot be asked without knowing who else speaks.
Here the order of conditions never matters.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Change(nn.Module):
    """What one layer's change is. Subclasses say `delta`, and `said` where there is a cheaper exact way than through it.

    A layer is a Linear, Conv2d, LayerNorm or GroupNorm; it is asked for its weight, and never called.
    """

    kind: str = ""
    """As it is called: lora, loha, lokr, glora, dora, oft, boft, oft2, ia3, diff, norm, set, bias; several joined by +."""
    linear: bool = True
    """Is delta(s) = s delta(1)?"""
    bias: Float[Tensor, " out"] | None
    """Added to the output, times the strength."""

    def __init__(self, bias: Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("bias", bias)

    @property
    def factors(self) -> tuple[Tensor, Tensor] | None:
        """(A, B): A (r in) or (r in kh kw) with the layer's kernel, stride and padding, B (out r), so that delta(s) = s B A; None
        where that isn't exact, or isn't small."""
        return None

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        """What is added to the layer's weight, in its shape: float32, or float64 if anything is."""
        raise NotImplementedError

    def answer(self, layer: nn.Module, x: Tensor, strength: float = 1.0, y: Tensor | None = None) -> Tensor:
        """What is added to layer(x), bias included, in x's dtype. y: layer(x) if it is known: saves some kinds a pass."""
        out = self.said(layer, x, strength, y)
        return out if self.bias is None else out + spread(self.bias, layer, out) * strength

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        """The answer without its bias."""
        return run(layer, x, self.delta(layer)) * s if self.linear else run(layer, x, self.delta(layer, s))


def run(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """The layer with another weight and no bias, in x's dtype."""
    module: Any = layer
    weight = weight.to(x)
    if isinstance(layer, nn.Conv2d):
        return module._conv_forward(x, weight, None)  # knows the layer's stride, padding and what it pads with
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, module.normalized_shape, None, None, module.eps) * weight
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(x, module.num_groups, None, None, module.eps) * spread(weight, layer, x)
    return F.linear(x, weight)


def heard(layer: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
    """W0 x: the layer's own answer without its bias."""
    module: Any = layer
    if y is None:
        return run(layer, x, module.weight)
    return y if module.bias is None else y - spread(module.bias, layer, y)


def spread(vector: Float[Tensor, " c"], layer: nn.Module, x: Tensor) -> Tensor:
    """A number for each channel of x, in its dtype and shaped to fit: channels of pictures are second, all others last."""
    second = isinstance(layer, (nn.Conv2d, nn.GroupNorm))
    return vector.to(x).view(-1, *[1] * (x.ndim - 2)) if second else vector.to(x)


def own(layer: nn.Module) -> Tensor:
    """W0."""
    module: Any = layer
    return module.weight


def exact(*tensors: Tensor | None) -> torch.dtype:
    """The dtype in which weights are multiplied: float32, or float64 if any of these is."""
    double = any(t is not None and t.dtype == torch.float64 for t in tensors)
    return torch.float64 if double else torch.float32

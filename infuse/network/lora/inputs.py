"""Kinds that act on what a layer hears, and then ask the layer again: IA3 on the input, GLoRA, OFT as peft has it.

Sources: Liu et al. 2022 (IA3), sec. 3.3; Chavan et al. 2023 (GLoRA), eq. 6; KohakuBlueleaf/LyCORIS@f49d30d (modules/ia3.py,
glora.py), Comfy-Org/ComfyUI@a125cd8 (weight_adapter/glora.py), huggingface/peft@5d602fd (tuners/oft/layer.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, own, run, spread
from infuse.network.lora.low_rank import Pair, product, up


class LouderInput(Change):
    """IA3 on the input: channel i is heard 1 + s w[i] times as loud."""

    kind = "ia3"
    w: Float[Tensor, " in"]

    def __init__(self, w: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("w", w)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        W = own(layer)
        W = W.to(exact(W, self.w))
        return W * (self.w.to(W) * strength).view(1, -1, *[1] * (W.ndim - 2))

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        return run(layer, x * spread(self.w * s, layer, x), own(layer))


class Generalised(Change):
    """GLoRA: delta = W A + B with both of low rank. `inner`: (r in), (in r), whose product is A; `outer`: B's pair."""

    kind = "glora"

    def __init__(self, inner: Pair, outer: Pair, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        for name, t in zip(("a_down", "a_up", "b_down", "b_up"), (*inner, *outer), strict=True):
            self.register_buffer(name, t)

    @property
    def _inner(self) -> Pair:
        return self.a_down, self.a_up  # pyright: ignore[reportReturnType]

    @property
    def _outer(self) -> Pair:
        return self.b_down, self.b_up  # pyright: ignore[reportReturnType]

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        W = own(layer)
        dtype = exact(W, *self._inner)
        down, grow = (t.to(dtype) for t in self._inner)
        turned = torch.einsum("oj...,jr->or...", W.to(dtype), grow)
        return strength * (torch.einsum("or...,ri->oi...", turned, down) + product(self._outer, dtype))

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        down, grow = self._inner
        z = up(layer, x, down) * s
        b_down, b_up = self._outer
        return run(layer, up(layer, z, grow), own(layer)) + up(layer, run(layer, x, b_down) * s, b_up)


class RotatedInput(Change):
    """OFT of peft and OneTrainer: groups of inputs (of a convolution: of its unfolded inputs) are rotated. `turn` (n b b), or (1 b b) for
    all groups, is R - I: x becomes x R. The strength is the change's, since peft knows none for it."""

    kind = "oft2"
    turn: Float[Tensor, "n b b"]

    def __init__(self, turn: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("turn", turn)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        W = own(layer)
        W = W.to(exact(W, self.turn))
        groups = W.flatten(1).unflatten(1, (-1, self.turn.shape[-1]))
        turn = self.turn.to(W).expand(groups.shape[1], -1, -1)
        return strength * torch.einsum("okj,kcj->okc", groups, turn).reshape(W.shape)

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            return super().said(layer, x, s, y)
        groups = x.unflatten(-1, (-1, self.turn.shape[-1]))
        turn = self.turn.to(x).expand(groups.shape[-2], -1, -1)
        return F.linear(torch.einsum("...kj,kjc->...kc", groups, turn).flatten(-2) * s, own(layer).to(x))


def neumann(packed: Float[Tensor, "n e"]) -> Float[Tensor, "n b b"]:
    """R - I of peft's OFT: `packed` are the entries of Q above its diagonal, row by row, and R is its series of five terms for
    (I + Q) (I - Q)^-1: I + 2 Q + 2 Q^2 + 2 Q^3 + Q^4."""
    b = block_size(packed.shape[1])
    rows, columns = torch.triu_indices(b, b, 1, device=packed.device)
    Q = packed.new_zeros(len(packed), b, b)
    Q[:, rows, columns] = packed
    Q = Q - Q.transpose(1, 2)
    Q2 = Q @ Q
    return 2 * Q + 2 * Q2 + 2 * Q2 @ Q + Q2 @ Q2


def block_size(entries: int) -> int:
    """b, of which b (b - 1) / 2 are the entries above a diagonal; 0 if there is none."""
    b = round((1 + (1 + 8 * entries) ** 0.5) / 2)
    return b if b * (b - 1) // 2 == entries else 0

"""DoRA: a learned length for each row (or column) of the changed weight V = W + D. So W becomes m V / |V|.

At strength s it becomes W + s (m V / |V| - W): the webui's and ComfyUI's way, in which 0 is the base itself (LyCORIS' isn't, nor is
peft's). The length is V's (the paper, LyCORIS, peft; ComfyUI takes W's). Source: Liu et al. 2024 (DoRA), sec. 4.1, eq. 5;
KohakuBlueleaf/LyCORIS@f49d30d (modules/locon.py, apply_weight_decompose).
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, heard, own, run, spread


class Decomposed(Change):
    """`inner`: D, of a kind that doesn't read W. `m`: lengths of V's rows (out), or, if not `rows`, of its columns (in), over
    all other axes. `padded`: is the smallest number added to a length? LyCORIS does, peft doesn't."""

    m: Float[Tensor, " n"]

    def __init__(
        self, inner: Change, m: Tensor, rows: bool = True, padded: bool = True, bias: Tensor | None = None
    ) -> None:
        super().__init__(bias)
        self.kind = f"dora+{inner.kind}"
        self.inner, self.rows, self.padded = inner, rows, padded
        self.register_buffer("m", m)
        self._gains: WeakKeyDictionary[nn.Module, tuple[object, Tensor]] = WeakKeyDictionary()

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        D = self.inner.delta(layer)
        W = own(layer).to(D.dtype)
        return strength * ((W + D) * self._along(self.gain(layer), W) - W)

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        g = self.gain(layer)
        if self.rows:
            out = heard(layer, x, y) * spread(g - 1, layer, x) + self.inner.said(layer, x, 1.0) * spread(g, layer, x)
        else:
            out = run(layer, x * spread(g - 1, layer, x), own(layer))
            out = out + self.inner.said(layer, x * spread(g, layer, x), 1.0)
        return out * s

    def gain(self, layer: nn.Module) -> Float[Tensor, " n"]:
        """m / |V|. Kept for a layer as long as its weight stays what it is: it takes a pass through the whole weight."""
        W = own(layer)
        seen = (W.data_ptr(), W.dtype, None if W.is_inference() else W._version)
        known = self._gains.get(layer)
        if known is not None and known[0] == seen:
            return known[1]
        with torch.inference_mode(False), torch.no_grad():  # kept for whoever asks next, who may be learning
            V = self.inner.delta(layer)
            V = V + W.to(V.dtype)
            n = (V if self.rows else V.transpose(0, 1)).flatten(1).norm(dim=1)
            gain = self.m.to(n) / (n + torch.finfo(n.dtype).eps if self.padded else n)
        self._gains[layer] = seen, gain
        return gain

    def _along(self, vector: Tensor, W: Tensor) -> Tensor:
        return vector.view(-1, *[1] * (W.ndim - 1)) if self.rows else vector.view(1, -1, *[1] * (W.ndim - 2))

"""LoKr: delta = C x D, every entry of a small matrix C times a whole matrix D. Asked in two steps, D inside of each group of channels
and then C between the groups, so that the large matrix is never made.

Source: Yeh et al. 2023 (LyCORIS), sec. 3.2; KohakuBlueleaf/LyCORIS@f49d30d (modules/lokr.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, own, run
from infuse.network.lora.low_rank import product, up


class Kronecker(Change):
    """Channels are (i1 i2) and (o1 o2); C (o1 i1) has the slow index. D is one matrix, or B A."""

    kind = "lokr"
    C: Float[Tensor, "o1 i1"]
    A: Float[Tensor, "r i2 ..."]
    """Or D itself (o2 i2 ...), where there is no B."""
    B: Float[Tensor, "o2 r"] | None

    def __init__(self, C: Tensor, A: Tensor, B: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("C", C)
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        dtype = exact(self.C, own(layer))
        D = self.A.to(dtype) if self.B is None else product((self.A, self.B), dtype)
        C = self.C.to(dtype) * strength
        return torch.kron(C.view(*C.shape, *[1] * (D.ndim - 2)), D.contiguous())

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        groups, C = self.C.shape[1], self.C.to(x) * s
        if isinstance(layer, nn.Conv2d):
            x = x.unflatten(1, (groups, -1))
            h = self._inside(layer, x.flatten(0, 1)).unflatten(0, x.shape[:2])
            return torch.einsum("oi,bi...->bo...", C, h).flatten(1, 2)
        h = self._inside(layer, x.unflatten(-1, (groups, -1)))
        return (C @ h).flatten(-2)

    def _inside(self, layer: nn.Module, x: Tensor) -> Tensor:
        """D, on one group of channels."""
        h = run(layer, x, self.A)
        return h if self.B is None else up(layer, h, self.B)

"""Two thin matrices: delta = B A. LoRA and LoCon as they are, Tucker's middle folded into A, a small LoHa as a LoRA of rank r^2.

Sources: Hu et al. 2021 (LoRA), sec. 4.1; Hyeon-Woo et al. 2022 (FedPara: LoHa), prop. 1 and 3; KohakuBlueleaf/LyCORIS@f49d30d
(functional/general.py, functional/loha.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, own, run


class LowRank(Change):
    """Delta = B A. With a kernel, A is a convolution of the layer's own kind and B one of 1 x 1."""

    kind = "lora"
    A: Float[Tensor, r in ...]
    B: Float[Tensor, "out r"]

    def __init__(self, A: Tensor, B: Tensor, bias: Tensor | None = None, kind: str = "lora") -> None:
        super().__init__(bias)
        self.kind = kind
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    @property
    def factors(self) -> tuple[Tensor, Tensor]:
        return self.A, self.B

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        dtype = exact(self.A, own(layer))
        return (self.B.to(dtype) @ self.A.to(dtype).flatten(1)).mul_(strength).view(len(self.B), *self.A.shape[1:])

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        z = run(layer, x, self.A) * s
        B = self.B.to(z)
        return F.conv2d(z, B[:, :, None, None]) if isinstance(layer, nn.Conv2d) else F.linear(z, B)


class Hadamard(Change):
    """LoHa whose rank is too high for factors: the product, entry by entry, of two low ranks. Multiplied out when asked: that costs
    what r rows more would."""

    kind = "loha"

    def __init__(self, A1: Tensor, B1: Tensor, A2: Tensor, B2: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        for name, t in {"A1": A1, "B1": B1, "A2": A2, "B2": B2}.items():
            self.register_buffer(name, t)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        dtype = exact(self.A1, own(layer))
        one, two = (b.to(dtype) @ a.to(dtype).flatten(1) for a, b in ((self.A1, self.B1), (self.A2, self.B2)))
        return (one * two).mul_(strength).view(len(one), *self.A1.shape[1:])


def balanced(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """The same product with factors about equally large, so that neither leaves the numbers of half precision: alpha / r of a file can
    be 1 / 128, and thousandths have few digits there. Moves a power of two, which rounds nothing."""
    a, b = A.abs().max(), B.abs().max()
    if not (a > 0 and b > 0):
        return A, B
    shift = torch.exp2(torch.round(torch.log2(b / a) / 2))
    return A * shift, B / shift

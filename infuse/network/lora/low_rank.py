"""Two thin matrices: delta = B A. LoRA and LoCon as they are, Tucker's middle folded into A, a small LoHa as a LoRA of rank r^2.

Sources: Hu et al. 2021 (LoRA), sec. 4.1; Hyeon-Woo et al. 2022 (FedPara, LoHa), sec. 2; KohakuBlueleaf/LyCORIS@f49d30d
(functional/general.py, functional/loha.py).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, own, run

Pair = tuple[Tensor, Tensor]
"""(A, B): (r in ...) and (out r)."""


class LowRank(Change):
    """Delta = B A. With a kernel, A is a convolution of the layer's own kind and B one of 1 x 1."""

    A: Float[Tensor, "r inside *k"]
    B: Float[Tensor, "out r"]

    def __init__(self, A: Tensor, B: Tensor, bias: Tensor | None = None, kind: str = "lora") -> None:
        super().__init__(bias)
        self.kind = kind
        self.register_buffer("A", A)
        self.register_buffer("B", B)

    @property
    def factors(self) -> Pair:
        return self.A, self.B

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        return strength * product(self.factors, exact(self.A, own(layer)))

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        return up(layer, run(layer, x, self.A) * s, self.B)


class Hadamard(Change):
    """A LoHa of higher rank: the product of two low ranks, entry by entry. Multiplied out whenever it is asked, which costs about what
    r more rows of the batch would, and no memory."""

    kind = "loha"

    def __init__(self, one: Pair, two: Pair, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        for name, t in zip(("A1", "B1", "A2", "B2"), (*one, *two), strict=True):
            self.register_buffer(name, t)

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        dtype = exact(self.A1, own(layer))  # pyright: ignore[reportArgumentType]
        one, two = product((self.A1, self.B1), dtype), product((self.A2, self.B2), dtype)  # pyright: ignore[reportArgumentType]
        return one.mul_(two).mul_(strength)


def product(pair: Pair, dtype: torch.dtype) -> Float[Tensor, "out inside *k"]:
    """B A."""
    A, B = (t.to(dtype) for t in pair)
    return (B @ A.flatten(1)).view(len(B), *A.shape[1:])


def up(layer: nn.Module, z: Tensor, B: Float[Tensor, "out r"]) -> Tensor:
    """B on the channels of z, which came through A."""
    B = B.to(z)
    return F.conv2d(z, B[:, :, None, None]) if isinstance(layer, nn.Conv2d) else F.linear(z, B)


def folded(A: Float[Tensor, "n in"], middle: Float[Tensor, "m n kh kw"]) -> Float[Tensor, "m in kh kw"]:
    """Tucker's middle and its A as one A: the middle's first index meets B, its second A."""
    return torch.einsum("mnyx,ni->miyx", middle, A.flatten(1)).contiguous()


def multiplied(one: Pair, two: Pair) -> Pair:
    """The product, entry by entry, of two low ranks as one low rank: every row of one A with every row of the other."""
    (A1, B1), (A2, B2) = one, two
    A = A1[:, None] * A2[None]
    B = B1[:, :, None] * B2[:, None, :]
    return A.flatten(0, 1), B.flatten(1)


def balanced(A: Tensor, B: Tensor) -> Pair:
    """The same product of factors about equally large, so that neither leaves the numbers of half precision: alpha / r can be 1 / 128,
    and what lies below 6e-5 has few digits there. Moves a power of two, which rounds nothing."""
    a, b = A.abs().max(), B.abs().max()
    if not (a > 0 and b > 0):
        return A, B
    shift = torch.exp2(torch.round(torch.log2(b / a) / 2))
    return A * shift, B / shift

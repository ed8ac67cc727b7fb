"""Kinds that act on what a layer says: OFT and BOFT rotate its channels, IA3 makes them louder. So they act on the rows of W, too.

Sources: Qiu et al. 2023 (OFT), sec. 3; Liu et al. 2023 (BOFT), sec. 4; Liu et al. 2022 (IA3), sec. 3.3;
KohakuBlueleaf/LyCORIS@f49d30d (modules/diag_oft.py, boft.py, ia3.py), kohya-ss/sd-scripts@48d368f (networks/oft.py).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.network.lora.change import Change, exact, heard, own


class OnOutput(Change):
    """What acts on channels of the output alone: `more` says what is added to W x, or to the columns of W."""

    def more(self, u: Float[Tensor, "... out"], s: float) -> Float[Tensor, "... out"]:
        raise NotImplementedError

    def delta(self, layer: nn.Module, strength: float = 1.0) -> Tensor:
        W = own(layer)
        W = W.to(exact(W, *self.buffers()))
        return self.more(W.flatten(1).T, strength).T.reshape(W.shape)

    def said(self, layer: nn.Module, x: Tensor, s: float, y: Tensor | None = None) -> Tensor:
        u = heard(layer, x, y)
        return self.more(u.movedim(1, -1), s).movedim(-1, 1) if isinstance(layer, nn.Conv2d) else self.more(u, s)


class Louder(OnOutput):
    """IA3 on the output: channel o is 1 + s w[o] times as loud. The layer's bias stays."""

    kind = "ia3"
    w: Float[Tensor, " out"]

    def __init__(self, w: Tensor, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("w", w)

    def more(self, u: Tensor, s: float) -> Tensor:
        return u * (self.w * s).to(u)


class Rotated(OnOutput):
    """OFT: groups of channels are rotated by R^T. `turn` (n b b) is R - I; at strength s the rotation is I + s turn.

    `rescale` (out), if any: a factor for each channel after it, which the strength doesn't damp (as LyCORIS trains it).
    """

    kind = "oft"
    turn: Float[Tensor, "n b b"]
    rescale: Float[Tensor, " out"] | None

    def __init__(self, turn: Tensor, rescale: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.linear = rescale is None
        self.register_buffer("turn", turn)
        self.register_buffer("rescale", rescale)

    def more(self, u: Tensor, s: float) -> Tensor:
        n, b, _ = self.turn.shape
        d = torch.einsum("kjm,...kj->...km", self.turn.to(u), u.unflatten(-1, (n, b))).flatten(-2) * s
        return d if self.rescale is None else _rescaled(u, d, self.rescale)


class Butterfly(OnOutput):
    """BOFT: m rotations one after another (here R, not R^T), each of channels that lie twice as far apart. `turn` (m n b b) is R - I."""

    kind = "boft"
    linear = False
    turn: Float[Tensor, "m n b b"]
    rescale: Float[Tensor, " out"] | None

    def __init__(self, turn: Tensor, rescale: Tensor | None = None, bias: Tensor | None = None) -> None:
        super().__init__(bias)
        self.register_buffer("turn", turn)
        self.register_buffer("rescale", rescale)

    def more(self, u: Tensor, s: float) -> Tensor:
        d = torch.zeros_like(u)  # what is added so far: half precision keeps more of it than of u + d
        half = self.turn.shape[-1] // 2
        for i, turn in enumerate(self.turn.to(u)):
            k = 2**i * half
            v = _shuffled(u + d, k).unflatten(-1, turn.shape[:2])
            v = torch.einsum("jac,...jc->...ja", turn, v).flatten(-2)
            d = d + s * _back(v, k)
        return d if self.rescale is None else _rescaled(u, d, self.rescale)


def _rescaled(u: Tensor, d: Tensor, rescale: Tensor) -> Tensor:
    """rescale (u + d) - u."""
    return u * (rescale - 1).to(u) + d * rescale.to(u)


def _shuffled(v: Float[Tensor, "... out"], k: int) -> Float[Tensor, "... out"]:
    """(c 2 k) to (c k 2): channels that are k apart beside each other."""
    return v.unflatten(-1, (-1, 2, k)).transpose(-1, -2).flatten(-3)


def _back(v: Float[Tensor, "... out"], k: int) -> Float[Tensor, "... out"]:
    return v.unflatten(-1, (-1, k, 2)).transpose(-1, -2).flatten(-3)


def cayley(blocks: Float[Tensor, "*n b b"], most: float = 0.0) -> Float[Tensor, "*n b b"]:
    """R - I for R = (I + Q) (I - Q)^-1, Q = blocks - blocks^T. If `most` > 0, Q's norm over all blocks together is at most that."""
    Q = blocks - blocks.transpose(-1, -2)
    q = Q.norm()
    if 0 < most < q:
        Q = Q * (most / q)
    eye = torch.eye(Q.shape[-1], dtype=Q.dtype, device=Q.device)
    return torch.linalg.solve(eye - Q, 2 * Q)  # R - I = 2 Q (I - Q)^-1, and the two commute

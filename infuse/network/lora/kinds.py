"""One reader for each kind: parameters of a module to its change. All that a layout may leave open (which side, which axis, whether a
matrix is kept in two) is decided here, by shapes.

Sources: as in `reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from torch import Tensor

from infuse.network.lora.change import Change
from infuse.network.lora.inputs import Generalised, LouderInput, RotatedInput, block_size, neumann
from infuse.network.lora.kronecker import Kronecker
from infuse.network.lora.low_rank import Hadamard, LowRank, Pair, balanced, folded, multiplied
from infuse.network.lora.module import Module
from infuse.network.lora.outputs import Butterfly, Louder, Rotated, cayley
from infuse.network.lora.whole import Replaced, Whole


def lora(m: Module) -> Change:
    """LoRA, LoCon; with a middle in Tucker's form."""
    A, B = m.need("lora_down.weight", "lora_up.weight")
    _matrices(m, A, B)
    if "lora_mid.weight" in m:
        A = _middle(m, A, m["lora_mid.weight"])
    r = m.rank(len(A), B.shape[1])
    A, B = m.shaped(A, r, *m.shape[1:]), m.shaped(B, m.shape[0], r)
    return _low(m, A, B * m.scale(len(m["lora_down.weight"])))


def loha(m: Module) -> Change:
    """Two low ranks, multiplied entry by entry. As factors if that is small: rank r^2 at most a quarter of the layer."""
    pairs: list[Pair] = []
    for i in (1, 2):
        B, A = m.need(f"hada_w{i}_a", f"hada_w{i}_b")
        _matrices(m, A, B)
        if f"hada_t{i}" in m:
            A, B = _middle(m, A, m[f"hada_t{i}"]), B.flatten(1).T  # with a middle it is stored the other way
        r = m.rank(len(A), B.shape[1])
        pairs.append((m.shaped(A, r, *m.shape[1:]), m.shaped(B, m.shape[0], r)))
    (A1, B1), two = pairs
    one = A1, B1 * m.scale(len(m["hada_w1_b"]))
    if 4 * len(A1) * len(two[0]) <= min(m.shape[0], m.numel // m.shape[0]):
        return _low(m, *multiplied(one, two), kind="loha")
    one, two = balanced(*one), balanced(*two)
    return Hadamard((m.kept(one[0]), m.kept(one[1])), (m.kept(two[0]), m.kept(two[1])))


def lokr(m: Module) -> Change:
    """A Kronecker product. Both factors whole: alpha says nothing (LyCORIS sets it to the rank; for peft `scale` says alpha / r)."""
    ranks = []
    if "lokr_w1" in m:
        (C,) = m.need("lokr_w1")
        _matrices(m, C)
    else:
        a, b = m.need("lokr_w1_a", "lokr_w1_b")
        _matrices(m, a, b)
        ranks.append(m.rank(a.flatten(1).shape[1], len(b)))
        C = a.flatten(1) @ b.flatten(1)
    if "lokr_w2" in m:
        A, B = m["lokr_w2"], None
        _matrices(m, A)
        o2 = len(A)
    else:
        B, A = m.need("lokr_w2_a", "lokr_w2_b")
        _matrices(m, A, B)
        ranks.insert(0, len(A))
        if "lokr_t2" in m:
            A, B = _middle(m, A, m["lokr_t2"]), B.flatten(1).T
        m.rank(len(A), B.shape[1])
        o2 = len(B)
    if C.ndim > 2:
        C = m.shaped(C, *C.shape[:2])
    if C.shape[0] * o2 != m.shape[0] or m.shape[1] % C.shape[1]:
        raise m.unlike("its factors don't fit")
    A = m.shaped(A, len(A), m.shape[1] // C.shape[1], *m.kernel)
    C = C * m.scale(ranks[0] if ranks else 0)
    if B is not None and C.numel() == 1:
        return _low(m, A, B * C, kind="lokr")
    if B is not None and A.numel() + B.numel() >= len(B) * A[0].numel():  # kept in two it would be larger
        A, B = (B @ A.flatten(1)).view(len(B), *A.shape[1:]), None
    if B is not None:
        A, B = balanced(A, B)
    return Kronecker(m.kept(C), m.kept(A), None if B is None else m.kept(B))


def glora(m: Module) -> Change:
    """W A + B. Old files call what is near the input a1 and b1, LyCORIS' own a2 and b2."""
    a1, a2, b1, b2 = (
        t.flatten(1) if t.ndim > 1 else t for t in m.need("a1.weight", "a2.weight", "b1.weight", "b2.weight")
    )
    _matrices(m, a1, a2, b1, b2)
    out, inside = m.shape[:2]
    old = a1.shape[0] == a2.shape[1] == b1.shape[0] == b2.shape[1] and a2.shape[0] == inside and b2.shape[0] == out
    new = a1.shape[1] == a2.shape[0] == b1.shape[1] == len(b2) and a1.shape[0] == inside and b1.shape[0] == out
    if old and new:
        old = a2.shape[0] == out == inside
    if not old and not new:
        raise m.unlike("doesn't fit")
    (down, grow), (A, B) = ((a1, a2), (b1, b2)) if old else ((a2, a1), (b2, b1))
    if "bm.weight" in m:
        A = _middle(m, A, m["bm.weight"])
    r = m.rank(len(down), grow.shape[1], len(A), B.shape[1])
    A = m.shaped(A, r, *m.shape[1:])
    scale = m.scale(r)
    inner = balanced(m.shaped(down, r, inside), m.shaped(grow, inside, r) * scale)
    outer = balanced(A, m.shaped(B, out, r) * scale)
    return Generalised((m.kept(inner[0]), m.kept(inner[1])), (m.kept(outer[0]), m.kept(outer[1])))


def oft(m: Module) -> Change:
    """Rotations of the output: one for each group (3-D), or a butterfly of them (4-D). alpha is no scale, but bounds the rotation."""
    name = "oft_blocks" if "oft_blocks" in m else "oft_diag"
    blocks, out = m[name], m.shape[0]
    _layer(m)
    if blocks.ndim not in (3, 4) or blocks.shape[-1] != blocks.shape[-2] or blocks.shape[-3] * blocks.shape[-1] != out:
        raise m.unlike("its rotations don't fit")
    if name == "oft_diag":
        # of October 2023: R - I, and from November on R
        mean = blocks.diagonal(dim1=-2, dim2=-1).mean()
        eye = blocks.new_zeros(blocks.shape[-2:]).fill_diagonal_(1.0)
        turn = blocks if mean < 0.5 else blocks - eye
    else:
        turn = cayley(blocks, m.alpha * out)
    rescale = m.vector(m["rescale"], out) if "rescale" in m else None
    if blocks.ndim == 3:
        return Rotated(m.kept(turn), rescale)
    m_, n, b, _ = blocks.shape
    if b % 2 or (2 ** (m_ - 1)) * b > out or out % (2 ** (m_ - 1) * b):
        raise m.unlike(f"{m_} rotations one after another don't fit")
    return Butterfly(m.kept(turn), rescale)


def oft2(m: Module) -> Change:
    """Rotations of the input, as peft and OneTrainer have them."""
    (packed,) = m.need("oft_R.weight")
    _layer(m)
    if "oft_R.scaled_oft" in m:
        raise m.letter(
            "is a scaled OFT of OneTrainer, of which versions disagree how much it is scaled. Train it with plain OFT,"
            " or as a LoRA."
        )
    b = block_size(packed.shape[1]) if packed.ndim == 2 else 0
    inside = m.numel // m.shape[0]
    if not b or inside % b or len(packed) not in (1, inside // b):
        raise m.unlike("its rotations don't fit")
    return RotatedInput(m.kept(neumann(packed)))


def ia3(m: Module) -> Change:
    w, side = m.need("weight", "on_input")
    _layer(m)
    if side.numel() != 1:
        raise m.letter(f"on_input is yes or no, and here it has {side.numel()} numbers.")
    on_input = bool(side)
    w = m.vector(w, m.shape[1] if on_input else m.shape[0])
    return LouderInput(w) if on_input else Louder(w)


def diff(m: Module) -> Change:
    return Whole(m.vector(m["diff"], m.shape[0]) if m.norm else m.kept(m.shaped(m["diff"], *m.shape)))


def norm(m: Module) -> Change:
    if not m.norm:
        raise m.unlike("is of a norm, and this layer isn't one")
    w = m.vector(m["w_norm"], m.shape[0]) if "w_norm" in m else m.zeros(*m.shape)
    return Whole(w, kind="norm")


def replaced(m: Module) -> Change:
    if m.whole != m.shape:
        raise m.unlike("is a whole weight, and of another shape")
    return Replaced(m.vector(m["set_weight"], m.shape[0]) if m.norm else m.kept(m.shaped(m["set_weight"], *m.shape)))


READERS: Mapping[str, Callable[[Module], Change]] = {
    "lora": lora, "loha": loha, "lokr": lokr, "glora": glora, "oft": oft, "oft2": oft2, "ia3": ia3, "diff": diff, "norm": norm,
    "set": replaced,
}  # fmt: skip


def _low(m: Module, A: Tensor, B: Tensor, kind: str = "lora") -> Change:
    A, B = balanced(A, B)
    return LowRank(m.kept(A), m.kept(B), kind=kind)


def _middle(m: Module, A: Tensor, middle: Tensor) -> Tensor:
    """Tucker's form with its middle folded into A."""
    if middle.ndim != 4 or tuple(middle.shape[2:]) != m.kernel or middle.shape[1] != len(A):
        raise m.unlike("its middle doesn't fit")
    return folded(A, middle)


def _matrices(m: Module, *tensors: Tensor) -> None:
    """Factors are matrices, of a layer that has one."""
    _layer(m)
    for t in tensors:
        if t.ndim < 2:
            raise m.unlike("its factors are no matrices")
        if prod(t.shape) == 0:
            raise m.letter("has rank 0: there is nothing in it. The file is broken.")


def _layer(m: Module) -> None:
    if m.norm:
        raise m.unlike("is of a linear layer or a convolution, and this is a norm")

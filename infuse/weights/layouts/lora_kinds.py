"""What a LoRA does to one module, told by the shapes of its parameters: by which algebra, of which rank, to how large a matrix.

Files mix algebras, so each module is asked by itself. What is missing or does not fit together is said here, before anything
is loaded. Imports no torch.

Source: the shapes as KohakuBlueleaf/LyCORIS @ f49d30d, kohya-ss/sd-scripts @ 48d368f and huggingface/peft @ 5d602fd write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import prod

from infuse.weights.layouts.lora_names import Shape

Leaves = Mapping[str, Shape]
"""Parameter of a module, in the names of `lora_names.split` -> shape."""

KINDS: tuple[tuple[str, str], ...] = (
    ("lora", r"lora_(down|up|mid)\.weight"), ("loha", r"hada_.*"), ("lokr", r"lokr_.*"), ("oft", r"oft_(blocks|diag)"), ("oft2", r"oft_R\..*"),
    ("glora", r"[ab][12]\.weight|bm\.weight"), ("ia3", r"on_input"), ("norm", r"[wb]_norm"), ("diff", "diff"), ("set", "set_weight"),
)  # fmt: skip
"""Kind -> the parameters that only it has."""
MAGNITUDES = ("dora_scale", "lora_magnitude_vector.weight")


@dataclass(frozen=True)
class Told:
    """What one module's parameters are. `kind` is "" where they are of no change at all."""

    kind: str
    rank: int | None = None
    rows: int | None = None
    """Of the change as a matrix: what the layer puts out. None where the shapes don't tell."""
    columns: int | None = None
    """What the layer reads, times the places of its kernel."""
    fault: str = ""
    """What is wrong with them, as the end of a sentence that begins with the module's name."""
    dora: bool = False

    @property
    def described(self) -> str:
        return f"dora {self.kind}" if self.dora else self.kind


@cache
def kind_of(leaf: str) -> str:
    """The kind that a parameter belongs to; "" for one that several have."""
    return next((kind for kind, own in KINDS if re.fullmatch(own, leaf)), "")


def told(leaves: Leaves) -> Told:
    """Kind, rank and size of one module's change; never raises."""
    kinds = sorted({kind for leaf in leaves if (kind := kind_of(leaf))})
    dora = any(m in leaves for m in MAGNITUDES)
    if not kinds:
        return Told("bias", None, prod(leaves["diff_b"])) if "diff_b" in leaves else Told("")
    if len(kinds) > 1:
        return Told(kinds[0], fault=f"is changed in two ways at once ({' and '.join(kinds)})", dora=dora)
    kind = kinds[0]
    if kind == "oft" and len(leaves.get("oft_blocks", ())) == 4:
        kind = "boft"
    if void := next((leaf for leaf, shape in leaves.items() if 0 in shape), None):
        rank = kind in ("lora", "loha", "lokr", "glora")
        return Told(kind, 0, fault="has rank 0" if rank else f"has a {void} of no numbers", dora=dora)
    if prod(leaves.get("alpha", ())) != 1:
        return Told(kind, fault=f"has an alpha of {prod(leaves['alpha'])} numbers", dora=dora)
    try:
        rank, rows, columns = READERS[kind](leaves)
    except Unfit as e:
        down = leaves.get("lora_down.weight") or (None,)
        return Told(kind, down[0], columns=prod(down[1:]) if len(down) > 1 else None, fault=str(e), dora=dora)
    except (IndexError, KeyError, ValueError):
        return Told(kind, fault=f"has parameters of shapes that make no {kind}", dora=dora)
    return Told(kind, rank, rows, columns, dora=dora)


class Unfit(Exception):
    """Parameters that do not make a change."""


Read = tuple[int | None, int | None, int | None]
"""Rank, rows, columns."""


def _has(leaves: Leaves, *names: str) -> None:
    lacks = next((n for n in names if n not in leaves), None)
    if lacks is not None:
        there = next((n for n in leaves if kind_of(n)), "")
        raise Unfit(f"has {there} and no {lacks}")


def _fits(what: str, *numbers: int) -> None:
    if len(set(numbers)) > 1:
        raise Unfit(f"has factors that do not fit each other ({what} {' and '.join(map(str, dict.fromkeys(numbers)))})")


def _lora(leaves: Leaves) -> Read:
    _has(leaves, "lora_down.weight", "lora_up.weight")
    down, up = leaves["lora_down.weight"], leaves["lora_up.weight"]
    rank, columns = down[0], prod(down[1:])
    _fits("ranks", rank, up[1])
    if mid := leaves.get("lora_mid.weight"):
        _fits("ranks", rank, *mid[:2])
        columns *= prod(mid[2:])
    if prod(up[2:]) != 1:
        raise Unfit(f"has a lora_up.weight of shape {up}, whose kernel is not 1")
    return rank, up[0], columns


def _pair(leaves: Leaves, a: str, b: str, middle: str) -> tuple[int, int, int]:
    """Rank, rows and columns of one product of two factors, around a middle if there is one (a's sides are then swapped)."""
    _has(leaves, a, b)
    one, two, mid = leaves[a], leaves[b], leaves.get(middle)
    if mid:
        _fits("ranks", one[0], two[0], *mid[:2])
        return one[0], one[1], prod(two[1:]) * prod(mid[2:])
    _fits("ranks", one[1], two[0])
    return two[0], one[0], prod(two[1:])


def _loha(leaves: Leaves) -> Read:
    first = _pair(leaves, "hada_w1_a", "hada_w1_b", "hada_t1")
    second = _pair(leaves, "hada_w2_a", "hada_w2_b", "hada_t2")
    _fits("rows", first[1], second[1])
    _fits("columns", first[2], second[2])
    return first


def _lokr(leaves: Leaves) -> Read:
    factors: list[Read] = []
    for name, middle in (("lokr_w1", ""), ("lokr_w2", "lokr_t2")):
        whole = leaves.get(name)
        if whole:
            factors.append((None, whole[0], prod(whole[1:])))
        else:
            factors.append(_pair(leaves, f"{name}_a", f"{name}_b", middle))
    (r1, o1, i1), (r2, o2, i2) = factors
    return r2 or r1, (o1 or 0) * (o2 or 0), (i1 or 0) * (i2 or 0)


def _oft(leaves: Leaves) -> Read:
    count, side, other = (leaves.get("oft_blocks") or leaves["oft_diag"])[-3:]
    _fits("sides", side, other)
    return None, count * side, None


def _oft2(leaves: Leaves) -> Read:
    _has(leaves, "oft_R.weight")
    return None, None, None  # one block for all that is read, or one for each part of it


def _glora(leaves: Leaves) -> Read:
    _has(leaves, "a1.weight", "a2.weight", "b1.weight", "b2.weight")
    a1, a2, b1, b2 = (leaves[f"{n}.weight"] for n in ("a1", "a2", "b1", "b2"))
    was = b2[1] == b1[0] == a1[0] == a2[1]  # a1 (r in) a2 (in r) b1 (r in) b2 (out r), of LyCORIS' first versions
    now = b1[1] == b2[0] == a1[1] == a2[0]
    old = was and not (now and a2[0] < a1[0])  # where both fit, the rank is the smaller number
    return (a1[0], b2[0], prod(b1[1:])) if old else (a2[0], b1[0], prod(b2[1:]))


def _ia3(leaves: Leaves) -> Read:
    _has(leaves, "weight", "on_input")
    return None, None, None  # which side its numbers are of, a tensor says


def _norm(leaves: Leaves) -> Read:
    return None, prod(leaves.get("w_norm") or leaves["b_norm"]), 1


def _diff(leaves: Leaves) -> Read:
    shape = leaves.get("diff") or leaves["set_weight"]
    return None, shape[0], prod(shape[1:])


READERS = {"lora": _lora, "loha": _loha, "lokr": _lokr, "oft": _oft, "boft": _oft, "oft2": _oft2, "glora": _glora, "ia3": _ia3, "norm": _norm, "diff": _diff, "set": _diff}  # fmt: skip

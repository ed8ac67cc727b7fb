"""ControlNet-LLLite as a condition of kind controlnet: a hint in -1..1 that is read in front of attention's projections.

Every term of a file is named after a projection of its base, in the names of original checkpoints; which one that is, and
whether it fits, is found out here. Source: kohya-ss/sd-scripts, networks/control_net_lllite.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from infuse.conditions.base import Route, View
from infuse.errors import RecipeError, WeightsError
from infuse.media.pictures import px
from infuse.network.ldm_names import Projection, projections
from infuse.network.spec import NetworkSpec
from infuse.ports import Residual

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

FRONT = "lllite_unet_"
REDUCTION: Mapping[int, int] = {1: 8, 2: 16, 3: 32}
"""Depth of a term -> pixels of the hint a side that become one place."""


def terms(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of each term's weights; keys are split at the first dot, what stands before a term's name is dropped."""
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for key, shape in shapes.items():
        name, _, leaf = key[max(key.find(FRONT), 0) :].partition(".")
        found.setdefault(name, {})[leaf] = shape
    return found


def places(names: Iterable[str], net: NetworkSpec) -> dict[str, Projection | None]:
    """The projection of this base that each term is named after; None if it has none of this name."""
    known = projections(net)
    return {name: known.get(name.removeprefix(FRONT)) for name in names}


def depth_of(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """1, 2 or 3: how far the convolutions of a term reduce the hint."""
    if "conditioning1.4.weight" in shapes:
        return 3
    return 2 if shapes["conditioning1.2.weight"][-1] == 4 else 1


def check(model: str, shapes: Mapping[str, tuple[int, ...]], memory: int, net: NetworkSpec, view: View, *,
          mode: str = "balanced", sites: Any = None) -> Route:  # fmt: skip
    """Where a LLLite's file enters this base. `mode` and `sites` are the condition's own.

    Raises WeightsError if a term has no place in this base, or another width; RecipeError for what a LLLite has not.
    """
    for field, asked in (("sites", sites is not None), ("mode", mode != "balanced")):
        if asked:
            raise RecipeError(field, f"{model!r} is a ControlNet-LLLite, which speaks in front of attention and has no sites to weigh one by "
                                     "one. Remove it; weight, start, end and applies_to are heard.")  # fmt: skip
    own = terms(shapes)
    found = places(own, net)
    for name, place in found.items():
        _fits(model, name, own[name], place, net)
    deepest = max(map(depth_of, own.values()))
    if min(view.size) < REDUCTION[deepest]:
        raise RecipeError("image", f"{model!r} reduces its hint {REDUCTION[deepest]} times, and the picture to be made is {px(view.size)}. "
                                   f"Make it at least {REDUCTION[deepest]} px a side.")  # fmt: skip
    # SD 1.x's middle lies one level deeper than a term can reach
    odd = [name for name, p in found.items() if p is not None and depth_of(own[name]) != min(p.level + 1, 3)]
    note = f"model: {len(odd)} of the {len(own)} terms of {model!r} read the hint coarser or finer than their layers of {net.name} see it " \
           f"(first: {odd[0]}). It may have been made for another network." if odd else ""  # fmt: skip
    return Route("residuals", f"{len(own)} projections of attention", memory, "LLLite", warnings=(note,) * bool(odd))


def _fits(
    model: str, name: str, own: Mapping[str, tuple[int, ...]], place: Projection | None, net: NetworkSpec
) -> None:
    """Raises WeightsError unless a term is whole and reads what this base has there."""
    missing = [
        f"{part}.{leaf}"
        for part in ("conditioning1.0", "conditioning1.2", "down.0", "mid.0", "up.0")
        for leaf in ("weight", "bias")
        if f"{part}.{leaf}" not in own
    ]
    if missing:
        raise WeightsError("model", f"{model!r} is incomplete: {name} has no {missing[0]}. Download it again, or choose another file.")  # fmt: skip
    if place is None:
        raise WeightsError("model", f"{model!r} has a term for {name.removeprefix(FRONT)}, and {net.described}, has no such projection: the file "
                                    "belongs to another base. Released LLLites are for SDXL.")  # fmt: skip
    if place.reads_text:
        raise WeightsError("model", f"{model!r} has a term for {name.removeprefix(FRONT)}, which reads the text and not the picture: a hint has "
                                    "no place there. Choose another file.")  # fmt: skip
    if own["down.0.weight"][-1] != place.width:
        raise WeightsError("model", f"{model!r} reads {own['down.0.weight'][-1]} channels at {name.removeprefix(FRONT)}, and {net.described}, has "
                                    f"{place.width} there: the file belongs to another base. Released LLLites are for SDXL.")  # fmt: skip


def residual(branch: Any, hint: Float[Tensor, "3 height width"] | Float[Tensor, "3 f height width"]) -> Residual:
    """What a LLLite says of a hint in 0-1, on both sides of guidance: it was trained on -1..1."""
    return Residual(branch, 2 * hint - 1)

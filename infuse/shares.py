"""How several regions share one place: by their weights where they overlap, and what is left for whoever is in none of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def shared_out(
    masks: Sequence[Float[Tensor, "*places"]], weights: Sequence[float], rests: Sequence[float]
) -> tuple[list[Float[Tensor, "*places"]], Float[Tensor, "*places"]]:
    """(each region's share, what is left): they add up to 1 at every place.

    masks: 0-1. weights: 0 or more; a region of weight 0 is not there. rests: how much each leaves where it is (0-1);
    where none is, all is left. Source: attention couple (laksjdjf/cgem156-ComfyUI@884563c), base ratio (hako-mikan/sd-webui-regional-prompter@be62345).
    """
    loud = [w * m for w, m in zip(weights, masks, strict=True)]
    total = sum(loud[1:], start=loud[0])
    there = sum((m for w, m in zip(weights, masks, strict=True) if w), start=0 * loud[0]).clamp(max=1)
    each = [(1 - r) * there * m / total.clamp(min=1e-9) for m, r in zip(loud, rests, strict=True)]
    return each, 1 - sum(each[1:], start=each[0])

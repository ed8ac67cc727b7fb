"""A clip longer than the network's own is seen in overlapping stretches, and their answers are blended into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def windows(count: int, native: int) -> tuple[tuple[int, int], ...]:
    """Stretches of `native` frames that cover a clip of `count`, each overlapping the one before by a quarter or more.

    None for a network of pictures (`native` 0).
    """
    if not native:
        return ()
    if count <= native:
        return ((0, count),)
    stride = max(native - native // 4, 1)
    starts = [*range(0, count - native, stride), count - native]
    return tuple((a, a + native) for a in starts)


def blended(answers: Float[Tensor, "windows c n h w"], windows: Sequence[tuple[int, int]]) -> Float[Tensor, "c f h w"]:
    """One answer for the whole clip. Where windows overlap, each counts the more the farther a frame is from its ends.

    The temporal form of MultiDiffusion (Bar-Tal et al. 2023, eq. 5). A frame that only one window sees is that window's.
    """
    import torch

    n, total = answers.shape[2], windows[-1][1]
    ramp = torch.arange(n, device=answers.device, dtype=answers.dtype)
    ramp = torch.minimum(ramp + 1, n - ramp)[:, None, None]
    out = answers.new_zeros(answers.shape[1], total, *answers.shape[3:])
    weight = answers.new_zeros(total, 1, 1)
    for answer, (a, b) in zip(answers, windows, strict=True):
        out[:, a:b] += ramp * answer
        weight[a:b] += ramp
    return out / weight

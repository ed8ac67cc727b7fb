"""A ControlNet unit may correct what the base believes the picture to be: its colours (tile), or what lies in no hole (inpaint).

Neither is said to the network; both are edits of x0, the clean latent that an answer stands for. So they are functions of one row's
answer, for networks that predict epsilon. Source: Mikubill/sd-webui-controlnet@56cec5b (scripts/hook.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Edit = Callable[[Tensor], Tensor]
"""Of x0 (b c h w)."""


def corrected(
    answer: Float[Tensor, "b c h w"], x: Float[Tensor, "b c h w"], alpha: float | Tensor, edit: Edit, share: float = 1.0
) -> Float[Tensor, "b c h w"]:
    """The answer (epsilon) of which the x0 was edited. alpha: the cumulative one at this timestep; share: how much of the edited
    answer is taken (a unit's weight, 0-1)."""
    a = torch.as_tensor(alpha, dtype=x.dtype, device=x.device)
    x0 = edit((x - (1 - a).sqrt() * answer) / a.sqrt())
    share = min(max(share, 0.0), 1.0)
    return share * (x - a.sqrt() * x0) / (1 - a).sqrt() + (1 - share) * answer


def colours_of(known: Float[Tensor, "b c h w"], radius: int) -> Edit:
    """Low frequencies are those of a known latent (tile_colorfix)."""
    return lambda x0: x0 - box(x0, radius) + box(known.to(x0), radius)


def softer(edit: Edit, radius: int, sharpness: float) -> Edit:
    """On the silent side of `sharpness` (0-2) above 0 (tile_colorfix+sharp): edited, then a little blurred, so that guidance sharpens."""
    a = sharpness

    def blurred(x0: Tensor) -> Tensor:
        x0 = edit(x0)
        return a * box(x0, radius) + (1 - a) * x0

    return blurred


def kept(known: Float[Tensor, "b c h w"], hole: Float[Tensor, "b 1 h w"]) -> Edit:
    """Outside of a hole x0 is a known latent (inpaint_only)."""
    return lambda x0: x0 * hole + known.to(x0) * (1 - hole)


def wide(hole: Float[Tensor, "b 1 height width"]) -> Float[Tensor, "b 1 h w"]:
    """A hole on the latent's grid as inpaint_only has it: wherever it comes within a pixel of a place."""
    return F.max_pool2d(hole, 10, stride=8, padding=1)


def box(z: Float[Tensor, "b c h w"], radius: int) -> Float[Tensor, "b c h w"]:
    """The mean over 2 radius + 1 places a side, the rim repeated."""
    n = 2 * radius + 1
    return F.avg_pool2d(F.pad(z, (radius,) * 4, mode="replicate"), n, stride=1)

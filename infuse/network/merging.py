"""Tokens that are alike attend as one (token merging for Stable Diffusion): lossy, and never done unless a recipe asks for it.

Places of even row and column are kept; of all others, those that are most like one of them are merged into it: queries, keys and
values are averaged, and what comes out is heard at all places of the group. Projections are linear, so that averaging behind them
is what the paper does before them; whatever else speaks in a projection is averaged with it. Nothing is drawn at random, and
each row is merged by itself. Source: Bolya and Hoffman 2023, arXiv:2303.17604, with a 2 x 2 stride, self-attention only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


class Merging:
    """Which places of x (b n c) on a grid (h, w) become one. share: of all places, those that are merged into others."""

    def __init__(self, x: Tensor, grid: tuple[int, int], share: float) -> None:
        h, w = grid
        at = torch.arange(h * w, device=x.device).view(h, w)
        self.kept = at[::2, ::2].flatten()
        even = torch.zeros(h * w, dtype=torch.bool, device=x.device)
        even[self.kept] = True
        others = at.flatten()[~even]
        unit = F.normalize(x, dim=-1)
        best, to = (unit[:, others] @ unit[:, self.kept].mT).max(-1)
        n = min(int(h * w * share), len(others))
        order = others[best.argsort(dim=-1, descending=True, stable=True)]
        self.gone, self.left = order[:, :n], order[:, n:].sort(-1).values
        self.to = torch.zeros(len(x), h * w, dtype=torch.int64, device=x.device)
        self.to[:, others] = to
        self.into = self.to.gather(1, self.gone)
        """Of each that is gone: the number of the kept place that it is merged into."""

    def merged(self, x: Tensor) -> Tensor:
        """(b heads n d) to (b heads m d): those that are left alone, then those that are kept, with their group's mean."""
        left, gone = (x.gather(2, spread(i, x)) for i in (self.left, self.gone))
        size = F.one_hot(self.into, len(self.kept)).sum(1)[:, None, :, None].to(x.dtype) + 1
        if x.device.type == "cpu":
            kept = x[:, :, self.kept].scatter_add(2, spread(self.into, x), gone)
        else:  # a product sums in one order; a GPU's scattered sums take the order in which they come
            kept = x[:, :, self.kept] + F.one_hot(self.into, len(self.kept)).to(x.dtype).mT[:, None] @ gone
        return torch.cat([left, kept / size], 2)

    def apart(self, y: Tensor) -> Tensor:
        """(b m c) to (b n c): what a group has heard, at each of its places."""
        m = self.left.shape[1]
        out = y.new_empty(len(y), self.to.shape[1], y.shape[2])
        out[:, self.kept] = y[:, m:]
        out.scatter_(1, self.left[..., None].expand(-1, -1, y.shape[2]), y[:, :m])
        heard = y[:, m:].gather(1, self.into[..., None].expand(-1, -1, y.shape[2]))
        return out.scatter_(1, self.gone[..., None].expand(-1, -1, y.shape[2]), heard)


def spread(places: Tensor, x: Tensor) -> Tensor:
    """Indices (b k) as `gather` wants them for (b heads n d)."""
    return places[:, None, :, None].expand(-1, x.shape[1], -1, x.shape[3])

"""ControlNet-LLLite: in front of attention's projections stand small networks, which read the hint and add to what is projected.

P'(x) = P(x + y), y = up(relu(mid([E | relu(down(x))]))), where E are a few strided convolutions of the hint. Any subset of a
base's projections may have one. Source: kohya-ss/sd-scripts, networks/control_net_lllite.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

STRIDES: Mapping[int, tuple[int, ...]] = {1: (4, 2), 2: (4, 4), 3: (4, 4, 2)}
"""Depth -> kernel and stride of each convolution: 8, 16 or 32 pixels of the hint a side become one place."""


class Term(nn.Module):
    """What is added in front of one projection. E does not depend on the features: it is made of the hint alone."""

    def __init__(self, width: int, embedding: int, inner: int, depth: int) -> None:
        super().__init__()
        strides, half = STRIDES[depth], embedding // 2
        widths = [3, *(half,) * (len(strides) - 1), embedding]
        convolutions = [nn.Conv2d(a, b, s, s) for a, b, s in zip(widths, widths[1:], strides, strict=False)]
        self.conditioning1 = nn.Sequential(*(m for c in convolutions for m in (c, nn.ReLU())))[:-1]
        self.down = nn.Sequential(nn.Linear(width, inner), nn.ReLU())
        self.mid = nn.Sequential(nn.Linear(inner + embedding, inner), nn.ReLU())
        self.up = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x: Float[Tensor, "k n c"], embedded: Float[Tensor, "k n e"]) -> Float[Tensor, "k n c"]:
        return self.up(self.mid(torch.cat([embedded, self.down(x)], dim=-1)))


class LLLite(nn.Module):
    """All terms of a file, under the file's own names. `places`: (attention's module path, to_q | to_k | to_v) -> name."""

    place = "projections"
    sites = 1

    def __init__(self, terms: Mapping[str, Term], places: Mapping[tuple[str, str], str]) -> None:
        super().__init__()
        self.places = dict(places)
        for name, term in terms.items():
            self.add_module(name, term)

    def embedded(self, hints: Float[Tensor, "k 3 height width"]) -> dict[str, Float[Tensor, "k e h w"]]:
        """E of every term: what its convolutions say of hints in -1..1."""
        return {name: self.term(name).conditioning1(hints) for name in self.places.values()}

    def speaks(self, path: str, name: str) -> bool:
        """Has this file a term for that projection?"""
        return (path, name) in self.places

    def projected(
        self,
        path: str,
        name: str,
        x: Float[Tensor, "k n c"],
        state: Mapping[str, Tensor],
        grid: tuple[int, int],
    ) -> Float[Tensor, "k n c"] | None:
        """What is added to `x` before it is projected; None where this file has no term.

        `grid`: (h, w) of the layer, n = h w. Strided convolutions round down where a UNet rounds up, and SD 1.x's middle is
        halved once more than its terms: E is laid on the grid by the nearest place, as in the webui.
        """
        found = self.places.get((path, name))
        if found is None:
            return None
        e = state[found]
        if e.shape[-2:] != grid:
            e = F.interpolate(e, size=grid, mode="nearest-exact")
        return self.term(found)(x, e.flatten(2).transpose(1, 2))

    def term(self, name: str) -> Term:
        found = self._modules[name]
        assert isinstance(found, Term)
        return found

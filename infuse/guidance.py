"""Guidance is a weighted sum of answers, each given with only some conditions speaking. CFG is two terms of it.

`chain` builds the sum for any number of scales: nobody, then one guided condition more at each term. With the prompt
alone it is classifier-free guidance (Ho & Salimans 2022, eq. 6); with a picture before it, InstructPix2Pix's eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


@dataclass(frozen=True)
class Term:
    """weight * (the network's answer when only the guided conditions in `speaks` are on)."""

    weight: float
    speaks: frozenset[str]


@dataclass(frozen=True)
class Guidance:
    """result = sum of weight * answer; `rescale` (0-1) pulls its spread to that of the last term's answer."""

    terms: tuple[Term, ...]
    rescale: float = 0.0

    def combine(self, answers: Float[Tensor, "terms c h w"] | Sequence[Tensor]) -> Float[Tensor, "c h w"]:
        """One answer from all terms, in their order.

        Rescaling: Lin et al. 2023 (Common Diffusion Noise Schedules), sec. 3.4.
        """
        import torch

        if len(self.terms) == 1:
            return answers[0]
        out = (
            answers[0] + sum(t * (a - answers[0]) for t, a in zip(self.scales[1:], answers[1:], strict=True))
            if len(self.terms) == 2
            else torch.stack([t.weight * a for t, a in zip(self.terms, answers, strict=True)]).sum(0)
        )
        if self.rescale:
            out = self.rescale * out * (answers[-1].std() / out.std()) + (1 - self.rescale) * out
        return out

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(t.weight for t in self.terms)


def chain(everybody: Sequence[str], scales: Mapping[str, float], rescale: float = 0.0) -> Guidance:
    """D(nobody) + g1 (D(first) - D(nobody)) + g2 (D(first, second) - D(first)) ...; the last term lets everybody speak.

    `scales` maps a condition to its guidance scale, in the order of the chain; equal neighbours share a term and a
    scale of 1 at the end leaves a single term: one row a step.
    """
    names, g = list(scales), list(scales.values())
    sets = [frozenset(names[:i]) for i in range(len(names))] + [frozenset(everybody)]
    weights = [(g[i - 1] if i else 1.0) - (g[i] if i < len(g) else 0.0) for i in range(len(sets))]
    return Guidance(tuple(Term(w, s) for w, s in zip(weights, sets, strict=True) if w != 0), rescale)

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
    part: str = ""
    """Whose words alone are heard instead of the others' that guidance pulls towards (AND, latent couple)."""


@dataclass(frozen=True)
class Guidance:
    """result = sum of weight * answer; `rescale` (0-1) pulls its spread to that of the last term's answer."""

    terms: tuple[Term, ...]
    rescale: float = 0.0

    def combine(
        self,
        answers: Float[Tensor, "terms c h w"] | Sequence[Tensor],
        where: Mapping[str, Float[Tensor, "h w"]] | None = None,
    ) -> Float[Tensor, "c h w"]:
        """One answer from all terms, in their order. where: regions of parts, outside of which they pull nowhere: there the answer
        of a part is taken to be that of nobody.

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
        if where:
            first = next(i for i, t in enumerate(self.terms) if t.part)
            nobody = answers[first - 1]
            for t, a in zip(self.terms, answers, strict=True):
                if t.part in where:
                    out = out + t.weight * (where[t.part].to(a) - 1) * (a - nobody)
        if self.rescale:
            out = self.rescale * out * (answers[-1].std() / out.std()) + (1 - self.rescale) * out
        return out

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(t.weight for t in self.terms)


def chain(
    everybody: Sequence[str],
    scales: Mapping[str, float],
    rescale: float = 0.0,
    parts: Mapping[str, float] | None = None,
    regional: bool = False,
) -> Guidance:
    """D(nobody) + g1 (D(first) - D(nobody)) + g2 (D(first, second) - D(first)) ...; the last term lets everybody speak.

    `scales` maps a condition to its guidance scale, in the order of the chain; equal neighbours share a term and a
    scale of 1 at the end leaves a single term: one row a step. `parts` are who takes turns as the last in the chain, with
    weights that multiply its scale: instead of one last term there is one for each, with nobody else of them (Liu et al. 2022,
    Composable Diffusion, eq. 11; the sum as in AUTOMATIC1111's AND). regional: parts have regions, so that nobody's answer is
    needed whatever the weights.
    """
    names, g = list(scales), list(scales.values())
    sets = [frozenset(names[:i]) for i in range(len(names))] + [frozenset(everybody)]
    weights = [(g[i - 1] if i else 1.0) - (g[i] if i < len(g) else 0.0) for i in range(len(sets))]
    if not parts or (len(parts) == 1 and not regional and set(parts.values()) == {1.0}):
        return Guidance(tuple(Term(w, s) for w, s in zip(weights, sets, strict=True) if w != 0), rescale)
    last = g[-1]
    weights[-2] += last * (1 - sum(parts.values()))
    terms = [Term(w, s) for w, s in zip(weights[:-1], sets[:-1], strict=True) if w != 0 or (regional and s is sets[-2])]
    for who, w in parts.items():
        if w != 0:
            terms.append(Term(last * w, sets[-1] - (parts.keys() - {who}), who))
    return Guidance(tuple(terms), rescale)

"""All holes of a recipe are one field, whatever conditions they come from: what lies in none of them is kept.

After each step the kept part of the latent is put back at the noise level of the next step, and in the end its pixels are
put back in the picture. How much a hole counts, the timetable says; where it is grey, it opens later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.ports import Latent, Sides
from infuse.timetable import Timetable


def holes(sides: Mapping[str, Sides]) -> list[tuple[str, Latent]]:
    """(who, hole) of everyone who brings one. What is kept is no side's of guidance: `on` has it."""
    return [(who, e) for who, s in sides.items() for e in s.on.latent if e.hole is not None]


def kept(open_: Sequence[tuple[float, Float[Tensor, "1 h w"], bool]]) -> Float[Tensor, "1 h w"] | None:
    """How much of each place is kept, 0-1, from (weight, hole, does it hold what is outside); None if nobody holds.

    max of w (1 - hole) over those who hold, times 1 - w hole for every hole: what lies in none is kept as firmly as the
    firmest wants; a hole of weight 1 is open whoever else would keep it, and one of weight 0 is not there.
    """
    holding = [w * (1 - hole) for w, hole, holds in open_ if holds]
    if not holding:
        return None
    return reduce(torch.mul, (1 - w * hole for w, hole, _ in open_), reduce(torch.maximum, holding))


def released(hole: Float[Tensor, "*c h w"], done: float) -> Float[Tensor, "*c h w"]:
    """What of a hole is open (1) once so much (0-1) of the run is done: a place of 0.3 for the last 0.3 of it, one of 0 never.

    Source: Levin and Fried 2023 (differential diffusion): kept while 1 - hole > i / n before evaluation i of n. Theirs lets go of
    everything for the last step; what lies in no hole stays here.
    """
    return ((hole > 0) & (1 - hole <= done)).to(hole)


@dataclass(eq=False)
class Hold:
    """Blend inpainting: after each step the known part is put back, noised to the level of the next step.

    Source: diffusers' StableDiffusionInpaintPipeline for 4-channel networks; one noise for the whole run.
    """

    scheduler: Any
    holes: Sequence[tuple[str, Latent]]
    known: Float[Tensor, "c h w"]
    noise: Float[Tensor, "c h w"]
    timetable: Timetable
    i: int = -1
    """The evaluation that was answered last; samplers of second order answer two a step."""

    def __call__(self, x: Tensor, t: Tensor | None) -> Tensor:
        weights, done = self.timetable[self.i].weights, (self.i + 1) / len(self.timetable)
        # a BrushNet may speak louder than 1, or against; its hole is there or not
        said = [(min(max(w, 0.0), 1.0), released(e.hole.to(x), done), e.keep is not None) for who, e in self.holes
                if e.hole is not None and (w := weights.get(who))]  # fmt: skip
        keep = kept(said)
        if keep is None:
            return x
        level = self.known if t is None else self.scheduler.add_noise(self.known[None], self.noise[None], t[None])[0]
        return (1 - keep) * x + keep * level


def stays(sides: Mapping[str, Sides]) -> tuple[Tensor | None, list[Tensor]]:
    """(original, openings) in pixels of a picture (c height width) or clip (c f height width) that is repainted.

    None and no openings if nothing is to be put back. Every hole is open, also of those who do not put anything back themselves.
    """
    found = [e for _, e in holes(sides) if e.opening is not None]
    pictures = [e.picture for e in found if e.picture is not None]
    return (pictures[0], [e.opening for e in found if e.opening is not None]) if pictures else (None, [])

"""What is asked of everybody who is compared: a request in plain words, which each says in its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from PIL import Image

PROMPTS = (
    "a red cube on a table",
    "two cones in the rain",
    "a quiet harbour at dawn",
    "the portrait of a fox, oil on canvas",
)


@dataclass(frozen=True)
class Control:
    """A ControlNet by its number, how loud it is, and from where to where it is heard (fractions of the steps)."""

    model: int
    weight: float = 0.8
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True)
class Request:
    """One picture. scheduler: DDIM, Euler, DPM++ 2M Karras or UniPC. looks: numbers of IP-Adapters, each hears a picture."""

    steps: int
    prompt: str = PROMPTS[0]
    controls: tuple[Control, ...] = ()
    looks: tuple[int, ...] = ()
    scheduler: str = "DDIM"
    guidance: float = 7.5
    seed: int = 11
    variant: int = 0
    """Another picture and other words of the same cost: so that nobody lives off what was encoded before."""

    @property
    def words(self) -> str:
        return f"{self.prompt}, {self.variant}"

    def heard(self, step: int) -> tuple[Control, ...]:
        """Who speaks in a step, by diffusers' rule."""
        n = self.steps
        return tuple(c for c in self.controls if c.start <= step / n and (step + 1) / n <= c.end)


LOOK_WEIGHT = 0.6
MIXED = (
    Request(2, PROMPTS[0], (Control(0),), (0,), "DDIM", 7.5, 1),
    Request(1, PROMPTS[1], (), (), "Euler", 5.0, 2),
    Request(2, PROMPTS[2], (Control(1, 0.6), Control(0, 0.5)), (), "DPM++ 2M Karras", 7.5, 3),
    Request(3, PROMPTS[3], (Control(1, 0.9, 0.0, 0.7),), (0,), "UniPC", 6.0, 4),
)
"""Four requests that have nothing in common but the base and the size."""


def longer(requests: Sequence[Request], times: int, count: int) -> tuple[Request, ...]:
    """`count` requests after the pattern of these, with `times` as many steps."""
    many = [requests[i % len(requests)] for i in range(count)]
    return tuple(replace(r, steps=r.steps * times, seed=r.seed + i) for i, r in enumerate(many))


def varied(requests: Sequence[Request], variant: int) -> tuple[Request, ...]:
    """The same in other words, with other pictures and another seed."""
    return tuple(replace(r, variant=variant, seed=r.seed + 100 * variant) for r in requests)


@cache
def picture(seed: int, side: int) -> Image.Image:
    """Smooth colours."""
    small = np.random.RandomState(seed).randint(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC)

"""What each generation of PowerPaint's weights was trained to expect: its task tokens, their order, what a hole holds.

Conventions belong to the weights, never to a class. Source: open-mmlab/PowerPaint@5b4c3d5 app.py (v1, v2); dev branch
@aaed575 (dev1, dev2).
"""

from __future__ import annotations

from dataclasses import dataclass

CONTEXT, SHAPE, OBJECT = "P_ctxt", "P_shape", "P_obj"


@dataclass(frozen=True)
class Generation:
    """What one set of PowerPaint weights was trained to expect."""

    name: str
    order: tuple[str, str, str] = (CONTEXT, SHAPE, OBJECT)
    """Task tokens by their ids."""
    first: bool = False
    """Task token before the description, not after it."""
    blank: float = 0.5
    """What hole pixels hold before they are encoded, in 0-1."""
    branch: bool = False
    """Spoken by a BrushNet beside a 4-channel base, not by nine input channels."""
    hole_first: bool = False
    """The branch reads [hole 1, masked latent 4], not [masked latent 4, keep 1]."""


V1 = Generation("v1")
V2 = Generation("v2", blank=0.0, branch=True)
DEV1 = Generation("dev1", (OBJECT, CONTEXT, SHAPE), first=True, blank=0.0)
DEV2 = Generation("dev2", (OBJECT, CONTEXT, SHAPE), blank=0.0, branch=True, hole_first=True)
PLAIN = Generation("plain")
"""No PowerPaint at all: a base that hears the prompt, and is shown what an inpainting network is shown."""
GENERATIONS = {g.name: g for g in (V1, V2, DEV1, DEV2)}

"""PowerPaint's generations: what each was trained to expect, and what it says for each task, word for word.

Conventions belong to the weights, never to a class. "fit" blends A with B. Source: open-mmlab/PowerPaint@5b4c3d5 app.py
(v1, v2); dev branch @aaed575 (dev1, dev2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
GENERATIONS = {g.name: g for g in (V1, V2, DEV1, DEV2)}


Task = Literal["text", "removal", "shape", "outpaint"]
Said = tuple[str, str | None]
"""(description, task token)."""

QUALITY = ", worst quality, low quality, normal quality, bad quality, blurry"
EMPTY = "empty scene blur"
TOKEN: dict[Task, tuple[str, str]] = {
    "text": (OBJECT, OBJECT),
    "shape": (SHAPE, CONTEXT),
    "removal": (CONTEXT, CONTEXT),
    "outpaint": (CONTEXT, CONTEXT),
}
"""Task -> the tokens of A and B."""


@dataclass(frozen=True)
class Words:
    """Four prompts for the encoder with task tokens; with a branch, two more for the base's own encoder."""

    a: Said
    b: Said
    not_a: Said
    not_b: Said
    base: str | None = None
    not_base: str | None = None


def words(generation: Generation, task: Task, prompt: str, negative: str, controlled: bool = False) -> Words:
    """The prompts of one task. `controlled`: a ControlNet speaks too, for which v1's app drops its negative words."""
    a, b = TOKEN[task]
    not_a, not_b = (a, b) if task in ("text", "shape") else (OBJECT, OBJECT)
    if generation.branch:
        tail = {"removal": f" {EMPTY}", "outpaint": " empty scene"}.get(task, "")
        quality = ""
        if generation.hole_first:  # dev2
            tail, quality = tail and f" {EMPTY}", QUALITY
        return Words(("", a), ("", b), ("", not_a), ("", not_b), prompt + tail, negative + quality)
    if generation.first:
        return _dev1(task, prompt, negative)
    if task in ("text", "shape"):
        against = f"{negative}{QUALITY} "
        if controlled and task == "text":
            return Words((prompt, a), (prompt, b), (negative, None), (negative, None))
        return Words((prompt, a), (prompt, b), (against, not_a), (against, not_b))
    said = f"{EMPTY} {prompt}"
    return Words((said, a), (said, b), (negative, not_a), (negative, not_b))


def _dev1(task: Task, prompt: str, negative: str) -> Words:
    a, b = TOKEN[task]
    if task == "text":
        return Words((prompt, a), (prompt, b), (negative, None), (negative, None))
    if task == "shape":
        return Words((prompt, a), (prompt, b), (negative + QUALITY, a), (negative + QUALITY, b))
    said = EMPTY if task == "removal" or not prompt else f"{EMPTY}, {prompt}"
    return Words((said, a), (said, b), (negative, OBJECT), (negative, OBJECT))

"""What PowerPaint says for each task, word for word, in each of its generations.

"fit" blends A with B. Source: open-mmlab/PowerPaint@5b4c3d5 app.py
(v1, v2); dev branch @aaed575 (dev1, dev2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from infuse.encoders.generations import CONTEXT, OBJECT, SHAPE, Generation

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

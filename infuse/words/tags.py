"""`<lora:name:0.8>` names a network that edits the base. Tags are taken out of the text before anything else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Tag:
    """kind: "lora" or "hypernet". text, unet: its strength in the text encoders and in the network.

    options: what else is said, as text: lbw, lbwe, x, start, stop, step, dyn.
    """

    kind: str
    name: str
    text: float = 1.0
    unet: float = 1.0
    options: Mapping[str, str] = field(default_factory=dict)


def networks(text: str) -> tuple[str, tuple[Tag, ...]]:
    """(the text without its tags, the tags in order). Raises RecipeError for a strength that is no number."""
    return text, ()

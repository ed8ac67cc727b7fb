"""`AND` asks for several prompts at once, each with a weight: `a cat :1.2 AND a dog`. Their pushes are added."""

from __future__ import annotations


def parts(text: str) -> tuple[tuple[str, float], ...]:
    """(text, weight) of each; at least one."""
    return ((text, 1.0),)

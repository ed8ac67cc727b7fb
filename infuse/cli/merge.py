"""`infuse merge`: LoRAs with their weights as words, and a bar while their base is written again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from infuse.errors import RecipeError


def weighed(word: str) -> tuple[str, float]:
    """`style@0.8` is a name and its weight; without one it is 1. What stands behind the last @ and is no number belongs to the name."""
    name, at, weight = word.rpartition("@")
    try:
        number = float(weight) if at else 1.0
    except ValueError:  # owner/name@revision
        return word, 1.0
    if at and not name:
        raise RecipeError("loras", f"{word!r} has a weight and no name. Write style.safetensors{word}.")
    return (name if at else word), number


def merge(base: str, loras: Sequence[str], out: Path) -> int:
    """Write the merged base, with a bar on stderr; returns the number of changed tensors."""
    named = [weighed(word) for word in loras]
    from infuse.weights.merge import merge as merged

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"merging into {out.name}", total=None)
        return merged(base, named, out, lambda done, of: bar.update(task, completed=done, total=of))

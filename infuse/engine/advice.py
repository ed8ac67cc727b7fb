"""What is allowed, but hardly meant: settings that nothing hears, and what other programs would read in a prompt.

Each is a sentence under its field; `resolve` gathers them, the ticket, the result and the record keep them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from infuse.conditions.base import Condition
from infuse.encoders.prompt_syntax import foreign_syntax
from infuse.recipe import Recipe
from infuse.timetable import Timetable

WORDS = ("prompt", "negative_prompt")


def advice(recipe: Recipe, active: Mapping[str, Condition], table: Timetable, embedded: bool = False) -> list[str]:
    """`active`: conditions that are heard, by field. embedded: the network hears guidance as a number (LCM)."""
    return [*unguided(recipe, active, table, embedded), *syntax(recipe, active)]


def unguided(
    recipe: Recipe, active: Mapping[str, Condition], table: Timetable, embedded: bool = False
) -> Iterator[str]:
    """What only guidance would hear, in a run that has none at any step."""
    if any(rows > 1 for rows in table.rows):
        return
    remedy = "Remove it, or choose a base that is none." if embedded else "Set guidance above 1, or remove it."
    none = "this LCM hears guidance as a number" if embedded else "there is no guidance at any step"
    why = f"it changes nothing: {none}, so the negative side is never asked."
    if recipe.negative_prompt:
        yield f"negative_prompt: {why} {remedy}"
    if recipe.guidance_rescale:
        yield f"guidance_rescale: it changes nothing: {none}, so there is none to rescale. {remedy}"
    for where, condition in active.items():
        if condition.applies_to == "negative":
            yield f"{where}.applies_to: {why} {remedy}"
        elif getattr(condition, "negative_prompt", None):
            yield f"{where}.negative_prompt: {why} {remedy}"
        elif condition.guided is not None and "image_guidance_scale" in condition.model_fields_set:
            yield f"{where}.image_guidance_scale: {why} {remedy}"
        if condition.kind == "powerpaint" and (task := getattr(condition, "task", "")) in ("removal", "outpaint"):
            yield f"{where}.task: there is no guidance at any step, so the half of what {task} says against objects is never heard. {remedy}"


def syntax(recipe: Recipe, active: Mapping[str, Condition]) -> Iterator[str]:
    """What others would read as more than words."""
    everyone: dict[str, Any] = {"": recipe, **active}
    for where, thing in everyone.items():
        for field in WORDS:
            for text in foreign_syntax(getattr(thing, field, None) or ""):
                yield f"{where}.{field}: {text}".removeprefix(".")

"""What is allowed, but hardly meant: settings that nothing hears, and what other programs would read in a prompt.

Each is a sentence under its field; `resolve` gathers them, the ticket, the result and the record keep them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from infuse.conditions.base import Condition
from infuse.recipe import Recipe
from infuse.samplers import SPACING, Choice
from infuse.timetable import Timetable
from infuse.words.foreign_syntax import foreign_syntax

WORDS = ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2")


def advice(
    recipe: Recipe,
    active: Mapping[str, Condition],
    table: Timetable,
    embedded: bool = False,
    choice: Choice | None = None,
    known: Collection[str] = (),
    written: Recipe | None = None,
) -> list[str]:
    """`active`: conditions that are heard, by field. embedded: the network hears guidance as a number (LCM). choice: the scheduler.
    known: words that are vectors. written: the recipe before choices were made in its words."""
    out = [*unguided(recipe, active, table, embedded), *syntax(written or recipe, active, known)]
    return out if choice is None else [*out, *counted(recipe, choice), *accelerated(recipe, active, table, choice)]


def counted(recipe: Recipe, choice: Choice) -> Iterator[str]:
    """Steps that were asked for in two ways."""
    n = choice.count(recipe.steps)
    if "steps" in recipe.model_fields_set and n != recipe.steps:
        yield f"steps: {recipe.steps}, but scheduler_options.{next(iter(choice.set))} say {n}, and these decide. Remove steps."


@dataclass(frozen=True)
class Acceleration:
    """What a distilled LoRA was made to be run with."""

    names: str
    """A pattern of the file's name."""
    schedulers: tuple[str, ...]
    """Classes; the first is what is advised, by its spoken name in `scheduler`."""
    scheduler: str
    steps: tuple[int, int]
    """The fewest and the most."""
    guidance: tuple[float, float]


_EULERS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
ACCELERATIONS: Mapping[str, Acceleration] = {
    "Lightning": Acceleration("lightning", (*_EULERS, "DPMSolverMultistepScheduler"), "Euler trailing", (1, 10), (0, 2)),
    "Hyper-SD": Acceleration("hyper(?!network|real)", ("DDIMScheduler", "TCDScheduler"), "DDIM trailing", (1, 12), (0, 8)),
    "Turbo": Acceleration("turbo", (*_EULERS, "LCMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSDEScheduler"), "Euler a trailing", (1, 10), (0, 2.5)),
    "TCD": Acceleration("tcd", ("TCDScheduler",), "TCD", (2, 20), (0, 2)),
    "LCM": Acceleration("lcm", ("LCMScheduler",), "LCM", (2, 12), (0, 2)),
}  # fmt: skip
"""Who distilled it -> how it is run, by the cards of the releases (ByteDance's SDXL-Lightning and Hyper-SD, latent-consistency's
lcm-lora-*, h1t's TCD, Stability's turbo)."""


def acceleration(name: str, choice: Choice, steps: int, guidance: float) -> str | None:
    """What is to be changed for a LoRA that makes few steps do, told by its file's name; None if nothing is, or it is none.

    guidance: the scale, at its highest.
    """
    found = _distilled(name)
    if found is None:
        return None
    who, a = found
    few = next((int(m[1]) for m in [re.search(r"(\d+)[-_ ]?steps?(?![a-z])", name.lower())] if m), None)
    least, most = (few, few) if few and who != "LCM" else a.steps
    spaced = "trailing" in a.scheduler and choice.cls in _EULERS[:1] and choice.arguments.get(SPACING) != "trailing"
    wrong = []
    if choice.cls not in a.schedulers or spaced:
        wrong.append(f"scheduler: {a.scheduler}")
    if not least <= steps <= most:
        wrong.append(f"steps: {few or (4 if least <= 4 <= most else most)}")
    if not a.guidance[0] <= guidance <= a.guidance[1]:
        wrong.append("guidance: 1")
    if not wrong:
        return None
    return f"by its name it is {'an' if who == 'LCM' else 'a'} {who} LoRA, which was distilled for few steps. Say {', '.join(wrong)}."


def _distilled(name: str) -> tuple[str, Acceleration] | None:
    """Words of the file's name, not letters within others: "filmcore" is no LCM."""
    stem = PurePath(name.replace("\\", "/")).stem.lower()
    for who, a in ACCELERATIONS.items():
        if re.search(rf"(?<![a-z]){a.names}(?![a-z])", stem) or (
            who == "Hyper-SD" and re.search(r"hyper[-_ ]?sd", stem)
        ):
            return who, a
    return None


def accelerated(recipe: Recipe, active: Mapping[str, Condition], table: Timetable, choice: Choice) -> Iterator[str]:
    """LoRAs whose scheduler, steps or guidance are not those that they were distilled for."""
    highest = max((e.scale for e in table), default=1.0)
    for where, condition in active.items():
        name = getattr(condition, "model", None) if condition.kind == "lora" else None
        if name and (text := acceleration(str(name), choice, choice.count(recipe.steps), highest)):
            yield f"{where}.model: {text}"


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


def syntax(recipe: Recipe, active: Mapping[str, Condition], known: Collection[str] = ()) -> Iterator[str]:
    """What others would read as more than words, and the recipe's syntax does not. known: words that are vectors here."""
    everyone: dict[str, Any] = {"": recipe, **active}
    for where, thing in everyone.items():
        texts = {field: getattr(thing, field, None) or "" for field in WORDS}
        areas = getattr(thing, "regions", ())
        texts |= {f"regions.{i}.prompt": str(getattr(a, "prompt", "")) for i, a in enumerate(areas)}
        for field, prompt in texts.items():
            for text in foreign_syntax(prompt, recipe.syntax, known):
                yield f"{where}.{field}: {text}".removeprefix(".")

"""Compile a recipe before anything is loaded: routes, memory, network calls; or a letter that says why not.

Looks at headers of files and sizes of pictures only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infuse.conditions.base import PROMPT, Condition, Route
from infuse.conditions.text import Prompt
from infuse.curves import Step, value_at
from infuse.engine.job import windows
from infuse.engine.model_store import ModelStore
from infuse.errors import CapacityError, RecipeError, under
from infuse.network.spec import NetworkSpec
from infuse.recipe import LARGEST_SIDE, Recipe, opened
from infuse.solvers import Choice, parse, plan

MOST_FRAMES = 1024
HOLES = ("inpaint", "powerpaint", "brushnet", "masked_video")
"""Kinds whose mask is a hole in their own image, not a region of the canvas."""


@dataclass(frozen=True)
class Report:
    """What a recipe will do."""

    spec: NetworkSpec
    size: tuple[int, int]
    """(width, height) in pixels."""
    choice: Choice
    strength: float | None
    """How much of a start picture is repainted; None without one."""
    routes: tuple[tuple[str, str, Route], ...]
    """(field, kind, route) for the prompt and every condition."""
    calls: int
    """Network calls of the run, all pictures together."""
    rows: int
    """Rows evaluated in those calls."""
    branch_rows: int
    """Rows that ControlNets and their kin evaluate."""
    memory: int
    """Bytes: weights of the base and of everything the conditions bring."""
    steps: int
    """Steps that run: fewer than the recipe's with a start picture."""
    frames: int
    """Of a clip; 1 for a picture."""
    windows: int
    """Of a clip: how often the network looks, so that all frames are seen; 1 for a picture."""
    warnings: tuple[str, ...] = field(default=())


def check(recipe: Recipe, store: ModelStore, most: int = 64) -> Report:
    """Raises RecipeError, WeightsError or CapacityError under the recipe's field, without loading any network.

    `most`: rows of a network call.
    """
    opened(recipe)
    view = store.beside(recipe.model)
    spec = view.spec
    frames = clip_length(recipe, spec)
    size = canvas(recipe, spec)
    view.frames, view.size = frames, size
    choice = parse(recipe.scheduler, view.scheduler.get("_class_name", "PNDMScheduler"))
    routes: list[tuple[str, str, Route]] = []
    adjusted: list[str] = []
    strength, steps = begins(recipe, choice, view.scheduler)
    everyone = {PROMPT: speakers(recipe, steps)[PROMPT], **named(recipe)}
    for where, condition in everyone.items():
        place = "" if where == PROMPT else where
        with under(place):
            region(condition, size)
            found = condition.check(spec, view)
        routes += [(place or "prompt", condition.kind, route) for route in found]
        adjusted += [f"{place}.{text}" for route in found for text in route.warnings]
    exclusive(routes)
    one_ground(recipe, steps)
    entered = {(where, route.port) for where, _, route in routes}
    per_step = [rows(recipe, spec, Step(i, steps)) for i in range(steps)]
    branch = sum(
        r
        for i, r in enumerate(per_step)
        for k, c in enumerate(recipe.conditions)
        if (f"conditions.{k}", "residuals") in entered and c.heard_at(Step(i, steps))
    )
    looks = max(len(windows(frames, spec.frames)), 1)
    return Report(
        spec,
        size,
        choice,
        strength,
        tuple(routes),
        sum(calls(recipe.count, r * looks, min(frames, spec.frames or 1), most) for r in per_step),
        sum(per_step) * recipe.count * looks,
        branch * recipe.count * looks,
        view.memory + sum(r.memory for _, _, r in routes),
        steps,
        frames,
        looks,
        (*warnings(recipe, size, steps), *adjusted),
    )


def begins(recipe: Recipe, choice: Choice, schedule: Mapping[str, Any]) -> tuple[float | None, int]:
    """(strength, steps that run): with a start picture that is heard, the last steps alone; else None and all of them."""
    found: dict[str, tuple[float, int]] = {}
    for where, condition in named(recipe).items():
        strength = condition.strength_of_start()
        if strength is not None:
            with under(where):
                steps = len(plan(choice, schedule, recipe.steps, strength).timesteps)
            if condition.heard(steps):
                found[where] = strength, steps
    if len(found) > 1:
        first, second, *_ = found
        raise RecipeError(second, f"it starts from a picture, and so does {first}. Keep one of the two.")
    return next(iter(found.values()), (None, len(plan(choice, schedule, recipe.steps, None).timesteps)))


def one_ground(recipe: Recipe, steps: int) -> None:
    """Holes of several conditions are filled in one picture or film: what is kept outside of them cannot be two."""
    first = ""
    for where, condition in named(recipe).items():
        if condition.kind not in HOLES or not condition.heard(steps):
            continue
        first = first or where
        field = "film" if condition.kind == "masked_video" else "image"
        ours: Any = getattr(condition, field)
        theirs: Any = getattr(named(recipe)[first], field, ours)
        if ours != theirs and ours.sha256 != theirs.sha256:
            raise RecipeError(
                f"{where}.{field}",
                f"it is another one than that of {first}, and outside of the holes only one can be kept. Give both the same.",
            )


def clip_length(recipe: Recipe, spec: NetworkSpec) -> int:
    """Frames of the clip, 1 for a picture. Longer clips than the network's own are made in overlapping windows."""
    if not spec.frames:
        if recipe.frames not in (None, 1):
            raise RecipeError(
                "frames", f"{spec.name} makes pictures, not videos. Remove frames, or choose a video base."
            )
        return 1
    asked = recipe.frames or spec.frames
    if asked > MOST_FRAMES:
        raise CapacityError("frames", f"{asked} are more than the limit of {MOST_FRAMES}. Make several clips, each starting from the "
                                      "last frame of the one before.")  # fmt: skip
    return asked


def named(recipe: Recipe) -> dict[str, Condition]:
    """Conditions by their field."""
    return {f"conditions.{i}": c for i, c in enumerate(recipe.conditions)}


def speakers(recipe: Recipe, steps: int) -> dict[str, Condition]:
    """Everyone who will be heard: the prompt first, then the recipe's conditions, joined where some act as one.

    Whoever is silent in all steps is left out here, before anything random is drawn for it.
    """
    everyone: dict[str, Condition] = {
        PROMPT: Prompt(kind="text", prompt=recipe.prompt, negative_prompt=recipe.negative_prompt)
    }
    everyone |= {who: c for who, c in named(recipe).items() if c.heard(steps)}
    for who in list(everyone):
        if who in everyone:
            everyone = everyone[who].join(who, everyone)
    return everyone


def canvas(recipe: Recipe, spec: NetworkSpec) -> tuple[int, int]:
    """The picture's size: as asked, or that of the picture it starts from or fills, or what the network was trained at."""
    start = None
    for where, condition in named(recipe).items():
        with under(where):
            start = start or condition.native()
    f = spec.vae_factor
    out = []
    for i, (name, asked) in enumerate((("width", recipe.width), ("height", recipe.height))):
        side = asked or (start[i] // f * f if start is not None else spec.native_size)
        if side > LARGEST_SIDE:
            raise CapacityError(
                name,
                f"{side} px is more than the limit of {LARGEST_SIDE} px a side. Make it smaller, and upscale afterwards.",
            )
        if side % f:
            raise RecipeError(
                name, f"{side} is not a multiple of {f}. The nearest are {side // f * f} and {side // f * f + f}."
            )
        if side < 2 * f:
            raise RecipeError(
                name, f"{side} px is too small; use at least {2 * f}, and better {spec.native_size} or so."
            )
        out.append(side)
    return out[0], out[1]


def region(condition: Condition, size: tuple[int, int]) -> None:
    """A region mask is drawn on the canvas: same size, not empty."""
    if condition.mask is None or condition.kind in HOLES:
        return
    if condition.mask.size != size:
        w, h = condition.mask.size
        raise RecipeError(
            "mask",
            f"it is {w} x {h} px, the picture will be {size[0]} x {size[1]} px. Draw the region on the picture's size.",
        )
    if not condition.mask.image.convert("L").getextrema()[1]:
        raise RecipeError(
            "mask", "it is black everywhere, so the condition would be heard nowhere. White is where it is heard."
        )


def exclusive(routes: Sequence[tuple[str, str, Route]]) -> None:
    """Two conditions cannot fill the same exclusive channels, unless they join to fill them together (PowerPaint)."""
    claims: dict[str, tuple[str, str]] = {}
    for where, kind, route in routes:
        if route.port == "channels" and not route.shared:
            who, other = claims.setdefault(route.shape, (where, kind))
            if who != where and not kind == other == "powerpaint":
                raise RecipeError(
                    where, f"it fills {route.shape}, and so does {who}. Keep one of the two, or join their masks."
                )


def rows(recipe: Recipe, spec: NetworkSpec, step: Step) -> int:
    """Rows of one picture in one step: two under guidance, one more for every condition with a scale of its own."""
    scale = spec.guidance if recipe.guidance is None else recipe.guidance
    return 1 + (value_at(scale, step.begin) > 1) + sum(c.guided is not None for c in recipe.conditions)


def calls(count: int, rows: int, frames: int, most: int = 64) -> int:
    """Network calls of one step: as many pictures together, and of clips as many rows, as fit into `most`."""
    together = max(min(count, most // rows), 1)
    each = -(-rows * together // max(1, most // frames)) if frames > 1 else 1
    return -(-count // together) * each


def warnings(recipe: Recipe, size: tuple[int, int], steps: int) -> list[str]:
    """What is allowed, but hardly meant."""
    out = []
    for i, c in enumerate(recipe.conditions):
        if not c.heard(steps):
            why = (
                "its weight is 0"
                if value_at(c.weight, 0.5) == 0
                else f"no one of the {steps} steps lies as a whole between {c.start:g} and {c.end:g}"
            )
            out.append(f"conditions.{i}: it will not be heard: {why}.")
        image = getattr(c, "image", None)
        if c.kind in ("controlnet", "img2img", *HOLES) and image is not None:
            (w, h), (width, height) = c.native() or image.size, size
            if abs(w * height - h * width) > 0.02 * w * height:
                out.append(
                    f"conditions.{i}.image: {w} x {h} px will be stretched to {width} x {height} px. Crop it to the same shape to avoid this."
                )
    return out

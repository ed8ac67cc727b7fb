"""Resolve a recipe once, before anything is loaded: everything filled in, who speaks when, where it enters, what it costs.

Looks at headers of files and sizes of pictures only, and imports no torch. `infuse check` prints what comes out, `submit` runs it, a picture's
record keeps it; nobody works it out a second time.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from infuse.conditions.base import Condition, Route, brought
from infuse.curves import value_at
from infuse.engine import capacity, pace
from infuse.engine.advice import advice
from infuse.engine.canvas import canvas, clip_length, exclusive, one_ground, opened, region, untold
from infuse.engine.dressing import dress_of
from infuse.engine.frame import After, laid_out
from infuse.engine.places import admitted_names
from infuse.engine.shortened import clashes, idle
from infuse.engine.understanding import Reads, must_fit, odd
from infuse.engine.understanding import plain as understood
from infuse.engine.understanding import reads as reading_of
from infuse.engine.view import View
from infuse.engine.windows import windows
from infuse.engine.wording import WORDS, chosen, has_choice, must_hear, spoken_by, together, wording
from infuse.errors import RecipeError, WeightsError, under
from infuse.lossy import Shortcut, notices, shortcuts
from infuse.media.fitting import padded
from infuse.network.spec import NetworkSpec
from infuse.notices import gathers
from infuse.recipe import Recipe, models
from infuse.samplers import called
from infuse.scheduler_options import told
from infuse.solvers import Choice, Plan, evaluations, parse, plan
from infuse.timetable import PROMPT, Evaluation, Timetable, heard, timetable
from infuse.words.wording import PLAIN, Wording


@dataclass(frozen=True)
class Resolved:
    """A recipe of which nothing is left open."""

    asked: Recipe
    """As it came, with the model's name."""
    recipe: Recipe
    """With everything filled in that the model decides: size, frames, scheduler, guidance."""
    spec: NetworkSpec
    size: tuple[int, int]
    """(width, height) in pixels."""
    frames: int
    """Of a clip; 1 for a picture."""
    windows: tuple[tuple[int, int], ...]
    """Of a clip: the frames (first, last + 1) of each look that the network takes at it; () for a picture."""
    choice: Choice
    schedule: Mapping[str, Any]
    """The model's own scheduler_config.json."""
    strength: float | None
    """How much of a start picture is repainted; None without one."""
    speakers: Mapping[str, Condition]
    """Everyone who is heard, by field: the prompt first, then conditions in the recipe's order, joined where some act as one."""
    timetable: Timetable
    routes: tuple[tuple[str, str, Route], ...]
    """(field, kind, route) for the prompt and every condition."""
    calls: int
    """Network calls of the run, all pictures together."""
    rows: int
    """Rows evaluated in those calls, with those of pictures that run beside others (reference)."""
    branch_rows: int
    """Rows that ControlNets and their kin evaluate."""
    memory: int
    """Bytes: weights of the base and of everything the conditions bring."""
    peak: int
    """Bytes: weights, the largest network call or decoding, and what is kept until the end. An estimate."""
    dtype: str
    device: str
    version: Hashable
    """What the model's name stood for."""
    warnings: tuple[str, ...] = field(default=())
    flops: float = 0.0
    """Floating-point operations of the run. An estimate."""
    after: After | None = None
    """What is done to decoded pictures; None for nothing."""
    wording: Wording = PLAIN
    """How its words are read."""
    each: tuple[Resolved, ...] = ()
    """Where words leave something to chance: each picture by itself, with what was chosen for it."""
    store: Any = field(default=None, repr=False, compare=False)
    """Where its models are found."""

    @property
    def steps(self) -> int:
        """Evaluations of the network for each picture: fewer than the recipe's steps with a start picture, more with a
        sampler of second order."""
        return len(self.timetable)

    @property
    def wide(self) -> int:
        """Rows of one picture in its widest evaluation."""
        return max(widths(self.timetable, self.routes))

    @cached_property
    def plan(self) -> Plan:
        """The run's timesteps, made when somebody is about to run it."""
        return plan(self.choice, self.schedule, self.recipe.steps, self.strength)

    @property
    def shortcuts(self) -> tuple[Shortcut, ...]:
        """What each evaluation leaves out (lossy options); () for nothing."""
        return shortcuts(self.recipe.lossy, self.timetable)

    @property
    def reads(self) -> Reads:
        """What its words are counted with."""
        return reading_of(self.store, str(self.recipe.model), self.wording)

    @property
    def seconds(self) -> float | None:
        """About how long the run takes on this machine, without loading; None if nothing is known of its device."""
        return pace.seconds(self.flops, self.calls, self.device, self.dtype)

    @property
    def sampler(self) -> str:
        """Its scheduler by the name that people have for it: "DPM++ 2M Karras"."""
        return called(self.choice, self.schedule)

    def alone(self) -> tuple[Resolved, ...]:
        """The same for each picture by itself, in the order of their seeds: costs excepted, which stay those of all."""
        return self.each or tuple(
            replace(self, asked=self.asked.only((i,)), recipe=self.recipe.only((i,)),
                    speakers={who: c.only((i,)) for who, c in self.speakers.items()})
            for i in range(self.asked.count)
        )  # fmt: skip

    @property
    def differ(self) -> bool:
        """Do its pictures hear different things, apart from their seeds?"""
        return bool(self.each) or (self.asked.count > 1 and any(c.only((0,)) is not c for c in self.speakers.values()))

    def plain(self) -> dict[str, Any]:
        """What a record keeps: the recipe's open fields as they were filled, the machine's part in it, and the timetable."""
        r = self.recipe
        return {
            "model": r.model, "width": r.width, "height": r.height, "steps": r.steps, "sampler": self.sampler, "scheduler": self.choice.cls,
            "guidance": r.guidance, "dtype": self.dtype, "device": self.device, "timetable": self.timetable.plain(),
        } | ({"lossy": r.lossy.said} if r.lossy else {}) | ({"frames": self.frames} if self.spec.frames else {}) | ({"words": words} if (words := understood(self)) else {})  # fmt: skip


def resolve(recipe: Recipe, view: View, most: int = 64) -> Resolved:
    """Raises RecipeError, WeightsError or CapacityError under the recipe's field, without loading any network.

    `view` is of the model that is meant when the recipe names none. `most`: rows of a network call.
    """
    recipe = recipe.with_pictures(lambda p: p.on(recipe.background)).seeded().model_copy(update={"model": view.model})
    came = opened(recipe)
    with gathers() as worded:
        template, (recipe, each) = recipe, one_by_one(recipe, view, most)
        own, loras = spoken_by(recipe)
    loras = admitted_names(view.store, recipe, loras)
    view.dress = dress_of(recipe)
    spec, conditions = view.spec, {who: c.settled(view) for who, c in {**named(recipe), **loras}.items()}
    must_hear(recipe, spec, view)
    view.frames, view.count = clip_length(recipe, spec), recipe.count
    frames = view.frames
    view.size = size = canvas(recipe, conditions, spec)
    named_choice = parse(recipe.scheduler, view.scheduler.get("_class_name", "PNDMScheduler"))
    choice = told(named_choice, recipe.scheduler_options, recipe.steps, view.scheduler)
    strength, asked = begins(recipe, conditions, choice, view.scheduler)
    active = {who: c for who, c in conditions.items() if heard(c, asked)}
    laid, after, adjusted = laid_out(conditions, active, size)
    clashes(recipe.lossy, active, view)
    speakers = joined(own, {who: laid[who] for who in active})
    together(speakers)
    guidance = spec.guidance if recipe.guidance is None else recipe.guidance
    scales = {who: c.guided for who, c in speakers.items() if c.guided is not None}
    table = timetable(speakers, asked, guidance, scales, recipe.guidance_rescale, spec.embeds_guidance)
    routes, notes = routed({**{who: speakers.get(who, c) for who, c in own.items()}, **laid}, view)
    notes = worded + notes
    if spec.unheard:
        raise WeightsError("model", f'"{spec.name}" cannot be run: {spec.unheard}')
    exclusive(routes)
    notes += untold(spec, routes, active)
    with gathers() as late:
        how = wording(recipe, speakers, table, view)
    notes += late
    said = {f: getattr(recipe, f) or "" for f in WORDS}
    must_fit(said, how, lambda: reading_of(view.store, str(view.model), how))
    notes += odd(said, how)
    one_ground(active, size)
    looks = windows(frames, spec.frames)
    wide = widths(table, routes)
    calls = sum(calls_of(recipe.count, n * max(len(looks), 1), min(frames, spec.frames or 1), most) for n in wide)
    memory = view.memory + loaded(routes, active) + capacity.eyes(active.values(), view)
    peak = memory + capacity.working(spec, padded(size, spec.vae_factor), frames, max(wide), recipe.count, most, view)
    capacity.must_fit(peak, memory, recipe, size, view.device)
    looked, branched = max(len(looks), 1), sum(rows_of(table, routes, "residuals"))
    rows, branched = (n * recipe.count * looked for n in (sum(wide), branched))
    work = pace.flops(spec, size, frames, rows, branched, recipe.count, view.vae_width)
    # fmt: off
    return Resolved(
        template if each else recipe, filled(recipe, size, frames if spec.frames else None, choice, guidance), spec, size, frames, looks, choice,
        view.scheduler, strength, speakers, table, tuple(routes), calls, rows, branched, memory, peak, view.dtype, view.device,
        view.version,
        (*came, *notices(recipe.lossy, table, idle(recipe.lossy, active, view)), *view.dressing.notes, *adjusted, *warnings(recipe, laid, active, size, asked), *advice(recipe, active, table, spec.embeds_guidance, choice, [w for w, _ in how.embeddings], template), *notes),
        work, after, how, each, view.store,
    )
    # fmt: on


def named(recipe: Recipe) -> dict[str, Condition]:
    """Conditions by their field."""
    return {f"conditions.{i}": c for i, c in enumerate(recipe.conditions)}


def filled(recipe: Recipe, size: tuple[int, int], frames: int | None, choice: Choice, guidance: Any) -> Recipe:
    return recipe.model_copy(
        update={"width": size[0], "height": size[1], "frames": frames, "guidance": guidance,
                "scheduler": recipe.scheduler or choice.cls}
    )  # fmt: skip


def begins(
    recipe: Recipe, conditions: Mapping[str, Condition], choice: Choice, schedule: Mapping[str, Any]
) -> tuple[float | None, int]:
    """(strength, evaluations): with a start picture that is heard, the last steps alone; else None and all of them."""
    found: dict[str, tuple[float, int]] = {}
    for where, condition in conditions.items():
        strength = condition.strength_of_start()
        if strength is not None:
            with under(where):
                partial = evaluations(choice, schedule, recipe.steps, strength)
            if heard(condition, partial):
                found[where] = strength, partial
    begun = next(iter(found.values()), None) or (None, evaluations(choice, schedule, recipe.steps, None))
    # another one may be heard in the run that this one makes, if not in its own
    starts = [
        w for w, c in conditions.items() if c.strength_of_start() is not None and (w in found or heard(c, begun[1]))
    ]
    if len(starts) > 1:
        first, second, *_ = starts
        raise RecipeError(second, f"it starts from a picture, and so does {first}. Keep one of the two.")
    if starts and not found:
        of = evaluations(choice, schedule, recipe.steps, conditions[starts[0]].strength_of_start())
        raise RecipeError(starts[0], f"it starts from a picture, which makes a run of {of} of {begun[1]} evaluations, in none of which "
                                     "it is heard. Widen its window (start, end), or raise its strength.")  # fmt: skip
    return begun


def one_by_one(recipe: Recipe, view: View, most: int) -> tuple[Recipe, tuple[Resolved, ...]]:
    """The recipe with all choices made in its words; of several pictures, each resolved by itself, and the recipe as its first says
    it."""
    if recipe.count == 1 or not has_choice(recipe):
        return chosen(recipe, view.roots), ()
    each = tuple(resolve(recipe.only((i,)), view, most) for i in range(recipe.count))
    said = {f: getattr(each[0].asked, f) for f in (*WORDS, "styles")}
    return recipe.model_copy(update=said), each


def joined(own: Mapping[str, Condition], active: Mapping[str, Condition]) -> dict[str, Condition]:
    """The prompt (with its parts) and the recipe's conditions, as one where some act as one.

    Whoever is silent in all evaluations has been left out before, so that nothing random is drawn for it.
    """
    everyone: dict[str, Condition] = {**own, **active}
    for who in list(everyone):
        if who in everyone:
            everyone = everyone[who].join(who, everyone)
    return everyone


def routed(everyone: Mapping[str, Condition], view: View) -> tuple[list[tuple[str, str, Route]], list[str]]:
    """(field, kind, route) of everybody, and what is adjusted on the way."""
    routes: list[tuple[str, str, Route]] = []
    regions: list[str] = []
    for where, condition in everyone.items():
        place = "" if where == PROMPT else where
        with under(place):
            regions += [f"{where}.{text}" for text in region(condition, view.size, view.spec.vae_factor)]
            one_sided = condition.applies_to != "both"
            for route in condition.check(view.spec, view):
                routes.append((place or PROMPT, condition.kind, replace(route, one_sided=route.one_sided or one_sided)))
    return routes, regions + [f"{where}.{text}" for where, _, route in routes for text in route.warnings]


def loaded(routes: Sequence[tuple[str, str, Route]], active: Mapping[str, Condition]) -> int:
    """Bytes of weights that conditions bring along: a file that several of them name is loaded once, one of the silent never."""
    each = {
        (kind, route.port, tuple(models(active[who]))): route.memory for who, kind, route in routes if who in active and route.memory
    }  # fmt: skip
    return sum(each.values())


def rows_of(table: Timetable, routes: Sequence[tuple[str, str, Route]], port: str) -> tuple[int, ...]:
    """Rows of one picture, in each evaluation, that branch networks are asked for ("residuals") or that run beside others
    ("shared"): on both sides of guidance, or on the prompt's alone."""
    asked = {where: route for where, _, route in routes if route.port == port and not route.once}

    def of(e: Evaluation) -> int:
        each: dict[str, int] = {}
        for who in e.weights:
            if who in asked:
                n = 1 if asked[who].one_sided else len(e.guidance.terms)
                with_whom = asked[who].together or who
                each[with_whom] = max(n, each.get(with_whom, 0))
        return sum(each.values())

    return tuple(of(e) for e in table)


def widths(table: Timetable, routes: Sequence[tuple[str, str, Route]]) -> tuple[int, ...]:
    """Rows of one picture in each evaluation, with those that run beside them."""
    return tuple(n + beside for n, beside in zip(table.rows, rows_of(table, routes, "shared"), strict=True))


def calls_of(count: int, rows: int, frames: int, most: int = 64) -> int:
    """Network calls of one evaluation: as many pictures together, and of clips as many rows, as fit into `most`."""
    together = max(min(count, most // rows), 1)
    each = -(-rows * together // max(1, most // frames)) if frames > 1 else 1
    return -(-count // together) * each


def warnings(
    recipe: Recipe, conditions: Mapping[str, Condition], active: Mapping[str, Condition], size: tuple[int, int], n: int
) -> list[str]:
    """What is allowed, but hardly meant."""
    out = []
    for where, c in conditions.items():
        if where not in active:
            why = (
                "its weight is 0"
                if value_at(c.weight, 0.5) == 0
                else f"no one of the {n} steps lies as a whole between {c.start:g} and {c.end:g}"
            )
            out.append(f"{where}: it will not be heard: {why}.")
        image = getattr(c, "image", None)
        if (c.kind in ("controlnet", "t2i_adapter", "img2img") or c.HOLE) and image is not None:
            out += [
                f"{where}.{text}"
                for text in brought(c.native() or image.size, size, "image", "the picture to be made", c.ground_fit)
            ]
    return out

"""Fields of a recipe that others say in two parts, or that go together: a sampler and its schedule, batches and their
number, a size in one word, seeds and how many.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infuse.errors import RecipeError
from infuse.scheduler_options import MOVED, SchedulerOptions
from infuse.seeds import LIMIT
from infuse.spellings import RECIPE, kinds, plain, read

SAMPLERS = ("sampler_name", "sampler", "sampler_index")
SCHEDULES = ("schedule", "schedule_type", "noise_schedule")
BATCHES = ("batch_size", "num_images_per_prompt", "n")
ROUNDS = ("n_iter", "batch_count")
SIZE = re.compile(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*")


def spelled(fields: Any, data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's data under our names, in whatever words it came. Raises RecipeError under the name as it was written."""
    out = read(RECIPE, fields, _sized(_batched(_sampled(_turned(dict(data))))))
    for field in ("prompt", "negative_prompt"):
        if isinstance(texts := out.get(field), list | tuple):
            if len(texts) != 1:
                raise RecipeError(
                    field,
                    "a recipe has one. Several are several recipes: engine.run_all(*(Recipe(prompt=p) for p in prompts)).",
                )
            out[field] = texts[0]  # as diffusers' callers write one
    if "conditions" in out:
        out["conditions"] = kinds(out["conditions"])
    return _numbered(out)


def _named(data: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    """Under which of these names something is said, as it was written."""
    by = {plain(k): k for k, v in data.items() if v is not None}
    return next((by[n] for n in names if n in by), None)


def _sampled(data: dict[str, Any]) -> dict[str, Any]:
    """The webui and ComfyUI say sampler and schedule apart; diffusers' people and we say them in one."""
    sampler, schedule = _named(data, SAMPLERS), _named(data, SCHEDULES)
    if sampler is None or not isinstance(data[sampler], str):
        return data
    schedule = schedule or _named(data, ("scheduler",))
    said = data[sampler], None if schedule is None else data[schedule]
    if said[0] == said[1] or not isinstance(said[1], str | None):
        return data
    from infuse.solvers import foreign

    name = foreign(*said)
    if name is None and said[1] is not None:
        raise RecipeError(str(schedule), f"{said[1]!r} is no schedule of the sampler {said[0]!r}. Say both in one, as in scheduler: DPM++ 2M "
                                         "Karras, or the sampler alone.")  # fmt: skip
    rest = {k: v for k, v in data.items() if k not in (sampler, schedule)}
    return rest | {"scheduler": name or said[0]}


def _turned(data: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's knobs, which others say beside the prompt, among its options. False, 0 and nothing turn none."""
    found = {k: v for k, v in data.items() if plain(k) in MOVED}
    if not found:
        return data
    nothing = (None, False, [], ())
    said = {k: v for k, v in found.items() if v not in nothing or (v is False and plain(k) == "lower_order_final")}
    rest = {k: v for k, v in data.items() if k not in found}
    if not said:
        return rest
    options = rest.get("scheduler_options")
    own = options.said if isinstance(options, SchedulerOptions) else options or {}
    if not isinstance(own, Mapping):
        return data
    for name, value in said.items():
        if own.get(name, value) != value:
            raise RecipeError(name, f"it is {value!r}, and scheduler_options says {own[name]!r}. Keep one of them.")
    return rest | {"scheduler_options": {**said, **own}}


def _batched(data: dict[str, Any]) -> dict[str, Any]:
    """So many batches of so many pictures are their product."""
    size, rounds = _named(data, BATCHES), _named(data, ROUNDS)
    if size is None or rounds is None or type(data[size]) is not int or type(data[rounds]) is not int:
        return data
    return {k: v for k, v in data.items() if k not in (size, rounds)} | {"count": data[size] * data[rounds]}


def _sized(data: dict[str, Any]) -> dict[str, Any]:
    """`size: 512x768` is width and height."""
    name = _named(data, ("size",))
    if name is None:
        return data
    value = data[name]
    match = SIZE.fullmatch(value) if isinstance(value, str) else None
    pair = tuple(map(int, match.groups())) if match else tuple(value) if isinstance(value, list | tuple) else ()
    if len(pair) != 2:
        raise RecipeError(name, f"{value!r} is no size. Write width x height in pixels, as in 512x768.")
    rest = {k: v for k, v in data.items() if k != name}
    for field, pixels in zip(("width", "height"), pair, strict=True):
        if rest.setdefault(field, pixels) != pixels:
            raise RecipeError(
                field, f"it is {rest[field]!r}, and {name} says {pixels}; both mean the same. Keep one of them."
            )
    return rest


def _numbered(data: dict[str, Any]) -> dict[str, Any]:
    """A list of seeds says how many pictures there are; seeds that are counted up must stay below the limit."""
    seed, count = data.get("seed"), data.get("count")
    if isinstance(seed, str) and "," in seed:
        seed = [part for part in seed.strip("[]() ").split(",") if part.strip()]
    if isinstance(seed, list | tuple) and len(seed) > 1:
        if count is None:
            return data | {"count": len(seed)}
        if type(count) is int and count != len(seed):
            raise RecipeError(
                "count",
                f"it is {count}, and there are {len(seed)} seeds, one for each picture. Remove count, or make them equal.",
            )
    if type(seed) is int and type(count) is int and seed + count > LIMIT >= seed + 1:
        raise RecipeError(
            "seed",
            f"counted up {count} times it leaves the range of seeds (below {LIMIT}). Begin at {LIMIT - count} or less.",
        )
    return data

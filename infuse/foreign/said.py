"""What another program says of its picture, as its file names it, becomes fields of a recipe as far as it can be meant; the
rest becomes sentences, so that nothing is dropped in silence.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infuse.errors import cut
from infuse.samplers import foreign as known_sampler

MOST_SEED = 2**63
NETWORKS = re.compile(r"[ \t]*<(lora|lyco|hypernet):([^:<>]+)((?::[^:<>]*)*)>")
"""The webui's tag of a LoRA in a prompt, with the blanks before it."""


@dataclass
class Said:
    """One picture's facts, still as texts or numbers of whatever kind the file has. None: it does not say."""

    program: str
    prompt: Any = None
    negative_prompt: Any = None
    steps: Any = None
    sampler: Any = None
    schedule: Any = None
    guidance: Any = None
    guidance_rescale: Any = None
    seed: Any = None
    width: Any = None
    height: Any = None
    clip_skip: Any = None
    strength: Any = None
    """Of a start picture."""
    model: Any = None
    model_hash: Any = None
    loras: list[tuple[str, str]] = field(default_factory=list)
    """(name, weight as it is written)."""
    left: dict[str, Any] = field(default_factory=dict)
    """Whatever else it says, by its own name."""
    notes: list[str] = field(default_factory=list)


def meant(said: Said) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields of a recipe, one sentence for each thing that was left out)."""
    data: dict[str, Any] = {}
    notes = list(said.notes)
    for name in ("prompt", "negative_prompt"):
        text = getattr(said, name)
        if isinstance(text, str):
            plain, networks = untagged(text)
            said.loras += [n for n in networks if n not in said.loras]
            if plain:
                data[name] = plain
    _number(data, notes, "steps", said.steps, 1, 1000)
    _number(data, notes, "seed", said.seed, 0, MOST_SEED - 1)
    for name in ("width", "height"):
        _number(data, notes, name, getattr(said, name), 16, 8192)
    for name, most in (("guidance", 1000.0), ("guidance_rescale", 1.0)):
        if (value := getattr(said, name)) not in (None, "") and not (name == "guidance_rescale" and value in (0, "0")):
            if (number := real(value)) is None or not 0 <= number <= most:
                notes.append(f"its {name} {shown(value)} is no number from 0 to {most:g} and was left out")
            else:
                data[name] = number
    _sampler(data, notes, said)
    _rest(notes, said)
    return data, tuple(f"{said.program}: {note}" for note in notes)


def _sampler(data: dict[str, Any], notes: list[str], said: Said) -> None:
    if not isinstance(said.sampler, str) or not said.sampler.strip():
        return
    schedule = said.schedule if isinstance(said.schedule, str) and said.schedule.strip() else None
    name = known_sampler(said.sampler.strip(), schedule)
    if name is None and schedule is not None and (name := known_sampler(said.sampler.strip(), None)):
        notes.append(f"its schedule {shown(schedule)} is not known here, and {name} is used with the model's own")
    if name is None:
        both = said.sampler if schedule is None else f"{said.sampler} with {schedule}"
        notes.append(
            f"its sampler {shown(both)} is not known here; the model's own is used. Set scheduler to choose another"
        )
    else:
        data["scheduler"] = name


def _rest(notes: list[str], said: Said) -> None:
    if said.model:
        told = f", hash {shown(said.model_hash)}" if said.model_hash else ""
        notes.append(f"it was made with the model {shown(said.model)}{told}; set model to the same one")
    elif said.model_hash:
        notes.append(f"it was made with a model of hash {shown(said.model_hash)}, whose name it does not say")
    if said.loras:
        all_of = ", ".join(f"{shown(n)}{f' ({shown(w)})' if w else ''}" for n, w in said.loras[:20])
        notes.append(f"LoRAs and the like were left out: {all_of}")
    skip = real(said.clip_skip)
    if skip is not None and abs(skip) > 1:
        notes.append(f"clip skip {abs(skip):g} was left out: the whole text encoder is asked here")
    if (strength := real(said.strength)) is not None and strength < 1:
        notes.append(
            f"it started from a picture that is not inside, with a strength of {strength:g}. Give it: --init PICTURE@{strength:g}"
        )
    if left := {k: v for k, v in said.left.items() if v not in (None, "", [], {})}:
        some = "; ".join(f"{shown(k)} {shown(v)}" for k, v in list(left.items())[:30])
        notes.append(f"left out: {some}" + (f"; and {len(left) - 30} more" if len(left) > 30 else ""))


def untagged(text: str) -> tuple[str, list[tuple[str, str]]]:
    """A prompt without the webui's tags of LoRAs, and those: (name, weight)."""
    found = [(m[2], m[3].lstrip(":").partition(":")[0]) for m in NETWORKS.finditer(text)]
    return (NETWORKS.sub("", text).strip() if found else text), found


def _number(data: dict[str, Any], notes: list[str], name: str, value: Any, least: int, most: int) -> None:
    if value in (None, ""):
        return
    number = whole(value)
    if number is None or not least <= number <= most:
        what = (
            "was random, and it does not say which"
            if (name, number) == ("seed", -1)
            else f"{shown(value)} is no whole number from {least} to {most} and was left out"
        )
        notes.append(f"its {name} {what}")
    else:
        data[name] = number


def whole(value: Any) -> int | None:
    """A whole number of whatever kind; None for anything else. Seeds are longer than floats are exact."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d{1,20}\s*", value):
        return int(value)
    number = real(value)
    return int(number) if number is not None and number.is_integer() else None


def real(value: Any) -> float | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | str)
        or (isinstance(value, str) and len(value) > 40)
    ):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shown(value: Any) -> str:
    """A stranger's value as a sentence shows it: short, on one line."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)[:400]
    return cut("".join(c if c.isprintable() else " " for c in text[:400]).strip(), 120)


def loose_json(text: str, deepest: int) -> Any:
    """JSON as other programs write it (NaN is null); None if it is none, or deeper than allowed."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    depth = most = 0
    for piece in re.finditer(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text, re.S):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece[0], 0)
        most = max(most, depth)
    if most > deepest:
        return None
    try:
        return json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None


def mapping(value: Any) -> Mapping[str, Any]:
    """A mapping, or an empty one."""
    return value if isinstance(value, dict) else {}

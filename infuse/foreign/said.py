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
MOST_SKIP = 24
ENDINGS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
SIGNS = re.compile(r"[()\[\]{}<>|\\\"]|\+\+|--|[+-](?=[\s,.]|$)|:\s*[-+]?[.\d]+\s*$|\b(?:AND|BREAK)\b|__")
"""What some syntax reads as more than words."""


@dataclass(frozen=True)
class Network:
    """A LoRA as it is said: its file's name, and weights as they are written (None: not said)."""

    name: str
    weight: Any = None
    text_weight: Any = None


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
    vae: Any = None
    syntax: str = "webui"
    """How its prompts are read."""
    emphasis: str = ""
    loras: list[Network] = field(default_factory=list)
    """Those that its prompt does not name."""
    embeddings: list[str] = field(default_factory=list)
    """Names of textual inversions."""
    left: dict[str, Any] = field(default_factory=dict)
    """Whatever else it says, by its own name."""
    notes: list[str] = field(default_factory=list)


def meant(said: Said) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields of a recipe, one sentence for each thing that was left out)."""
    data: dict[str, Any] = {}
    notes = list(said.notes)
    for name in ("prompt", "negative_prompt"):
        text = getattr(said, name)
        if isinstance(text, str) and text:
            data[name] = text
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
    _words(data, notes, said)
    _networks(data, notes, said)
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
    if (strength := real(said.strength)) is not None and strength < 1:
        notes.append(
            f"it started from a picture that is not inside, with a strength of {strength:g}. Give it: --init PICTURE@{strength:g}"
        )
    if left := {k: v for k, v in said.left.items() if v not in (None, "", [], {})}:
        some = "; ".join(f"{shown(k)} {shown(v)}" for k, v in list(left.items())[:30])
        notes.append(f"left out: {some}" + (f"; and {len(left) - 30} more" if len(left) > 30 else ""))


def _words(data: dict[str, Any], notes: list[str], said: Said) -> None:
    """How its prompts are read, which says nothing of words alone."""
    if said.syntax != "webui" and any(SIGNS.search(data.get(name, "")) for name in ("prompt", "negative_prompt")):
        data["syntax"] = said.syntax
    if said.emphasis and said.emphasis != "original":
        data["emphasis"] = said.emphasis
    skip = real(said.clip_skip)
    if skip is not None and abs(skip) > 1:
        if not skip.is_integer() or abs(skip) > MOST_SKIP:
            notes.append(f"its clip skip {shown(said.clip_skip)} is no number of a layer and was left out")
        else:
            data["clip_skip"] = abs(int(skip))


def _networks(data: dict[str, Any], notes: list[str], said: Said) -> None:
    """LoRAs, words that are vectors and a VAE by their names, as they may lie in the user's folders."""
    loras: list[dict[str, Any]] = []
    for one in dict.fromkeys(said.loras):
        weights = [real(w) for w in (one.weight, one.text_weight)]
        if not (name := named(one.name)) or any(
            w is None and v not in (None, "") for w, v in zip(weights, (one.weight, one.text_weight), strict=True)
        ):
            notes.append(f"its LoRA {shown(one.name)} with the weight {shown(one.weight)} was left out")
            continue
        weight, text = (1.0 if weights[0] is None else weights[0]), weights[1]
        loras.append(
            {"kind": "lora", "model": name, "weight": weight}
            | ({} if text in (None, weight) else {"text_weight": text})
        )
    if loras:
        data["conditions"] = loras
    if words := [n for n in map(named, said.embeddings) if n]:
        data["embeddings"] = words
    if isinstance(said.vae, str) and (vae := named(said.vae)) and vae.lower() not in ("automatic", "none", "baked vae"):
        data["vae"] = vae


def named(text: str) -> str:
    """A file of another program as a name that is looked for in the user's folders: without its ending."""
    name = " ".join(text.replace("\\", "/").split())
    ending = next((e for e in ENDINGS if name.lower().endswith(e)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name


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

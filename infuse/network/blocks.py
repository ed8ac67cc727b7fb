"""A network's strength block by block: 26 numbers, one for the text encoders and one for each block as original checkpoints count them.

Lists of 12, 17, 20 and 26 numbers name different blocks; what a list doesn't name is 0, as in the extension they come from
(hako-mikan/sd-webui-lora-block-weight@b403cb7). Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from infuse.errors import RecipeError
from infuse.notices import note

NAMES = ("BASE", *(f"IN{i:02}" for i in range(12)), "M00", *(f"OUT{i:02}" for i in range(12)))
"""The 26 slots, in order."""


def _named(ins: Sequence[int], outs: Sequence[int]) -> tuple[str, ...]:
    return ("BASE", *(f"IN{i:02}" for i in ins), "M00", *(f"OUT{i:02}" for i in outs))


FORMS = {
    12: _named((4, 5, 7, 8), range(6)),
    17: _named((1, 2, 4, 5, 7, 8), range(3, 12)),
    20: _named(range(9), range(9)),
    26: NAMES,
}
"""Which blocks a list of so many numbers names: 12 and 20 for SDXL, 17 and 26 for SD 1 and 2; the shorter ones only those with
attention."""
MEANT = {12: "SDXL", 20: "SDXL", 17: "SD 1 and 2", 26: "SD 1 and 2"}

PRESETS: dict[str, tuple[float, ...]] = {
    "NONE": (0.0,) * 17,
    "ALL": (1.0,) * 17,
    "INS": (1.0,) * 4 + (0.0,) * 13,
    "IND": (1.0,) + (0.0,) * 3 + (1.0,) * 3 + (0.0,) * 10,
    "INALL": (1.0,) * 7 + (0.0,) * 10,
    "MIDD": (1.0,) + (0.0,) * 3 + (1.0,) * 8 + (0.0,) * 5,
    "OUTD": (1.0,) + (0.0,) * 7 + (1.0,) * 4 + (0.0,) * 5,
    "OUTS": (1.0,) + (0.0,) * 11 + (1.0,) * 5,
    "OUTALL": (1.0,) + (0.0,) * 7 + (1.0,) * 9,
    "ALL0.5": (0.5,) * 17,
}
"""The extension's own, all lists of 17."""

_SIDE = re.compile(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)(?:\.|$)")


def slot(path: str) -> int | None:
    """The slot (0-25) of a UNet's module by its path in diffusers; None for what lies in no block (time embedding, conv_out): there
    the factor is 1. Text encoders are slot 0."""
    if path == "conv_in":
        return NAMES.index("IN00")
    if path.startswith("mid_block"):
        return NAMES.index("M00")
    found = _SIDE.match(path)
    if found is None:
        return None
    side, block, kind, layer = found[1], int(found[2]), found[3], int(found[4])
    if side == "down":
        at, first = 3 * block + (3 if kind == "downsamplers" else 1 + layer), "IN00"
    else:
        at, first = 3 * block + (2 if kind == "upsamplers" else layer), "OUT00"
    return NAMES.index(first) + at if at < 12 else None


def temporal(path: str) -> bool:
    """Does this module of a video network look along its frames? LoRAs are of pictures, and no condition speaks there."""
    return "temp_" in path or path.startswith("transformer_in")


def blocks(given: str | Sequence[float], family: str = "", kind: str = "", x: float | None = None) -> tuple[float, ...]:
    """26 factors, in the order of `NAMES`.

    `given`: a preset's name, or 12, 17, 20 or 26 numbers, as a list or with commas between; a number may be X, X+0.1, X-0.1. `family`
    and `kind` of the network ("sdxl", "lora") are for notes about what a list leaves out. RecipeError for anything else.
    """
    numbers, called = _numbers(given, x)
    form = FORMS.get(len(numbers))
    if form is None:
        raise RecipeError(
            "blocks",
            f"{len(numbers)} numbers; lists have {', '.join(f'{n} ({MEANT[n]})' for n in FORMS)}, the first one for the text encoders."
            f" Or name a preset: {', '.join(PRESETS)}.",
        )
    said = dict(zip(form, numbers, strict=True))
    if family:
        _note(called, form, said, family, kind)
    return tuple(said.get(name, 0.0) for name in NAMES)


def _numbers(given: str | Sequence[float], x: float | None) -> tuple[list[float], str]:
    """What is given as numbers, and how to call it."""
    if isinstance(given, str):
        words = [w.strip() for w in given.strip().strip(",").split(",")]
        if len(words) == 1 and (preset := PRESETS.get(words[0].upper())) is not None:
            return list(preset), f"the preset {words[0].upper()}"
        if len(words) == 1 and not _is_number(words[0]):
            raise RecipeError(
                "blocks",
                f'"{words[0]}" is no preset. There are {", ".join(PRESETS)}; or write'
                f" {', '.join(map(str, FORMS))} numbers with commas between.",
            )
        numbers = [_number(w, x) for w in words]
    else:
        numbers = [_number(str(n), x) for n in given]
    return numbers, f"a list of {len(numbers)}"


def _number(word: str, x: float | None) -> float:
    if word.upper() in ("R", "U"):
        raise RecipeError(
            "blocks",
            f'"{word}" stands for a random number, which nobody could repeat. Write the number itself.',
        )
    if word[:1].upper() == "X" and (not word[1:] or (word[1] in "+-" and _is_number(word[1:]))):
        if x is None:
            raise RecipeError("blocks", f'"{word}" needs the value of X. Say it with `x=`, or write the number.')
        return x + (float(word[1:]) if word[1:] else 0.0)
    if not _is_number(word):
        raise RecipeError("blocks", f'"{word}" is no number. Entries are numbers, or X, X+0.1, X-0.1.')
    return float(word)


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _note(called: str, form: Sequence[str], said: dict[str, float], family: str, kind: str) -> None:
    """What a list says to nobody, and whom it silences by not naming them."""
    there = set(FORMS[20] if family == "sdxl" else FORMS[26])
    attended = set(FORMS[12] if family == "sdxl" else FORMS[17])
    useful = attended if kind in ("", "lora") else there
    to_nobody = [n for n in form if said[n] and n not in there]
    unnamed = [n for n in NAMES if n in useful and n not in form]
    if to_nobody:
        note(f"blocks: {called} names {_some(to_nobody)}, which this base doesn't have.")
    if unnamed and any(said.values()):
        note(f"blocks: {called} doesn't name {_some(unnamed)}: the network is silent there.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= 6 else f"{', '.join(names[:5])} and {len(names) - 5} more"

"""What a recipe's randomness begins from: a number, a list of numbers, or "random", which becomes a number when it is run."""

from __future__ import annotations

import re
from random import SystemRandom
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

LIMIT = 2**63
"""Seeds lie below it: what a torch generator takes."""
DRAWN = 2**32
"""Random ones lie below this, as in other programs: short enough to be copied by hand."""
RANDOM = "random"


def _read(value: Any) -> int | tuple[int, ...] | str:
    """From what people write: 7, "7", "random", -1 (the webui's random), [3, 5, 8], "3,5,8"."""
    if isinstance(value, str):
        text = value.strip().lower()
        if text == RANDOM:
            return RANDOM
        parts = [p for p in re.split(r"[\s,;]+", text.strip("[]()")) if p]
        if not parts or not all(re.fullmatch(r"-?\d{1,30}", p) for p in parts):
            raise ValueError(f"{value!r} is no seed. Give a number, several ([3, 5, 8]), or random")
        value = [int(p) for p in parts] if len(parts) > 1 else int(parts[0])
    if isinstance(value, list | tuple):
        if not value:
            raise ValueError("it is empty. Give a number, several ([3, 5, 8]), or random")
        found = [_one(v) for v in value]
        return tuple(found) if len(found) > 1 else found[0]
    return RANDOM if type(value) is int and value == -1 else _one(value)


def _one(value: Any) -> int:
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise ValueError(f"a seed should be a valid integer, not {value!r}")
    if value < 0:
        raise ValueError(
            f"a seed should be greater than or equal to 0, not {value}; write random for one that is drawn"
        )
    if value >= LIMIT:
        raise ValueError(f"a seed should be less than {LIMIT}, not {value}")
    return int(value)


Seed = Annotated[int | tuple[int, ...] | Literal["random"], BeforeValidator(_read)]
"""A number; as many numbers as there are pictures; or "random"."""


def listed(seed: int | tuple[int, ...] | str, count: int) -> tuple[int, ...]:
    """The seed of each picture. Raises ValueError if it has not been drawn yet."""
    if isinstance(seed, str):
        raise ValueError("its seed is random: it is drawn when the recipe is resolved")
    return seed if isinstance(seed, tuple) else tuple(range(seed, seed + count))


def drawn() -> int:
    """A random seed."""
    return SystemRandom().randrange(DRAWN)

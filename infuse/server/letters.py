"""What the store answers when it cannot do what it is asked, and how any letter is kept as data.

InfuseError
├── StoreError(RuntimeError)        the store itself: locked, full, broken, or of a newer infuse
├── UnknownJob(LookupError)         no such job or blob, or somebody else's
├── WrongState(ValueError)          a job of this state cannot be asked for that
├── LeaseLost(RuntimeError)         a worker speaks of a job that is not its own any more
├── RecipeError
│   └── KeyTaken                    one idempotency key, two recipes
└── CapacityError
    └── QuotaError                  an owner has as many jobs as are allowed; names the number
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infuse.errors import CapacityError, InfuseError, RecipeError


class StoreError(InfuseError, RuntimeError):
    """The database or the folder of files does not do its part. Nothing was half written."""


class UnknownJob(InfuseError, LookupError):
    """There is no such job or blob. The letter is the same where it is another owner's."""


class WrongState(InfuseError, ValueError):
    """What was asked for is not to be had of a job in this state."""


class LeaseLost(InfuseError, RuntimeError):
    """The job was given to another worker, has ended, or is gone. Whoever reads this drops what it made."""


class KeyTaken(RecipeError):
    """The idempotency key stands for another recipe."""


class QuotaError(CapacityError):
    """An owner's limit is reached."""


SENTENCE = re.compile(r"(?<=[a-z0-9)\]\"'])\. (?=[A-Z])")
"""Where the first sentence of a letter ends: not after an initial, nor within a number."""


def problem(error: BaseException) -> dict[str, str]:
    """A letter as plain data: `kind` (its class), `field`, `fact` (its first sentence), `remedy` (the others).

    An error that is no letter has its text as the fact, and says so in its remedy.
    """
    if not isinstance(error, InfuseError):
        said = str(error) or "it said nothing"
        return {
            "kind": type(error).__name__, "field": "", "fact": f"{type(error).__name__}: {said[:2000]}",
            "remedy": "This is a fault of infuse rather than of the recipe. Retry the job; if it comes back, report it.",
        }  # fmt: skip
    fact, *rest = SENTENCE.split(error.message, maxsplit=1)
    return {
        "kind": type(error).__name__,
        "field": error.field,
        "fact": fact.rstrip(".") + ".",
        "remedy": rest[0] if rest else "",
    }


def said(told: Mapping[str, Any]) -> str:
    """The problem as one line of text."""
    field = f"{told['field']}: " if told.get("field") else ""
    return f"{field}{told.get('fact', '')} {told.get('remedy', '')}".strip()

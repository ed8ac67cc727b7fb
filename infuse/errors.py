"""Every error that infuse raises on purpose, each a letter to the user: what, where, what to do.

    InfuseError
    ├── RecipeError(ValueError)     the request contradicts itself or its network; names the field
    ├── WeightsError(ValueError)    a file is missing, broken, foreign, or not what it is used as
    ├── CapacityError(RuntimeError) the request is sound but larger than what was allowed or is there
    └── Cancelled                   somebody gave the request up

They are raised before any long work begins, but for those that nobody could foresee: a picture that comes out as NaN,
memory that others have taken meanwhile, a change of mind. A command that ends in one of them exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 2000
"""Characters of a letter. What a stranger's file says can be longer than anybody reads."""


def cut(text: str, most: int) -> str:
    """A text without its middle if it is too long."""
    half = (most - 5) // 2
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"


class InfuseWarning(UserWarning):
    """What was adjusted, or is hardly meant. Each is on the ticket and the result, and in a picture's record, too."""


class InfuseError(Exception):
    """Base of all. `field` is the dotted path in the recipe ("" when the error is about no field)."""

    def __init__(self, field: str, message: str) -> None:
        field, message = cut(field, LONGEST // 4), cut(message, LONGEST)
        super().__init__(field, message)
        self.field, self.message = field, message

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def under(self, prefix: str) -> InfuseError:
        """The same letter, with its field seen from one level further out: `model` under `conditions.1`."""
        return type(self)(".".join(p for p in (prefix, self.field) if p), self.message)


class RecipeError(InfuseError, ValueError):
    """A field of the recipe is wrong, or two fields contradict each other."""


class WeightsError(InfuseError, ValueError):
    """Weights cannot be found, read, trusted, or used for what the recipe asks."""


class CapacityError(InfuseError, RuntimeError):
    """More tokens, pixels, memory or rows than the limit; the message names the limit and how to stay under it."""


class Cancelled(InfuseError):
    """The request was given up: by `Ticket.cancel`, or because whoever waited for it left."""


@contextmanager
def under(prefix: str) -> Iterator[None]:
    """Letters that are raised inside are seen from one level further out."""
    try:
        yield
    except InfuseError as error:
        raise error.under(prefix) from None

"""What is inside of a recipe, however deep: its pictures and films, and the names of all weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.validation import Strict


def seen(value: Any, field: str) -> Iterator[tuple[str, Picture | Film]]:
    """(dotted field, picture or film) of whatever is in a value."""
    match value:
        case Picture() | Film():
            yield field, value
        case Strict():
            for name in type(value).model_fields:
                yield from seen(getattr(value, name), f"{field}.{name}")
        case tuple():
            for i, v in enumerate(value):
                yield from seen(v, f"{field}.{i}")


OWN_MODELS = ("model", "vae", "text_encoder")
"""Fields of a recipe that name weights."""
MODELS = (*OWN_MODELS, "image_encoder", "annotator_model", "cleaner_model")
"""The same, of conditions, too."""


def models(value: Any) -> Iterator[str]:
    """Names of all weights in a condition or recipe; a recipe's base among them if it is named."""
    match value:
        case Strict():
            for name in type(value).model_fields:
                inside = getattr(value, name)
                if name in MODELS and isinstance(inside, str):
                    yield inside
                yield from models(inside)
        case tuple():
            for v in value:
                yield from models(v)


def renamed(value: Any, change: Callable[[str, str], str], field: str) -> Any:
    """A value with every name of weights in it replaced."""
    match value:
        case Strict():
            update = {}
            for name in type(value).model_fields:
                inside, at = getattr(value, name), f"{field}.{name}"
                if name in MODELS and isinstance(inside, str):
                    update[name] = change(inside, at)
                elif isinstance(inside, Strict | tuple):
                    update[name] = renamed(inside, change, at)
            return value.model_copy(update={n: v for n, v in update.items() if v is not getattr(value, n)})
        case tuple():
            return tuple(renamed(v, change, f"{field}.{i}") for i, v in enumerate(value))
        case _:
            return value


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with every picture and film in it replaced."""
    match value:
        case Picture() | Film():
            return change(value)
        case Strict():
            return value.model_copy(update={n: replaced(getattr(value, n), change) for n in type(value).model_fields})
        case tuple():
            return tuple(replaced(v, change) for v in value)
        case _:
            return value

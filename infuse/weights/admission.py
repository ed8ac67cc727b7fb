"""Which model a recipe's name means, by whose recipe it is: one's own begins at its folder, then INFUSE_MODELS, then the Hub;
a stranger's finds what comes with infuse, INFUSE_MODELS and what the Hub's cache has, and nothing else.

Strangers' names are judged by how they are written before anything is looked at, and refused in the same words whether
there is something or not.
"""

from __future__ import annotations

from pathlib import Path

from infuse.errors import WeightsError
from infuse.media.reading import SCHEME, Reading, at_home, shown
from infuse.weights import hub
from infuse.weights.library import Library


def admitted(library: Library, model: str, reading: Reading, field: str) -> str:
    """A name or path that `library` finds from anywhere. Raises WeightsError for what this recipe may not use."""
    name = model.strip()
    if not name or name in library.embedded:
        return model
    if reading.trusting or name in reading.models:
        folder = None if name in reading.models else reading.folder
        here = folder in (None, Path())  # a name begins at the working folder by itself, and is kept as it is written
        return model if here or at_home(name).is_absolute() else _beside(library, name, folder)
    if not (SCHEME.match(name) or "\\" in name or name.startswith(("~", "/")) or ".." in Path(name).parts):
        if place := library.in_roots(name):
            return str(place)
        if hub.is_id(name) and (place := hub.held(name)):
            return str(place)
    raise WeightsError(field, f"{shown(name)!r} is none of the models that this recipe may use: those that come with infuse, those in "
                              "INFUSE_MODELS, and those in the Hub's cache. It came out of a picture; choose a model yourself "
                              "(--model), or trust the recipe (--trust, Recipe.load(..., trust=True)) if you know who made it.")  # fmt: skip


def _beside(library: Library, name: str, folder: Path) -> str:
    """A relative name in a recipe file: beside it, in the roots, or on the Hub; never in the working folder instead."""
    here = folder / name
    if here.exists():
        return str(here)
    if place := library.in_roots(name):
        return str(place)
    return str(here) if Path(name).exists() and not hub.is_id(name) else name

"""Which weights a recipe names, and one digest for each name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from hashlib import sha256

from infuse.conditions.base import Condition
from infuse.engine.dressing import PARTS, dress_of
from infuse.recipe import MODELS, Recipe, digest


def models_of(recipe: Recipe) -> set[tuple[str, str]]:
    """(name, kind) of every model in a recipe's fields; the kind of a base is ""."""
    dress = {(name, part) for part, name in zip(PARTS, dress_of(recipe), strict=True) if name is not None}
    named = {(n, c.kind) for c in recipe.conditions for _, n in named_by(c)}
    return dress | named | ({(recipe.model, "")} if recipe.model else set())


def joined(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """A digest for each name. One name may stand for two models: PowerPaint 2 brings its base along."""
    each: dict[str, list[str]] = {}
    for name, of_files in found:
        if of_files:
            each.setdefault(name, []).append(of_files)
    return {n: d[0] if len(set(d)) == 1 else sha256("\n".join(d).encode()).hexdigest() for n, d in each.items()}


def named_by(condition: Condition) -> list[tuple[str, str]]:
    """(field, name) of the models that a condition names."""
    said = (condition, *getattr(condition, "members", ()))
    return [(f, n) for c in said for f in MODELS if isinstance(n := getattr(c, f, None), str)]


def order_of(speakers: Mapping[str, Condition]) -> dict[str, tuple[str, ...]]:
    """Where each condition stands among others, wherever the recipe has it: first by what speaks, so that others' sums, and recorded
    calls, have the same order whatever they are shown and however loud they are. Only those alike are told apart by what they show."""
    what = {who: (c.kind, str(named_by(c))) for who, c in speakers.items()}
    alike = Counter(what.values())
    return {who: (*w, digest(speakers[who])) if alike[w] > 1 else w for who, w in what.items()}

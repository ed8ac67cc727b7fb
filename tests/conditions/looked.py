"""IP-Adapters of every kind around one tiny base."""

from __future__ import annotations

from typing import Any

from parity.cases import photo

from infuse import IPAdapter, Recipe
from infuse.engine.engine import Engine
from infuse.ports import Sides

A, B, C = photo(20), photo(21), photo(22)


def asked(*conditions: IPAdapter, **fields: Any) -> Recipe:
    return Recipe(
        **{
            "model": "tiny",
            "prompt": "x",
            "width": 32,
            "height": 32,
            "steps": 2,
            "seed": 3,
            "conditions": conditions,
            **fields,
        }
    )


def look(**fields: Any) -> IPAdapter:
    return IPAdapter(**{"model": "plus", "image": A, **fields})


def sides(engine: Engine, condition: IPAdapter, **fields: Any) -> Sides:
    """What a condition says to the engine's base."""
    from infuse.encoders.kit import Kit

    resolved = engine.check(asked(condition, **fields))
    kit = Kit(engine.store.base("tiny"), resolved.size, engine.store, resolved.frames)
    return resolved.speakers["conditions.0"].encode(kit)  # type: ignore[arg-type]

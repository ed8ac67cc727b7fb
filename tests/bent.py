"""A sound recipe, and the same one bent in one place: what is wrong with it must be said in a letter."""

from __future__ import annotations

from typing import Any

import pytest

from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.errors import InfuseError

Case = tuple[str, dict[str, Any] | str, type[InfuseError], str, tuple[str, ...]]
"""Name, recipe, and the letter: its kind, its field, and words in it."""


def base(**fields: Any) -> dict[str, Any]:
    return {"model": "sd15.safetensors", "prompt": "x", **fields}


def one(kind: str, **fields: Any) -> dict[str, Any]:
    """A recipe with one condition that is otherwise sound."""
    sound = {"text": {"prompt": "x"}, "img2img": {"image": "a.png"}, "inpaint": {"image": "a.png", "mask": "mask.png"},
             "brushnet": {"model": "brush15.safetensors", "image": "a.png", "mask": "mask.png"},
             "powerpaint": {"model": "./powerpaint2", "image": "a.png", "mask": "mask.png"},
             "controlnet": {"model": "canny15.safetensors", "image": "a.png"},
             **dict.fromkeys(("depth", "edit", "upscale", "unclip"), {"image": "a.png"}),
             "ip_adapter": {"model": "ip15.safetensors", "image": "a.png", "image_encoder": "./vit-h"}}.get(kind, {})  # fmt: skip
    return base(conditions=[{"kind": kind, **sound, **fields}])


def both(*kinds: str, **fields: Any) -> dict[str, Any]:
    return base(conditions=[one(kind)["conditions"][0] for kind in kinds], **fields)


def complains(recipe: Any, kind: type[InfuseError], field: str, words: tuple[str, ...]) -> None:
    """A check must end in this letter."""
    with pytest.raises(InfuseError) as caught:
        Engine(device="cpu").check(Recipe.load(recipe))
    error = caught.value
    assert (type(error), error.field) == (kind, field), str(error)
    assert all(w in error.message for w in words), str(error)
    assert len(error.message) < 1200 and str(error).count("\n") <= 2, "a letter, not a dump"

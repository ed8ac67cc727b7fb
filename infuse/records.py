"""A picture carries its whole recipe: written into the PNG, read back to the same bytes.

Input pictures and films travel inside as data URIs of their own bytes (a film of more than 32 MiB by its path), and every
input and weights file is named with its hash, so that a replay says what changed instead of quietly making another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError

KEY = "infuse"
VERSION = 1


@dataclass(frozen=True)
class Record:
    """What a picture says about its making."""

    recipe: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Dotted field -> sha256 of the input picture's or film's file."""
    weights: Mapping[str, str]
    """Model -> sha256 of what was loaded."""

    @classmethod
    def of(cls, recipe: Any, weights: Mapping[str, str]) -> Record:
        inside = recipe.with_pictures(lambda p: p.embedded())
        return cls(inside.dump(), {field: p.sha256 for field, p in inside.pictures()}, dict(sorted(weights.items())))

    def text(self) -> str:
        return json.dumps(
            {"version": VERSION, "recipe": self.recipe, "inputs": self.inputs, "weights": self.weights}, sort_keys=True
        )


def write_png(image: Any, path: Path, record: Record) -> None:
    """Write a PNG with its record (iTXt chunk "infuse", compressed). The same picture and record give the same bytes."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEY, record.text(), zip=True)
    image.save(path, "PNG", pnginfo=info, compress_level=6)


def read_record(path: Path) -> dict[str, Any]:
    """The record of a picture made by infuse: {"recipe", "inputs", "weights"}. Raises RecipeError if there is none."""
    from PIL import Image, PngImagePlugin

    PngImagePlugin.MAX_TEXT_CHUNK = max(PngImagePlugin.MAX_TEXT_CHUNK, 256 << 20)
    PngImagePlugin.MAX_TEXT_MEMORY = max(PngImagePlugin.MAX_TEXT_MEMORY, 512 << 20)
    try:
        with Image.open(path) as image:
            image.load()
            text = getattr(image, "text", {}).get(KEY)
    except Exception as error:
        raise RecipeError("", f"{path} is not a picture that can be read ({error}).") from None
    if text is None:
        raise RecipeError(
            "", f"{path} carries no recipe. Only PNGs written by infuse, and not stripped since, can be run again."
        )
    return parsed(text, path)


def parsed(text: str, path: Path) -> dict[str, Any]:
    """A record from its text, found in `path`. Raises RecipeError if it is damaged."""
    try:
        record = json.loads(text)
        if not isinstance(record["recipe"], dict):
            raise TypeError("its recipe is not a mapping")
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError("", f"the recipe in {path} is damaged ({error}).") from None
    return record

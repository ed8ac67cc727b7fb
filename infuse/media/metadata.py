"""A picture carries its whole recipe: written into the PNG, read back to the same bytes.

Input pictures and films travel inside as data URIs of their own bytes (a film of more than 32 MiB by its path), and every
input and weights file is named with its hash, so that a replay says what changed instead of quietly making another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from infuse.errors import RecipeError, under
from infuse.media.pictures import at_home

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
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe left open, as it was filled, and who spoke when."""
    fps: float | None = None
    """Frames per second at which a film was written; None for a picture."""

    @classmethod
    def of(cls, recipe: Any, weights: Mapping[str, str], resolved: Mapping[str, Any] | None = None) -> Record:
        inside = recipe.with_pictures(lambda p: p.embedded())
        inputs = {where: p.sha256 for where, p in inside.pictures()}
        return cls(inside.dump(), inputs, dict(sorted(weights.items())), resolved or {})

    def text(self) -> str:
        said: dict[str, Any] = {
            "version": VERSION,
            "recipe": self.recipe,
            "inputs": self.inputs,
            "weights": self.weights,
        }
        said |= {"resolved": self.resolved} if self.resolved else {}
        return json.dumps(said | ({} if self.fps is None else {"fps": self.fps}), sort_keys=True)


@dataclass(frozen=True)
class Elsewhere:
    """Instead of a record: the name of the picture beside this one that has it."""

    name: str

    def text(self) -> str:
        return json.dumps({"version": VERSION, "see": self.name}, sort_keys=True)


def write_png(image: Any, path: Path, record: Record | Elsewhere) -> None:
    """Write a PNG with its record (iTXt chunk "infuse", compressed). The same picture and record give the same bytes.

    Raises RecipeError if the file cannot be written.
    """
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt(KEY, record.text(), zip=True)
    with writing(path):
        image.save(path, "PNG", pnginfo=info, compress_level=6)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system says while a file is written, as a letter. Makes the folders above it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecipeError("", f"{path} cannot be written ({why}). Choose another place, or make room there.") from None


def reachable(path: Path) -> None:
    """Complain before long work if no file could be made there: a nameless one is, and is gone again.

    Raises RecipeError.
    """
    try:
        above = next(p for p in path.absolute().parents if p.exists())
        if not above.is_dir():
            raise NotADirectoryError(f"{above} is a file, not a folder")
        if path.is_file():
            path.open("ab").close()
        else:
            TemporaryFile(dir=path if path.is_dir() else above).close()
    except OSError as error:
        why = error.strerror or error
        raise RecipeError("", f"{path} cannot be written ({why}). Choose a folder that you may write to.") from None


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


def changed_inputs(pictures: Iterable[tuple[str, Any]], inputs: Mapping[str, str], path: Path) -> list[str]:
    """What a recipe in `path` took from files that are not what they were; one sentence each.

    `pictures`: the recipe's (field, picture or film); `inputs`: the record's hashes. What travels inside cannot change,
    and what is gone is said when it is opened.
    """
    out = []
    for where, found in pictures:
        if where in inputs and not found.source.startswith("data:") and at_home(found.source).exists():
            with under(where):
                here = found.sha256
            if here != inputs[where]:
                out.append(f"{where}: {found} is not what made {path} ({inputs[where][:12]} then, {here[:12]} now). Expect "
                           "another result, or put it back.")  # fmt: skip
    return out


def parsed(text: str, path: Path) -> dict[str, Any]:
    """A record from its text, found in `path`. Raises RecipeError if it is damaged."""
    try:
        record = json.loads(text)
        see = record.get("see")
        if see is None and not isinstance(record["recipe"], dict):
            raise TypeError("its recipe is not a mapping")
        if not isinstance(record.get("inputs", {}), dict) or not isinstance(record.get("fps", 1.0), int | float):
            raise TypeError("its inputs are no mapping, or its fps no number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError("", f"the recipe in {path} is damaged ({error}).") from None
    if see is not None:
        raise RecipeError(
            "", f"{path} is one frame of several; their recipe is in {see} beside it. Name that one, or the folder."
        )
    return record

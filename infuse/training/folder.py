"""Your own pictures to learn from: a folder with a metadata.jsonl beside them, one line a picture.

    {"file_name": "kitchen.png", "text": "a kitchen", "objects": [{"mask": "kettle.png", "text": "a red kettle"}]}

`file_name` and `text` are those of Hugging Face's imagefolder. `objects` is what PowerPaint's text-guided and
shape-guided filling learn from: each has a `mask` (a picture of the same size, white where it is) or a `box` [left, top,
right, bottom] in pixels. All of it is checked before the first step; each complaint names its line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from infuse.errors import InfuseError, RecipeError
from infuse.validation import Strict

METADATA = "metadata.jsonl"
T = TypeVar("T")


class Object(Strict):
    """Something in a picture."""

    text: str = ""
    mask: str | None = None
    box: tuple[int, int, int, int] | None = None


class Line(Strict):
    """One picture."""

    file_name: str
    text: str = ""
    objects: tuple[Object, ...] = ()


@dataclass(eq=False)
class Folder:
    """Pictures whose shorter side will be `size` pixels. Raises RecipeError for what is missing or does not fit."""

    root: Path
    size: int
    lines: list[Line] = field(init=False, default_factory=list)
    numbers: list[int] = field(init=False, default_factory=list)
    """Of each line, in the file."""
    sizes: dict[str, tuple[int, int]] = field(init=False, default_factory=dict)
    """(width, height) of each picture as it lies on the disk."""

    def __post_init__(self) -> None:
        self.lines.extend(self._read())

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, index: int) -> str:
        """Where a line stands, for letters."""
        return f"{METADATA}:{self.numbers[index]}"

    def picture(self, name: str, mode: str = "RGB") -> np.ndarray:
        """(h w 3), or (h w) for mode L, uint8."""
        from PIL import Image

        with Image.open(self.root / name) as file:
            image = file.convert(mode)
        wanted = self._scaled(image.size)
        way = Image.Resampling.LANCZOS if mode == "RGB" else Image.Resampling.NEAREST
        return np.asarray(image if image.size == wanted else image.resize(wanted, way))

    def silhouette(self, index: int, one: Object) -> np.ndarray:
        """(h w) 0/1 of an object of a line: its mask, or its box. Raises RecipeError if the mask is empty."""
        name = self.lines[index].file_name
        if one.mask is not None:
            found = (self.picture(one.mask, "L") >= 128).astype(np.uint8)
        else:
            assert one.box is not None, "checked: a mask or a box"
            width, height = self._scaled(self.sizes[name])
            scale = self.size / min(self.sizes[name])
            left, top, right, bottom = (int(v * scale) for v in one.box)
            found = np.zeros((height, width), np.uint8)
            found[top : max(bottom, top + 1), left : max(right, left + 1)] = 1
        if not found.any():
            raise RecipeError(self.place(index), f"the mask {one.mask} has no white pixel at {self.size} px. White is where the object is: "
                                                 "draw it, or take the object out.")  # fmt: skip
        return found

    def _scaled(self, size: tuple[int, int]) -> tuple[int, int]:
        scale = self.size / min(size)
        return round(size[0] * scale), round(size[1] * scale)

    # ── reading ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _read(self) -> Iterator[Line]:
        def fitting(said: dict[str, Any]) -> Line:
            line = Line(**said)
            self._fits(line)
            return line

        for number, line in read_lines(self.root, fitting, '{"file_name": "a.png", "text": "..."}', "picture"):
            self.numbers.append(number)
            yield line

    def _fits(self, line: Line) -> None:
        """Raises RecipeError unless the files are there and of matching sizes. Reads headers only."""
        width, height = self.sizes[line.file_name] = self._size(line.file_name, "file_name")
        if min(width, height) < self.size:
            raise RecipeError("file_name", f"{line.file_name} is {width} x {height} px; training at {self.size} px needs that much on the "
                                           "shorter side. Leave it out, or train at a smaller size.")  # fmt: skip
        for i, one in enumerate(line.objects):
            if (one.mask is None) == (one.box is None):
                raise RecipeError(f"objects.{i}", "an object has a mask or a box: one of the two, not both.")
            if one.mask is not None and (size := self._size(one.mask, f"objects.{i}.mask")) != (width, height):
                raise RecipeError(f"objects.{i}.mask", f"{one.mask} is {size[0]} x {size[1]} px, its picture {line.file_name} is {width} x "
                                                       f"{height} px. Make both the same size.")  # fmt: skip
            if one.box is not None:
                left, top, right, bottom = one.box
                if not (0 <= left < right <= width and 0 <= top < bottom <= height):
                    raise RecipeError(f"objects.{i}.box", f"{list(one.box)} does not lie in a picture of {width} x {height} px. It is "
                                                          "[left, top, right, bottom] in pixels.")  # fmt: skip

    def _size(self, name: str, field: str) -> tuple[int, int]:
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(self.root / name) as file:
                return file.size
        except FileNotFoundError:
            raise RecipeError(
                field, f"there is no file {name} in {self.root}. Check the name, or take the line out."
            ) from None
        except (UnidentifiedImageError, OSError) as error:
            raise RecipeError(field, f"{name} cannot be read as a picture ({error}). Save it again as PNG.") from None


def read_lines(root: Path, made: Callable[[dict[str, Any]], T], example: str, what: str) -> Iterator[tuple[int, T]]:
    """(number in the file, what is `made` of it) for each line of a folder's metadata.

    Raises RecipeError, with the line's number, for what is no JSON object or `made` complains of.
    """
    path = root / METADATA
    if not path.is_file():
        raise RecipeError(
            "data", f"there is no {METADATA} in {root}. Write one line of JSON for each {what}: {example}."
        )
    try:
        said_lines = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise RecipeError("data", f"{path} is not UTF-8 ({error}). Save it as that.") from None
    empty = True
    for number, text in enumerate(said_lines, 1):
        if not text.strip():
            continue
        empty, place = False, f"{METADATA}:{number}"
        try:
            said = json.loads(text)
        except ValueError as error:
            raise RecipeError(place, f"it is not JSON ({error}). One object in one line, please.") from None
        if not isinstance(said, dict):
            raise RecipeError(place, f"it is no object. Write {example}.")
        try:
            yield number, made(said)
        except InfuseError as error:
            raise error.under(place) from None
    if empty:
        raise RecipeError("data", f"{path} has no lines, so there is nothing to learn from.")

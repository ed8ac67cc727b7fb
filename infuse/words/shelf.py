"""What `__name__` stands for: the lines of `name.txt`, or a list in a YAML or JSON file, in the user's own folders.

Values of all files that a name fits are taken together, without doubles, sorted: what is chosen does not depend on files' order.
Names are compared with those of files that are there; none is ever made into a path.

Source: adieyal/dynamicprompts@58815af src/dynamicprompts/wildcards.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from infuse.errors import CapacityError, RecipeError
from infuse.media.plain_data import read_data
from infuse.media.reading import policy
from infuse.notices import note
from infuse.words.templates import MOST_WEIGHT

MOST_FILES = 50_000
WEIGHED = re.compile(r"(\d+(?:\.\d*)?)::(.*)", re.S)
Values = tuple[tuple[float, str], ...]


class Shelf:
    """Folders of wildcards, looked into when a name is asked for."""

    def __init__(self, folders: Sequence[Path | str]) -> None:
        self._limits = policy()
        self._found: dict[str, Values] = {}
        self._folders, self.refused = list[Path](), False
        for folder in folders:
            try:
                self._folders.append(Path(self._limits.located(str(folder))))
            except RecipeError:  # a stranger's recipe: the answer is the same whatever is there
                self.refused = True

    def values(self, name: str) -> Values:
        """(weight, text) of each value that a name stands for, sorted by text; none if there is no such name, which is noted.

        `*` in a name is anything within a folder's name, `**` any folders. Raises RecipeError (a file that is none) and CapacityError.
        """
        if name not in self._found:
            found = self._of(name)
            self._found[name] = tuple(sorted(((w, t) for t, w in found.items()), key=lambda value: value[1]))
            if not found:
                note(f"__{name}__ {self._why(name)} It is painted as it stands.")
        return self._found[name]

    def _of(self, name: str) -> dict[str, float]:
        found: dict[str, float] = {}
        if ".." in name:
            return found
        for pattern in (_glob(name), _glob(f"**/{name}")):
            for key in filter(pattern.fullmatch, self._names):
                for weight, text in self._read(key):
                    found.setdefault(text, weight)
            if found:
                return found
        return found

    def _why(self, name: str) -> str:
        if self.refused:
            return "stands for lines of a file, and this recipe may not read files by itself: it came out of a picture."
        if ".." in name:
            return "leads out of the folder of wildcards."
        near = get_close_matches(name, self._names, 1) if len(self._names) < 5000 else []
        there = f"there is {near[0]!r}." if near else "name it as a file or list in a folder of wildcards is named."
        return f"stands for lines of a file, but there is none of this name; {there}"

    @cached_property
    def _names(self) -> dict[str, list[Path | list[Any]]]:
        """What each name is: text files, and lists out of others."""
        names: dict[str, list[Path | list[Any]]] = {}
        for folder in self._folders:
            for file in _files(folder):
                kind = file.suffix.lower()
                if kind == ".txt":
                    names.setdefault(file.relative_to(folder).with_suffix("").as_posix(), []).append(file)
                elif kind in (".yaml", ".yml", ".json"):
                    for name, values in _leaves(read_data(file, self._limits)):
                        names.setdefault(name, []).append(values)
        return names

    def _read(self, key: str) -> Iterator[tuple[float, str]]:
        for source in self._names[key]:
            if isinstance(source, Path):
                yield from ((1.0, line) for line in _lines_of(source, self._limits.most_text))
            else:
                yield from filter(None, map(_item, source))


def _files(folder: Path) -> Iterator[Path]:
    n = 0
    for here, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            n += 1
            if n > MOST_FILES:
                raise CapacityError(
                    "", f"{folder} has more than {MOST_FILES} files. Name a folder that holds wildcards alone."
                )
            yield Path(here, name)


def _lines_of(file: Path, most: int) -> list[str]:
    try:
        with file.open("rb") as f:
            content = f.read(most + 1)
        if len(content) > most:
            raise CapacityError(
                "", f"{file} has more than {most >> 20} MiB, the limit of a file of wildcards. Split it."
            )
        lines = map(str.strip, content.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise RecipeError(
            "", f"{file} is no text in UTF-8 ({error.reason} at byte {error.start}). Save it as such."
        ) from None
    except OSError as error:
        raise RecipeError("", f"{file} cannot be read ({error.strerror}). Check the file.") from None
    return [line for line in lines if line and not line.startswith("#")]


def _leaves(data: Any, name: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Lists in a tree of mappings, by the keys that lead there. Depth is limited where the file is read."""
    if isinstance(data, dict):
        for key, value in data.items():
            yield from _leaves(value, f"{name}/{key}" if name else str(key))
    elif name and data is not None:
        yield name, data if isinstance(data, list) else [data]


def _item(item: Any) -> tuple[float, str] | None:
    """A value with its weight: text, `"0.5::text"`, or {text, weight}."""
    if isinstance(item, dict):
        text, weight = item.get("text", item.get("content")), item.get("weight", 1)
        if (
            text is None
            or isinstance(weight, bool)
            or not isinstance(weight, int | float)
            or not 0 <= weight <= MOST_WEIGHT
        ):
            return None
        return float(weight), str(text).strip()
    if item is None or isinstance(item, list):
        return None
    match = WEIGHED.fullmatch(str(item).strip())
    return (min(float(match[1]), MOST_WEIGHT), match[2].strip()) if match else (1.0, str(item).strip())


def _glob(name: str) -> re.Pattern[str]:
    """`**/` is any folders or none."""
    made = ""
    for part in re.split(r"(\*\*/|\*+)", re.sub(r"\*{3,}", "**", name)):
        made += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}.get(part, re.escape(part))
    return re.compile(made)

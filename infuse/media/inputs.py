"""What was too large to travel is found again in folders that somebody names: by name and size first, then by size alone; its
hash decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from infuse.errors import InfuseError
from infuse.media.films import Film
from infuse.media.reading import BY_HASH

MOST_FILES = 100_000
"""Files that are looked at in all folders."""


def found_again(known: Iterable[Any], folders: Sequence[Path]) -> dict[str, Path]:
    """sha256 -> file, or folder of frames. `known`: what a record says of its inputs, {"sha256", "bytes", "name"}."""
    wanted = [k for k in known if isinstance(k, dict) and isinstance(k.get("name"), str)]
    if not wanted or not folders:
        return {}
    files: dict[int, list[Path]] = {}
    names: dict[str, list[Path]] = {}
    inside: dict[Path, int] = {}
    for place in _below(folders):
        with suppress(OSError):
            names.setdefault(place.name, []).append(place)
            if place.is_file():
                size = place.stat().st_size
                files.setdefault(size, []).append(place)
                inside[place.parent] = inside.get(place.parent, 0) + size
    for folder, size in inside.items():  # a film of frames may have another name by now, as a file may
        files.setdefault(size, []).append(folder)
    found: dict[str, Path] = {}
    for one in wanted:
        named = names.get(one["name"], [])
        sized = files.get(one.get("bytes", -1), []) if isinstance(one.get("bytes"), int) else []
        likely = [p for p in named if p in sized or p.is_dir()]
        place = next((p for p in dict.fromkeys([*likely, *sized]) if _hash(p) == one["sha256"]), None)
        if place is not None:
            found[one["sha256"]] = place
    return found


def _below(folders: Sequence[Path]) -> Iterator[Path]:
    left = MOST_FILES
    for folder in folders:
        if not folder.is_dir():
            continue
        for place in sorted(folder.rglob("*")):
            if (left := left - 1) < 0:
                return
            yield place


def _hash(place: Path) -> str:
    with suppress(OSError, InfuseError):
        if place.is_dir():
            return Film(source=str(place)).sha256  # pictures in a folder are hashed with their names
        with place.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def put_back(data: Any, places: Mapping[str, Path]) -> Any:
    """Plain data with paths in place of the hashes that were found."""
    if isinstance(data, str) and data.startswith(BY_HASH):
        place = places.get(data.removeprefix(BY_HASH))
        return data if place is None else place.absolute().as_posix()
    if isinstance(data, dict):
        return {k: put_back(v, places) for k, v in data.items()}
    return [put_back(v, places) for v in data] if isinstance(data, list) else data

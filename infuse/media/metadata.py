"""What a picture or film says of its making: the recipe as it was asked and as it was resolved, versions, hashes. Read
back, it makes the same again.

Nothing of the machine is in it: no path, no name of a user, and of the inputs their pixels alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from infuse.errors import RecipeError, under
from infuse.media.plain_data import json_data
from infuse.media.reading import BY_HASH, OWN, Reading, at_home
from infuse.media.texts import texts

KEY = "infuse"
VERSION = 2
"""Of the record. 1 had whole input files inside, and said of them their hashes only."""
OURS = (KEY, "ImageDescription", "comment")
"""Where a record lies: a PNG's chunk, the EXIF of a JPEG, WebP, AVIF or TIFF, the comment of a GIF or film."""


@dataclass(frozen=True)
class Record:
    """What a picture says about its making."""

    recipe: Mapping[str, Any]
    inputs: Mapping[str, Any]
    """Dotted field -> {"sha256", "bytes"} of the input picture's or film's file, and its "name" if it did not travel."""
    weights: Mapping[str, str]
    """Model -> sha256 of what was loaded."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """What the recipe left open, as it was filled, and who spoke when."""
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    digest: str = ""
    """Of what was asked."""
    fps: float | None = None
    """Frames per second at which a film was written; None for a picture."""
    parameters: str = field(default="", compare=False)
    """The same in the webui's words, which stands beside the record: other programs show it."""
    notes: tuple[str, ...] = field(default=(), compare=False)
    """What whoever saves it should know."""

    def text(self) -> str:
        said: dict[str, Any] = {
            "version": VERSION,
            "recipe": self.recipe,
            "inputs": self.inputs,
            "weights": self.weights,
        }
        more = {"resolved": self.resolved, "versions": self.versions, "warnings": self.warnings, "digest": self.digest}
        said |= {name: value for name, value in more.items() if value}
        return json.dumps(said | ({} if self.fps is None else {"fps": self.fps}), sort_keys=True)


@dataclass(frozen=True)
class Elsewhere:
    """Instead of a record: the name of the picture beside this one that has it."""

    name: str
    parameters: str = ""

    def text(self) -> str:
        return json.dumps({"version": VERSION, "see": self.name}, sort_keys=True)


def versions(own: str) -> dict[str, str]:
    """The packages that decide what comes out; without what a build of them says of its machine ("2.9.0+cu128")."""
    found = {"infuse": own}
    for name in ("torch", "diffusers", "transformers"):
        try:
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:  # a copy on the path instead of a package
            continue
    return found


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """The place to write a file to, which takes its name when it is whole. Makes the folders above it; what the system
    says meanwhile is a letter."""
    beside = path.with_name(f".infuse-{secrets.token_hex(4)}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # a pipe has no other name; a file may be mine where the folder is not
        to = beside if (path.is_file() or not path.exists()) and os.access(path.parent, os.W_OK) else path
        yield to
        if to is beside:
            beside.replace(path.resolve())  # a link stays one
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecipeError("", f"{path} cannot be written ({why}). Choose another place, or make room there.") from None
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


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


def read_record(path: Path, limits: Reading = OWN) -> dict[str, Any]:
    """The record of a picture or film made by infuse: {"recipe", "inputs", "weights", ...}. Raises RecipeError if there is none."""
    record, _ = record_in_file(path, limits)
    if record is None:
        raise RecipeError(
            "", f"{path} carries no recipe. Only pictures and films written by infuse, and not stripped or converted "
            "since, can be run again."
        )  # fmt: skip
    return record


def record_in_file(path: Path, limits: Reading = OWN) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """(the record of a picture or film, or None; every text in it). Raises RecipeError or CapacityError."""
    try:
        found = texts(path, limits)
    except OSError as error:
        raise RecipeError("", f"{path} cannot be read ({error.strerror or error}). Check the path.") from None
    for name in OURS:
        text = found.get(name, "")
        if name == KEY and text or '"version"' in text and ('"recipe"' in text or '"see"' in text):
            return parsed(text, path, limits), found
    return None, found


def changed_inputs(pictures: Iterable[tuple[str, Any]], inputs: Mapping[str, Any], path: Path) -> list[str]:
    """What a recipe in `path` took from files that are not what they were; one sentence each.

    `pictures`: the recipe's (field, picture or film); `inputs`: the record's hashes. What travels inside, or is found by
    its hash, cannot change, and what is gone is said when it is opened.
    """
    out = []
    for where, found in pictures:
        if (
            where in inputs
            and not found.source.startswith(("data:", BY_HASH))
            and os.path.exists(at_home(found.source))
        ):
            with under(where):
                here = found.sha256
            then = inputs[where] if isinstance(inputs[where], str) else inputs[where].get("sha256", here)
            if here != then:
                out.append(f"{where}: {found} is not what made {path} ({then[:12]} then, {here[:12]} now). Expect "
                           "another result, or put it back.")  # fmt: skip
    return out


def parsed(text: str, path: Path, limits: Reading = OWN) -> dict[str, Any]:
    """A record from its text, found in `path`. Raises RecipeError if it is damaged, CapacityError if it is too large."""
    record = json_data(text, path, limits, "the recipe in {} is damaged ({}).")
    try:
        see = record.get("see")
        if see is None and not isinstance(record["recipe"], dict):
            raise TypeError("its recipe is not a mapping")
        if not isinstance(record.get("fps", 1.0), int | float) or not isinstance(record.get("weights", {}), dict):
            raise TypeError("its fps is no number, or its weights no mapping")
        inputs = record.get("inputs", {})
        if not isinstance(inputs, dict) or not all(_is_input(v) for v in inputs.values()):
            raise TypeError("its inputs are no mapping of hashes")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecipeError("", f"the recipe in {path} is damaged ({error}).") from None
    if see is not None:
        raise RecipeError(
            "", f"{path} is one frame of several; their recipe is in {see} beside it. Name that one, or the folder."
        )
    return record


def _is_input(value: Any) -> bool:
    return isinstance(value, str) or isinstance(value, dict) and isinstance(value.get("sha256"), str)

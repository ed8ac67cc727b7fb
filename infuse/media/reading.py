"""What a recipe may make infuse read: which folders and models, and how much of them. One policy for models,
pictures and films.

Who writes a recipe decides what it may name: one's own file may name everything, a recipe that came out of a stranger's
picture only what it carries and what the owner has laid ready. A picture or film remembers the policy under which it was
named; models are asked for under their recipe's.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from infuse.errors import CapacityError, RecipeError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]+:")
"""How an address begins (one letter before the colon is a Windows drive)."""
BY_HASH = "sha256:"
"""A source that names a file by its content; it is looked for in the folders of `inputs`."""


@dataclass(frozen=True)
class Reading:
    """Limits of what is read. `OWN` for what the user wrote, `STRICT` for recipes of strangers."""

    roots: tuple[Path, ...] | None = None
    """Folders that pictures and films may lie in; None: anywhere."""
    models: frozenset[str] = frozenset()
    """Names of models that the user gave himself, whatever else the recipe may not read."""
    folder: Path | None = None
    """Where relative names begin: the recipe's own folder; None: the working folder."""
    inputs: tuple[Path, ...] = ()
    """Folders in which files that are named by their hash are found again."""
    most_bytes: int = 256 << 20
    """Of one picture's file."""
    most_film_bytes: int = 16 << 30
    most_pixels: int = 100_000_000
    longest_side: int = 16_384
    most_animated: int = 100_000_000_000
    """Pixels of all frames of an animation, whose times are known when each has been decoded."""
    most_frames: int = 100_000
    """That a film may have, taken or not (an hour at 27 per second)."""
    most_text: int = 8 << 20
    """Bytes of a recipe's text, unpacked."""
    deepest: int = 40
    """Levels of lists and mappings in it."""

    @property
    def trusting(self) -> bool:
        """May it name files anywhere, and models that have to be fetched?"""
        return self.roots is None

    def at(self, folder: Path) -> Reading:
        """The same policy for a recipe that lies in this folder."""
        return replace(self, folder=folder)

    def located(self, text: str) -> str:
        """A picture's or film's path as it is kept in a recipe: relative ones begin at the recipe's folder.

        Nothing is looked at on disk. Raises RecipeError if it may not be read; the letter is the same whether it exists.
        """
        if text.startswith(("data:", BY_HASH)):
            return text
        path = at_home(text)
        if not self.trusting:
            return str(self._inside(text, path))
        if SCHEME.match(text) and "//" in text:
            raise RecipeError("", f"{shown(text)} is an address, and pictures are not fetched from there. Save it as a file "
                                  "first, and name that.")  # fmt: skip
        return text if self.folder is None or path.is_absolute() else str(self.folder / text)

    def _inside(self, text: str, path: Path) -> Path:
        place = Path(os.path.normpath((self.folder or Path()) / path))
        if not (SCHEME.match(text) or "\\" in text or text.startswith("~")):
            for root in self.roots or ():
                if place.is_relative_to(os.path.normpath(root)):
                    return place
        raise RecipeError("", f"{shown(text)} is not carried along, and this recipe may not read files by itself: it came out of a "
                              "picture. Trust it (--trust, or Recipe.load(..., trust=True)) if you know who made it.")  # fmt: skip

    def found(self, source: str) -> Path:
        """The file of this hash in a folder of inputs. Raises RecipeError if none of them has it."""
        wanted = source.removeprefix(BY_HASH)
        for folder in self.inputs if re.fullmatch("[0-9a-f]{64}", wanted) else ():
            for file in (folder / wanted, folder / wanted[:2] / wanted):  # where files are called by their hash
                if file.is_file() and _hash_of(file) == wanted:
                    return file
        for folder in self.inputs:
            for file in sorted(p for p in folder.rglob("*") if p.is_file()):
                if file.stat().st_size <= self.most_film_bytes and _hash_of(file) == wanted:
                    return file
        where = (
            f"none of the files in {', '.join(map(str, self.inputs))} is it" if self.inputs else "no folder was named"
        )
        raise RecipeError("", f"it did not travel with the recipe, which knows it by its hash {wanted[:12]} only, and {where}. Name the "
                              "folder that the file lies in: --inputs, or Recipe.load(..., inputs=[folder]).")  # fmt: skip

    def weigh(self, name: str, size: int, film: bool = False) -> None:
        """Raises CapacityError if a file of `size` bytes is more than may be read."""
        most = self.most_film_bytes if film else self.most_bytes
        if size > most:
            raise CapacityError(
                "", f"{name} has {size / 2**20:.0f} MiB; the limit is {most >> 20} MiB. Make it smaller first."
            )


OWN = Reading()
STRICT = Reading(
    roots=(),
    most_film_bytes=256 << 20,
    most_pixels=12_000_000,
    most_animated=400_000_000,
    most_frames=10_000,
    most_text=4 << 20,
)
"""A picture of 12 megapixels holds 200 MB while it is settled, and 100 of an animation take a second."""

_now: ContextVar[Reading] = ContextVar("what may be read", default=OWN)


def policy() -> Reading:
    """The policy of the recipe that is being read."""
    return _now.get()


@contextmanager
def reading(policy: Reading) -> Iterator[None]:
    """Pictures and films that are named inside are under this policy."""
    token = _now.set(policy)
    try:
        yield
    finally:
        _now.reset(token)


def _hash_of(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def relative_to(folder: Path) -> AbstractContextManager[None]:
    """Relative paths that are named inside begin at this folder (the recipe's own)."""
    return reading(policy().at(folder))


def at_home(text: str) -> Path:
    """A path with its ~ resolved; one of a user whom nobody knows stays as it is, and is not found."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def shown(text: str, most: int = 120) -> str:
    """A name as letters show it: cut, on one line."""
    plain = "".join(c if c.isprintable() else "?" for c in text)
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."

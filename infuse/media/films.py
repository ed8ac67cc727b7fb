"""A film in a recipe, the sibling of a picture: a video, an animation, a folder of frames, or frames themselves outside;
the frames that were asked for inside, chosen by a rule that can be read here; one content hash for all.

Nothing is opened when a recipe is made. `plan` reads headers and complains before any long work; `take` decodes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import mimetypes
import os
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, GetJsonSchemaHandler, PrivateAttr, model_serializer, model_validator

from infuse.errors import CapacityError, RecipeError
from infuse.media.film_arrays import data_uri, source_of, zipped
from infuse.media.film_open import ZIP, opened
from infuse.media.film_readers import FOLDER_RATE, Clip, Look, Reader
from infuse.media.fitting import Fit, fitted, fitted_hole
from infuse.media.pictures import BEHIND, Picture
from infuse.media.reading import OWN, Reading, policy, reading
from infuse.media.settle import as_mask, drawn, seen
from infuse.validation import Strict

MOST_TAKEN = 1_000_000_000
"""Pixels of all frames that are taken at once (3 GB)."""
LARGEST_EMBEDDED = 32 << 20
"""Bytes of a film that still travels inside of a recipe."""


class Film(Strict):
    """Frames in a row. In a recipe a plain string, or a mapping of these fields.

    Which frames are taken: with `fps`, the k-th is the one on screen at start + k / fps seconds (one that is due within
    10 ms counts, as containers round). Without, they are consecutive; if the film's frame rate varies, it is sampled at
    its average rate instead, and a note says so. A still picture is repeated as often as asked.
    """

    source: str
    """Path of a video, an animation, a picture or a folder of frames (in the order of their numbers), or a data URI."""
    start: float = Field(default=0.0, ge=0)
    """Seconds into the film. Frames in a folder count 8 per second."""
    fps: float | None = Field(default=None, gt=0, le=1000)
    """Frames per second to sample at; consecutive frames if left out."""
    short: Literal["refuse", "hold", "loop", "bounce"] = "refuse"
    """When there are fewer frames than asked: an error, or hold the last one, start again, or run back and forth."""
    reverse: bool = False
    """The same frames, last one first."""

    _reading: Reading = PrivateAttr(default=OWN)
    """What may be read for it: the policy of the recipe that names it."""
    _behind: str = PrivateAttr(default=BEHIND)
    """The colour that is seen through what is transparent."""

    _within: tuple[int, int] | None = PrivateAttr(default=None)
    """(width, height) of the film that it is a hole in."""

    def model_post_init(self, context: Any) -> None:
        self._reading = policy()

    def __eq__(self, other: object) -> bool:
        """By what is asked for, whoever may read it."""
        return isinstance(other, Film) and (self._plainly(), self._behind) == (other._plainly(), other._behind)

    def picture(self) -> Picture:
        """The same file as a picture: its first frame."""
        return Picture(self.source, self._behind, self._reading)

    def on(self, behind: str) -> Film:
        """The same film seen on another ground."""
        if behind == self._behind:
            return self
        film = self.model_copy()
        film._behind = behind
        return film

    @classmethod
    def of(cls, value: Any, **options: Any) -> Film:
        """A film from a path, data URI, list of PIL images, (f h w 3) uint8 or 0-1 float array, or (f c h w) tensor.

        Raises RecipeError if it is none of these.
        """
        if isinstance(value, Film):
            if not options:
                return value
            with reading(replace(value._reading, folder=None)):  # its path has been found already
                film = cls(**{**{n: getattr(value, n) for n in cls.model_fields}, **options})
            film._behind = value._behind
            return film
        if isinstance(value, dict):
            return cls(**{**value, **options})
        try:
            source = str(value) if isinstance(value, str | Path) else source_of(value)
        except ValueError as error:
            raise RecipeError("", str(error)) from None
        return cls(source=source, **options)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, value: Any) -> Any:
        if isinstance(value, Film):
            return value
        if isinstance(value, dict):
            source = value.get("source")
            return value if source is None else {**value, "source": source_of(source)}
        return {"source": source_of(value)}

    @model_serializer
    def _plainly(self) -> str | dict[str, Any]:
        options = {
            n: getattr(self, n)
            for n, f in type(self).model_fields.items()
            if n != "source" and getattr(self, n) != f.default
        }
        return {"source": self.source, **options} if options else self.source

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        own = handler.resolve_ref_schema(handler(schema))
        plain = {"type": "string", "format": "film", "description": "A path or a data:...;base64, URI."}
        inside = dict(own)
        own.clear()
        own.update({"title": "Film", "anyOf": [plain, inside]})
        return own

    # What it is ---------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.source if not self._embedded else f"an embedded film ({self.source[:22]}...)"

    @property
    def _embedded(self) -> bool:
        return self.source.startswith("data:")

    @cached_property
    def data(self) -> Path | bytes:
        """Where it lies, or its bytes if it travels inside. Raises RecipeError if those are no base64."""
        picture = Picture(self.source, reading=replace(self._reading, most_bytes=self._reading.most_film_bytes))
        return picture.content if self._embedded else picture.place

    @cached_property
    def reader(self) -> Reader:
        """The headers. Raises RecipeError (not a film, damaged, mixed sizes, ...) or CapacityError (too large)."""
        return opened(str(self), self.data, self._reading)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        return self.reader.size

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes; of names and bytes for frames in a folder, on disk or embedded. Options do not count."""
        total, data = hashlib.sha256(), self.data
        if self._is_loose:
            for name, content in self._pieces():
                total.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
        elif isinstance(data, bytes):
            total.update(data)
        else:
            with data.open("rb") as file:
                while block := file.read(1 << 20):
                    total.update(block)
        return total.hexdigest()

    @cached_property
    def _is_loose(self) -> bool:
        """Whether it consists of pictures, in a folder or a zip. Raises RecipeError if there is nothing to be read."""
        if isinstance(self.data, bytes):
            return self.data.startswith(ZIP)
        if not os.path.isfile(self.data):  # a name too long for a file is none
            return bool(self.reader.parts)
        with self.data.open("rb") as file:
            return file.read(len(ZIP)) == ZIP

    @property
    def digest(self) -> str:
        """sha256 of what is asked for: the content, and the options that choose from it."""
        asked = {n: getattr(self, n) for n in type(self).model_fields if n != "source"}
        asked |= {} if self._behind == BEHIND else {"behind": self._behind}
        return hashlib.sha256(json.dumps([self.sha256, asked], sort_keys=True).encode()).hexdigest()

    def embedded(self) -> Film:
        """The same film as a data URI of its own bytes (of a zip of its frames, for a folder), so that it travels.

        A film of more than 32 MiB stays where it is: a recipe then names its absolute path, and its hash tells whether
        it is still the same.
        """
        if self._embedded:
            return self
        assert isinstance(self.data, Path)
        outside = self.model_copy(update={"source": str(self.data.absolute())})
        if os.path.isdir(self.data):
            if sum((self.data / n).stat().st_size for n in self.reader.parts) > LARGEST_EMBEDDED:
                return outside
            return Film.of(self, source=data_uri(zipped(dict(self._pieces())), "application/zip"))
        _ = self.reader  # complains of a file that is not there, or no film
        if self.data.stat().st_size > LARGEST_EMBEDDED:
            return outside
        kind = mimetypes.guess_type(self.data.name)[0] or "application/octet-stream"
        return Film.of(self, source=data_uri(self.data.read_bytes(), kind))

    @property
    def weights(self) -> tuple[int, ...]:
        """Bytes of each of its pictures, if it consists of such, in a folder or a zip."""
        if self._is_loose and isinstance(self.data, Path) and self.data.is_dir():
            return tuple((self.data / n).stat().st_size for n in self.reader.parts)
        return tuple(len(content) for _, content in self._pieces()) if self._is_loose else ()

    def _pieces(self) -> Iterator[tuple[str, bytes]]:
        yield from ((n, self.reader.piece(n)) for n in self.reader.parts)

    # What is taken ------------------------------------------------------------------------------------------------

    def plan(
        self, count: int, fps: float | None = None, size: tuple[int, int] | None = None
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """(the numbers of the frames that `take` would take, notes), from headers alone: what a check calls.

        `fps` is what a mechanism likes if the film does not say its own; frames in a folder are taken one by one all
        the same. Raises RecipeError (too few frames; start after the end) and CapacityError (too many pixels).
        """
        assert count >= 1
        reader, (width, height) = self.reader, size or self.size
        if count * width * height > MOST_TAKEN:
            raise CapacityError(
                "",
                f"{count} frames of {width} x {height} px are {count * width * height / 1e6:.0f} megapixels; "
                f"the limit is {MOST_TAKEN / 1e6:.0f}. Ask for fewer or smaller frames.",
            )
        if reader.still:
            said = [n for n in ("start", "fps", "reverse") if getattr(self, n)]
            idle = (f"{self} is one picture: {' and '.join(said)} of it {'change' if said[1:] else 'changes'} nothing",)
            return (0,) * count, (*reader.notes, *(idle if said else ()))
        if self.start >= reader.end:
            raise RecipeError(
                "start", f"{self.start:g} s is after the end of {self} ({reader.end:.3g} s). Start earlier."
            )
        places, notes = self._there(count, fps)
        if len(places) < count:
            places, note = self._filled(places, count)
            notes.append(note)
        return tuple(reversed(places) if self.reverse else places), (*reader.notes, *notes)

    def _there(self, count: int, fps: float | None) -> tuple[list[int], list[str]]:
        """Up to `count` frame numbers by the rule, without going beyond the end."""
        reader, notes = self.reader, []
        soon = min(0.01, 0.25 / reader.rate)  # a container's rounding is not another frame
        first = bisect_right(reader.times, self.start + soon) - 1
        rate = self.fps or (fps if reader.clock else None)
        if not reader.clock and (self.start or self.fps):
            notes.append(f"{self} has no times; its frames are counted {FOLDER_RATE} per second")
        row = list(range(first, min(first + count, len(reader.times))))
        if rate is None and not reader.variable:
            return row, notes
        step = min(1 / (rate or reader.rate), 1e9)  # seconds; at a rate of next to nothing a second frame never comes
        left = max(1, math.ceil((reader.end - self.start - soon) / step))  # one is on screen until the end
        places = [bisect_right(reader.times, self.start + k * step + soon) - 1 for k in range(min(count, left))]
        if rate is None and places != row:
            notes.append(
                f"{self} has a variable frame rate; frames are taken at its average, {reader.rate:.3g} per second, by their "
                "times. Set fps to choose another rate."
            )
        elif rate and (twice := len(places) - len(set(places))):
            notes.append(
                f"{self} has {reader.rate:.3g} frames per second, and {rate:g} were asked for: {twice} of {len(places)} "
                "frames are shown again"
            )
        return places, notes

    def _filled(self, places: list[int], count: int) -> tuple[list[int], str]:
        """As many as asked by `short`, and a note of it. Raises RecipeError if it says to refuse."""
        reader, have = self.reader, len(places)
        if self.short == "refuse":
            seconds, rest = reader.end - self.start, len(reader.times) - places[0]
            frames = f"{have} {'frame' if have == 1 else 'frames'}"
            where = f" at {have / seconds:.3g} per second from {self.start:g} s on" if have != len(reader.times) else ""
            where += f" ({len(reader.times)} in all)" if where else ""
            faster = f"sample at fps {math.ceil(count / seconds)}, " if have < count <= rest else ""
            earlier = "start earlier, " if self.start else ""
            raise RecipeError(
                "",
                f"{self} has {frames}{where}, {count} were asked for{f'; {reader.hurt}' if reader.hurt else ''}. Give a longer "
                f"film, ask for {frames}, {faster}{earlier}or fill up with short: hold, loop or bounce.",
            )
        if self.short == "hold":
            order = [*places, *[places[-1]] * (count - have)]
        else:
            turn = places if self.short == "loop" else [*places, *places[-2:0:-1]]
            order = list(itertools.islice(itertools.cycle(turn), count))
        return order, f"{self} has {have} of {count} frames; filled up with short: {self.short}"

    def take(
        self, count: int, fps: float | None = None, size: tuple[int, int] | None = None, fit: Fit = "crop"
    ) -> Clip:
        """`count` frames by the rule (see Film and `plan`), brought to `size` (width, height) as `fit` says: by default
        scaled to cover it and cut around the centre. Raises RecipeError (too few or unreadable frames) or CapacityError."""
        return self._taken(count, fps, size, lambda i: fitted(i, size, fit) if size else i, self.seen)

    def holes(self, count: int, size: tuple[int, int] | None = None, fit: Fit = "crop") -> list[Any]:
        """`take` of a film of masks: black and white images, white in every pixel that the mask's white touches. What is done to
        the film beside it is done to them alike: they are scaled to its size first."""

        def placed(image: Any) -> Any:
            there = fitted_hole(image, self._within or image.size)
            return fitted_hole(there, size or there.size, fit)

        return list(self._taken(count, None, size, placed, self.drawn).frames)

    def _taken(self, count: int, fps: float | None, size: tuple[int, int] | None, fitting: Any, look: Look) -> Clip:
        places, notes = self.plan(count, fps, size)
        found = {i: fitting(image) for i, image in self.reader.draw(sorted(set(places)), look)}
        return Clip(tuple(found[i] for i in places), places, notes)

    def seen(self, image: Any, name: str) -> Any:
        """A frame as pictures are looked at."""
        return seen(image, name, self._behind)[0]

    drawn = staticmethod(as_mask)

    def looked_at(self, place: int = 0, mask: bool = False) -> tuple[Any, tuple[str, ...]]:
        """(one frame, what is done to it on the way in)."""
        look: Any = drawn if mask else partial(seen, behind=self._behind)
        return next(found for _, found in self.reader.draw([place], look))

    def frames(self, count: int, size: tuple[int, int] | None = None, fit: Fit = "crop") -> list[Any]:
        """`take`, when only the pictures matter."""
        return list(self.take(count, size=size, fit=fit).frames)

    def beside(self, film: Film) -> Film:
        """This film as the hole of another one, at its times: what it does not say itself (start, fps, reverse) is as it is there.

        Two folders have no rate of their own; where only one of the two is a folder, nothing is taken over.
        """
        there: dict[str, Any] = {}
        if not (self.reader.still or film.reader.still) and self.reader.clock == film.reader.clock:
            fps = self.fps or film.fps or (min(film.reader.rate, 1000.0) if film.reader.clock else None)
            there = {"start": self.start or film.start, "fps": fps, "reverse": self.reverse or film.reverse}
        found = self.model_copy(update=there)
        found._within = film.size
        return found

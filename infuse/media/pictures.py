"""A picture in a recipe: a path or a data URI outside, settled pixels inside, one content hash for both.

Nothing is decoded when a recipe is made; `check` opens the file and complains by field before any long work. Every
picture and mask comes in here, and what is done to it is in `settle`.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from infuse.errors import CapacityError, RecipeError
from infuse.media.arrays import encoded, from_numbers, plain, read
from infuse.media.png_text import wordless
from infuse.media.reading import BY_HASH, OWN, Reading, at_home, policy, shown
from infuse.media.settle import drawn, said_of_many, seen

SMALLEST = 8
"""Pixels: the shortest side that a picture may have."""
BEHIND = "white"
"""What is seen through transparent pixels, unless a recipe says another colour."""


def _colour(text: str) -> str:
    from PIL import ImageColor

    try:
        if len(ImageColor.getrgb(text)) == 3:
            return text
    except ValueError:
        pass
    raise ValueError(f"{text[:40]!r} is no colour. Give a name such as white, or #rrggbb")


Colour = Annotated[str, AfterValidator(_colour)]
"""An opaque colour by its name or as #rrggbb."""


def px(size: tuple[int, int]) -> str:
    """How letters name a (width, height)."""
    return f"{size[0]} x {size[1]} px"


def limited(name: str, size: tuple[int, int], reading: Reading = OWN) -> None:
    """Raises CapacityError if a picture, or a film's frame, is larger than the limits."""
    side, most = reading.longest_side, reading.most_pixels
    if max(size) > side or size[0] * size[1] > most:
        raise CapacityError("", f"{name} is {px(size)}; the limit is {side} px a side and {most / 1e6:g} megapixels. "
                                f"Scale it down first{trust_it(reading)}.")  # fmt: skip


def trust_it(reading: Reading) -> str:
    """What letters about the limits add for recipes of strangers, whose limits are lower."""
    return "" if reading.trusting else ", or trust the recipe (--trust) if you know who made it"


def must_be_file(path: Path) -> None:
    """Raises RecipeError if a path can exist but not be read to its end: a pipe, a socket, a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RecipeError("", f"{path} is a pipe, a socket or a device. Save it as a file first, and name that.")


@dataclass(frozen=True)
class Picture:
    """`source` is a path, a `data:image/...;base64,` URI, or `sha256:` and the hash of a file that lies in a folder of
    inputs. Bytes, arrays, tensors and PIL images become a URI."""

    source: str
    behind: str = BEHIND
    """The colour that is seen through what is transparent."""
    reading: Reading = field(default=OWN, compare=False, repr=False)
    """What may be read for it: the policy of the recipe that names it."""

    @classmethod
    def of(cls, value: Any) -> Picture:
        """A picture from a path, data URI, an open file or its bytes, a PIL image, an array (h, w), (h, w, c), (1, h, w) or (c, h, w), or a
        tensor (c, h, w) or (h, w); numbers are uint8, uint16, booleans, or floats from 0 to 1.

        Raises ValueError if it is none of these, RecipeError if it may not be read.
        """
        if isinstance(value, Picture):
            return value
        if isinstance(value, str | Path):
            text = str(value)
            if not text.strip():
                raise ValueError("an empty path names no picture; give a path, a data URI, or an image")
            if "\0" in text:
                raise ValueError("a path cannot hold the character NUL. Write it again")
            try:
                os.fsencode(text)
            except UnicodeEncodeError:
                raise ValueError("a path cannot hold half a character (a lone surrogate). Write it again") from None
            return cls(policy().located(text), reading=policy())
        from PIL import Image

        try:
            value = read(value)
            if isinstance(value, bytes | bytearray | memoryview):
                return cls(_uri(bytes(value), "*"), reading=policy())
            image = value if isinstance(value, Image.Image) else from_numbers(value)
            if plain(image):
                return cls._made_of(image)
            content, kind = encoded(image)
        except (ValueError, RecipeError):
            raise
        except Exception as error:  # numpy, torch and Pillow have many words for what they cannot turn into each other
            raise ValueError(f"{' '.join(repr(value)[:40].split())} is not a picture that can be read ({error}); give a path, a data URI, "
                             "a PIL image or an array (h, w, 3)") from None  # fmt: skip
        return cls(_uri(content, kind), reading=policy())

    @classmethod
    def _made_of(cls, image: Any) -> Picture:
        """A picture of pixels in memory: its file is written when somebody wants to see it."""
        made = object.__new__(cls)
        for name, value in (("behind", BEHIND), ("reading", policy()), ("_pixels", image.copy())):
            object.__setattr__(made, name, value)
        return made

    def __getattr__(self, name: str) -> Any:
        if name != "source" or not self._made:
            raise AttributeError(name)
        object.__setattr__(self, "source", _uri(*encoded(self._pixels)))
        return self.source

    @property
    def named(self) -> str:
        """Path or `sha256:` of a picture that lies elsewhere; "" of one that is brought along."""
        return "" if self._made or self.source.startswith("data:") else self.source

    @property
    def _made(self) -> bool:
        return "_pixels" in self.__dict__

    def on(self, behind: str) -> Picture:
        """The same picture seen on another ground."""
        return self if behind == self.behind else replace(self, behind=behind)

    @cached_property
    def content(self) -> bytes:
        """The file's bytes. Raises RecipeError if there are none, CapacityError if they are too many."""
        if self.source.startswith("data:"):
            head, _, body = self.source.partition(",")
            self.reading.weigh("an embedded picture", len(body) * 3 // 4)
            try:
                return base64.b64decode(body, validate=True) if head.endswith(";base64") else body.encode()
            except ValueError as error:
                raise RecipeError(
                    "", f"the data URI is not valid base64 ({error}). Encode the file's bytes again."
                ) from None
        path = self.place
        try:
            must_be_file(path)
            self.reading.weigh(shown(self.source), path.stat().st_size)
            return path.read_bytes()
        except OSError as error:
            raise RecipeError("", f"{shown(self.source)} cannot be read ({error.strerror}). Check the path.") from None

    @property
    def place(self) -> Path:
        """Where the file lies. Raises RecipeError if it is named by a hash, and no folder of inputs has it."""
        return self.reading.found(self.source) if self.source.startswith(BY_HASH) else at_home(self.source)

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def mark(self) -> str:
        """What tells its pixels, file and ground from others' in this process, for less than `digest` where there is no file yet."""
        if not self._made or "source" in self.__dict__:
            return self.digest
        image = self._pixels
        return f"{hashlib.sha256(image.tobytes()).hexdigest()} {image.mode} {image.size} {self.behind}"

    @property
    def digest(self) -> str:
        """sha256 of what is seen: the file's bytes, and the ground if it is not the usual one."""
        return (
            self.sha256
            if self.behind == BEHIND
            else hashlib.sha256(f"{self.sha256} {self.behind}".encode()).hexdigest()
        )

    @cached_property
    def _seen(self) -> tuple[Any, tuple[str, ...]]:
        image = self._opened()
        out, notes = seen(image, str(self), self.behind)
        out.format = image.format
        return out, (*self._said_of(image), *notes)

    @property
    def image(self) -> Any:
        """The picture as an RGB PIL image: upright, in sRGB, on its ground. Raises RecipeError (not a picture) or CapacityError (too
        large)."""
        return self._seen[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """What was done to it on the way in, one sentence each."""
        return self._seen[1]

    @cached_property
    def _drawn(self) -> tuple[Any, tuple[str, ...]]:
        image = self._opened()
        out, notes = drawn(image, str(self))
        return out, (*self._said_of(image), *notes)

    def _said_of(self, image: Any) -> list[str]:
        return [] if self._made else said_of_many(image, self.content)

    @property
    def mask(self) -> Any:
        """The picture as a mask, a grey PIL image: white where it counts. Raises as `image` does, and if colour and alpha disagree."""
        return self._drawn[0]

    @property
    def mask_notes(self) -> tuple[str, ...]:
        """The same of it as a mask."""
        return self._drawn[1]

    def _opened(self) -> Any:
        """The decoded file as it lies there."""
        from PIL import Image, UnidentifiedImageError

        try:
            image = self._pixels.copy() if self._made else Image.open(io.BytesIO(wordless(self.content)))
            size = image.size
            limited(str(self), size, self.reading)
            if min(size) < SMALLEST:
                raise RecipeError("", f"{self} is {px(size)}, too small to say anything. "
                                      f"Give a picture of at least {SMALLEST} px a side.")  # fmt: skip
            image.load()
            image.format = "PNG" if self._made else image.format  # which it is once it is written
            return image
        except (RecipeError, CapacityError):
            raise
        except Image.DecompressionBombError as error:
            raise CapacityError("", f"{self} is too large to open ({error}). Scale it down first.") from None
        except Exception as error:
            known = named_kind(self.content) if isinstance(error, UnidentifiedImageError) else ""
            why = known or ("of no known format" if isinstance(error, UnidentifiedImageError) else error)
            raise RecipeError(
                "",
                f"{self} is not a picture that can be read ({why}). "
                "Give a PNG, JPEG or WebP file that opens in a viewer.",
            ) from None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, upright."""
        return (self._seen if "_seen" in self.__dict__ or "_drawn" not in self.__dict__ else self._drawn)[0].size

    def embedded(self) -> Picture:
        """The same picture as a data URI of its own bytes, so that it travels with the recipe."""
        if not self.named:
            return self
        kind = (self.image.format or Path(self.source).suffix.lstrip(".") or "png").lower()
        return replace(self, source=_uri(self.content, kind))

    def __str__(self) -> str:
        if self.named:
            return shown(self.named)
        return f"an embedded picture ({'data:image/png;base64,' if self._made else self.source[:22]}...)"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        serialize = core_schema.plain_serializer_function_ser_schema(
            lambda p: p.source, return_schema=core_schema.str_schema()
        )
        return core_schema.no_info_plain_validator_function(cls.of, serialization=serialize)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "format": "picture", "description": "A path or a data:image/...;base64, URI."}


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


KINDS: Sequence[tuple[bytes, str]] = (
    (b"ftypheic", "an HEIC photo, as iPhones make them: export it as JPEG"),
    (b"ftypheix", "an HEIC photo, as iPhones make them: export it as JPEG"),
    (b"ftypmif1", "an HEIF photo: export it as JPEG"),
    (b"ftypavif", "an AVIF picture, and this Pillow was built without AVIF: export it as PNG"),
    (b"ftyp", "a film; pictures are wanted here"),
    (b"<svg", "an SVG drawing: export it as PNG"),
    (b"%PDF", "a PDF document: export its page as PNG"),
    (b"<!DOCTYPE", "a web page: save the picture itself"),
    (b"<html", "a web page: save the picture itself"),
    (b"version https://git-lfs", "a pointer of git LFS: run `git lfs pull`"),
)
"""How files begin that people take for pictures."""


def named_kind(content: bytes) -> str:
    """What a file is that is no readable picture; "" if nobody knows."""
    if not content:
        return "it is empty, 0 bytes"
    head = content[:512].lstrip()
    return next((what for mark, what in KINDS if head.startswith(mark) or head[4:12].startswith(mark)), "")

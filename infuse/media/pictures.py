"""A picture in a recipe: a path or a data URI outside, checked pixels inside, one content hash for both.

Nothing is decoded when a recipe is made; `check` opens the file and complains by field before any long work.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from infuse.errors import CapacityError, RecipeError

SMALLEST, LARGEST, MOST = 8, 16_384, 100_000_000
"""Pixels: the shortest side, the longest side, and the area that a picture may have."""

_folder: ContextVar[Path | None] = ContextVar("folder of the recipe being read", default=None)


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Relative paths read inside are taken from this folder (the recipe's own)."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def px(size: tuple[int, int]) -> str:
    """How letters name a (width, height)."""
    return f"{size[0]} x {size[1]} px"


def limited(name: str, size: tuple[int, int]) -> None:
    """Raises CapacityError if a picture, or a film's frame, is larger than the limits."""
    if max(size) > LARGEST or size[0] * size[1] > MOST:
        raise CapacityError("", f"{name} is {px(size)}; the limit is {LARGEST} px a side and {MOST // 1_000_000} megapixels. "
                                "Scale it down first.")  # fmt: skip


def at_home(text: str) -> Path:
    """A path with its ~ resolved; one of a user whom nobody knows stays as it is, and is not found."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


def must_be_file(path: Path) -> None:
    """Raises RecipeError if a path can exist but not be read to its end: a pipe, a socket, a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RecipeError("", f"{path} is a pipe, a socket or a device. Save it as a file first, and name that.")


def flat(image: Any, name: str, behind: str = "") -> Any:
    """A PIL image of any mode as 8-bit RGB: what every picture and every frame of a film is seen as.

    16-bit grey is divided by 257, floats from 0 to 1 are stretched to 0-255. behind: the colour that is seen through what
    is transparent; without one the colours stored there are seen, as in diffusers. Raises RecipeError for other numbers.
    """
    import numpy as np
    from PIL import Image

    if image.mode == "F" or image.mode.startswith("I"):
        # the usual numbers: of a float picture 0 to 1, of an integer one those of 16 bits
        values, most = np.asarray(image), 1 if image.mode == "F" else 65535
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= most):
            raise RecipeError("", f"{name} holds numbers from {values.min():g} to {values.max():g}, and black is 0, white {most}. "
                                  "Scale them, or save it with 8 bits.")  # fmt: skip
        grey = (values * 255).round() if most == 1 else values // 257
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if behind and image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, behind), image).convert("RGB")
    return image.convert("RGB")


@dataclass(frozen=True)
class Picture:
    """`source` is a path or a `data:image/...;base64,` URI. Arrays, tensors and PIL images become the latter."""

    source: str

    @classmethod
    def of(cls, value: Any) -> Picture:
        """A picture from a path, data URI, PIL image, (h, w[, c]) uint8 or 0-1 float array, or (c, h, w) tensor."""
        if isinstance(value, Picture):
            return value
        if isinstance(value, str | Path):
            text, folder = str(value), _folder.get()
            if not text.strip():
                raise ValueError("an empty path names no picture; give a path, a data URI, or an image")
            if "\0" in text:
                raise ValueError("a path cannot hold the character NUL. Write it again")
            if text.startswith("data:"):
                return cls(text)
            return cls(str(folder / text)) if folder is not None and not at_home(text).is_absolute() else cls(text)
        return cls(_uri(_encoded(value), "png"))

    @cached_property
    def content(self) -> bytes:
        """The file's bytes. Raises RecipeError if there are none."""
        if self.source.startswith("data:"):
            head, _, body = self.source.partition(",")
            try:
                return base64.b64decode(body, validate=True) if head.endswith(";base64") else body.encode()
            except ValueError as error:
                raise RecipeError(
                    "", f"the data URI is not valid base64 ({error}). Encode the file's bytes again."
                ) from None
        path = at_home(self.source)
        try:
            must_be_file(path)
            return path.read_bytes()
        except OSError as error:
            raise RecipeError("", f"{self.source} cannot be read ({error.strerror}). Check the path.") from None

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def image(self) -> Any:
        """The decoded PIL image, upright and `flat`. Raises RecipeError (not a picture) or CapacityError (too large)."""
        from PIL import Image, ImageOps, UnidentifiedImageError

        try:
            image = Image.open(io.BytesIO(self.content))
            size = image.size
            limited(str(self), size)
            if min(size) < SMALLEST:
                raise RecipeError("", f"{self} is {px(size)}, too small to say anything. "
                                      f"Give a picture of at least {SMALLEST} px a side.")  # fmt: skip
            image.load()
        except (RecipeError, CapacityError):
            raise
        except Image.DecompressionBombError as error:
            raise CapacityError("", f"{self} is too large to open ({error}). Scale it down first.") from None
        except Exception as error:
            why = "of no known format" if isinstance(error, UnidentifiedImageError) else error
            raise RecipeError(
                "",
                f"{self} is not a picture that can be read ({why}). "
                "Give a PNG, JPEG or WebP file that opens in a viewer.",
            ) from None
        shown = flat(ImageOps.exif_transpose(image), str(self))
        shown.format = image.format
        return shown

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.image.size

    def embedded(self) -> Picture:
        """The same picture as a data URI of its own bytes, so that it travels with the recipe."""
        if self.source.startswith("data:"):
            return self
        return Picture(_uri(self.content, (self.image.format or Path(self.source).suffix.lstrip(".") or "png").lower()))

    def __str__(self) -> str:
        return self.source if not self.source.startswith("data:") else f"an embedded picture ({self.source[:22]}...)"

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


def _encoded(value: Any) -> bytes:
    """PNG bytes of a PIL image, array or tensor."""
    import numpy as np
    from PIL import Image

    if not isinstance(value, Image.Image):
        if hasattr(value, "detach"):
            value = value.detach().float().cpu().numpy()
            value = np.moveaxis(value, 0, -1) if value.ndim == 3 and value.shape[0] in (1, 3, 4) else value
        if not isinstance(value, np.ndarray) or value.ndim not in (2, 3):
            raise ValueError(
                f"{repr(value)[:40]} is not a picture; give a path, a data URI, a PIL image or an array (h, w, 3)"
            )
        if value.dtype != np.uint8:
            if not np.isfinite(value).all() or value.min() < 0 or value.max() > 1:
                raise ValueError("a float array must hold finite values from 0 to 1")
            value = (value * 255).round().astype(np.uint8)
        value = Image.fromarray(value.squeeze(-1) if value.ndim == 3 and value.shape[-1] == 1 else value)
    if value.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):  # what a PNG can hold
        value = flat(value, "the picture")
    buffer = io.BytesIO()
    value.save(buffer, "PNG")
    return buffer.getvalue()

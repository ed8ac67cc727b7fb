"""The text in a PNG, read chunk by chunk: how much is unpacked is decided here, and nobody else's limits are touched."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from infuse.errors import CapacityError, RecipeError
from infuse.media.reading import Reading

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_CHUNKS = 100_000


def png_texts(path: Path, limits: Reading) -> dict[str, str]:
    """Keyword -> text of every iTXt, tEXt and zTXt chunk; of two with one keyword, the first; "exif": the eXIf chunk's
    bytes as latin-1.

    Pixels are not decoded. Raises RecipeError (no PNG, damaged) or CapacityError (more text than the limit).
    """
    found: dict[str, str] = {}
    left = limits.most_text
    with path.open("rb") as file:
        length = file.seek(0, 2)
        file.seek(0)
        if file.read(8) != SIGNATURE:
            raise _damaged(path, "it does not begin as a PNG does")
        for _ in range(MOST_CHUNKS):
            kind, size = _head(file, path, length)
            if kind == b"IEND":
                return found
            if kind not in (b"tEXt", b"zTXt", b"iTXt", b"eXIf"):
                file.seek(size + 4, 1)
                continue
            if size > left:
                raise _too_long(path, limits)
            data, check = file.read(size), file.read(4)
            if zlib.crc32(data, zlib.crc32(kind)) != int.from_bytes(check, "big"):
                raise _damaged(path, f"the checksum of its {kind.decode()} chunk is wrong")
            key, text = ("exif", data) if kind == b"eXIf" else _text(kind, data, left, path, limits)
            left -= len(text)
            if left < 0:
                raise _too_long(path, limits)
            # iTXt is UTF-8, the older two and what we hand on as bytes are Latin-1
            found.setdefault(key, text.decode("utf-8" if kind == b"iTXt" else "latin-1", "replace"))
    raise _damaged(path, f"it has more than {MOST_CHUNKS} chunks")


def wordless(content: bytes) -> bytes:
    """The same PNG without its texts, of which other readers open no more than they like; XMP and raw profiles, which may turn
    it, stay. What is no PNG, or a damaged one, comes back as it is from there on."""
    if not content.startswith(SIGNATURE):
        return content
    out, at, kept = [], 0, 8
    while kept + 8 <= len(content):
        size, kind = struct.unpack(">I4s", content[kept : kept + 8])
        is_words = kind in (b"tEXt", b"zTXt", b"iTXt") and not content.startswith((b"XML:", b"Raw profile"), kept + 8)
        if is_words:
            out.append(content[at:kept])
        kept += 12 + size
        at = kept if is_words else at
    return b"".join([*out, content[at:]])


def _head(file: BinaryIO, path: Path, length: int) -> tuple[bytes, int]:
    """(kind, size) of the next chunk."""
    head = file.read(8)
    if len(head) < 8:
        raise _damaged(path, "it was cut short")
    size, kind = struct.unpack(">I4s", head)
    if size > length - file.tell() - 4:
        raise _damaged(path, "it was cut short")
    return kind, size


def _text(kind: bytes, data: bytes, most: int, path: Path, limits: Reading) -> tuple[str, bytes]:
    """(keyword, unpacked text) of a chunk."""
    key, _, rest = data.partition(b"\0")
    if kind == b"zTXt":
        rest = _unpacked(rest[1:], most, path, limits)
    elif kind == b"iTXt":
        packed, method = rest[:1], rest[1:2]
        _, _, rest = rest[2:].partition(b"\0")  # the language
        _, _, rest = rest.partition(b"\0")  # the keyword in that language
        if packed == b"\1":
            if method != b"\0":
                raise _damaged(path, "its text is packed in a way that nobody knows")
            rest = _unpacked(rest, most, path, limits)
    return key.decode("latin-1"), rest


def _unpacked(data: bytes, most: int, path: Path, limits: Reading) -> bytes:
    engine = zlib.decompressobj()
    try:
        text = engine.decompress(data, most + 1)
    except zlib.error as error:
        raise _damaged(path, f"its text cannot be unpacked: {error}") from None
    if len(text) > most:
        raise _too_long(path, limits)
    if not engine.eof:
        raise _damaged(path, "its text was cut short")
    return text


def _too_long(path: Path, limits: Reading) -> CapacityError:
    return CapacityError("", f"{path} holds more than {limits.most_text >> 20} MiB of text, the limit of what is read as a recipe. "
                             "Write the recipe into a file of its own.")  # fmt: skip


def _damaged(path: Path, why: str) -> RecipeError:
    return RecipeError("", f"{path} is not a picture that can be read ({why}). Copy or save it again.")

"""What is written inside of a picture or film, whatever its format: one mapping of names to texts, as a PNG has it.

The format is told by the file's first bytes, never by its name. EXIF fields keep their names (ImageDescription, Make,
Model, Software, UserComment), a GIF's and a film's comment is `comment`. Pixels are not decoded.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.media.png_text import SIGNATURE, png_texts
from infuse.media.reading import Reading
from infuse.media.video_reader import stream

TAGS = {0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software"}
EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
HEADER = b"Exif\0\0"


def texts(path: Path, limits: Reading) -> dict[str, str]:
    """Every text that a file carries. Raises RecipeError (it is no picture or film) or CapacityError (too much text)."""
    with path.open("rb") as file:
        head, size = file.read(16), file.seek(0, 2)
    if head.startswith(SIGNATURE):
        found = png_texts(path, limits)
        return described(found.pop("exif").encode("latin-1"), limits, path) | found if "exif" in found else found
    kind = _kind(head)
    if kind == "film":
        with stream(str(path), path) as (container, _):
            found = {str(k): str(v) for k, v in container.metadata.items()}
        return _short(found, limits, path)
    limits.weigh(str(path), size)
    try:
        if kind == "jpeg":
            return described(_of_jpeg(path.read_bytes()), limits, path)
        if kind == "webp":
            return described(_of_webp(path.read_bytes()), limits, path)
        return _by_pillow(path, limits)
    except InfuseError:
        raise
    except Exception as error:  # whatever Pillow says of what strangers write
        raise RecipeError("", f"{path} is not a picture that can be read ({error}).") from None


def _kind(head: bytes) -> str:
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    pictures = (b"GIF8", b"II*\0", b"MM\0*", b"BM")
    if head.startswith(pictures) or (head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis", b"mif1")):
        return "picture"
    return (
        "film"
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or head.startswith(b"\x1a\x45\xdf\xa3")
        else ""
    )


def _of_jpeg(data: bytes) -> bytes:
    """The EXIF block of a JPEG; empty if there is none. Segments behind the first scan are not looked at."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        inside = data[at + 4 : at + 2 + size]
        if data[at + 1] == 0xE1 and inside.startswith(HEADER):
            return inside[len(HEADER) :]
        at += 2 + max(size, 2)
    return b""


def _of_webp(data: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], struct.unpack("<I", data[at + 4 : at + 8])[0]
        if kind == b"EXIF":
            return data[at + 8 : at + 8 + size].removeprefix(HEADER)
        at += 8 + size + size % 2
    return b""


def _by_pillow(path: Path, limits: Reading) -> dict[str, str]:
    from PIL import Image

    with Image.open(path) as image:
        found = _fields(image.getexif())
        comment = image.info.get("comment", b"")
    if comment:
        found["comment"] = comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)
    return _short(found, limits, path)


def described(block: bytes, limits: Reading, path: Path) -> dict[str, str]:
    """The texts in an EXIF block (TIFF's own form, without its header)."""
    from PIL import Image

    if not block:
        return {}
    if len(block) > 2 * limits.most_text:
        raise _too_long(path, limits)
    exif = Image.Exif()
    exif.load(block)
    return _short(_fields(exif), limits, path)


def _fields(exif: Any) -> dict[str, str]:
    found = {name: str(exif[tag]).rstrip("\0") for tag, name in TAGS.items() if isinstance(exif.get(tag), str)}
    if comment := exif.get_ifd(EXIF_IFD).get(USER_COMMENT):
        found["UserComment"] = comment if isinstance(comment, str) else user_comment(bytes(comment))
    return found


def user_comment(data: bytes) -> str:
    """EXIF's UserComment: eight bytes that name its coding, then the text."""
    code, text = data[:8], data[8:]
    if code == b"UNICODE\0":
        # the standard leaves the order of bytes to the file; most write big-endian. Most of what is said has zeros there
        big = text[0::2].count(0) >= text[1::2].count(0)
        return text.decode("utf-16-be" if big else "utf-16-le", "replace").lstrip("\ufeff").rstrip("\0")
    plain = text if code in (b"ASCII\0\0\0", b"\0" * 8) else data
    return plain.decode("utf-8", "replace").rstrip("\0")


def commented(text: str) -> bytes:
    """A text as UserComment, as the webui writes it."""
    return b"UNICODE\0" + text.encode("utf-16-be", "replace")


def block(fields: dict[int, str], comment: str = "") -> bytes:
    """An EXIF block of these tags and this UserComment, with its header, as JPEG, WebP, AVIF and TIFF take it."""
    from PIL import Image

    exif = Image.Exif()
    for tag, text in fields.items():
        exif[tag] = text
    if comment:
        exif.get_ifd(EXIF_IFD)[USER_COMMENT] = commented(comment)
    out = io.BytesIO(exif.tobytes())
    return out.getvalue()


def _short(found: dict[str, str], limits: Reading, path: Path) -> dict[str, str]:
    if sum(map(len, found.values())) > limits.most_text:
        raise _too_long(path, limits)
    return found


def _too_long(path: Path, limits: Reading) -> CapacityError:
    return CapacityError(
        "", f"{path} holds more than {limits.most_text >> 20} MiB of text, the limit of what is read as a recipe."
    )

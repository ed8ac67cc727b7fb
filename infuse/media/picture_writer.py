"""A picture is written in the format that its name says, with its recipe inside and its colours said to be sRGB.

The record lies in a PNG's chunk "infuse" and in the EXIF description of the others; beside it, where the webui puts them,
stand the same facts in its words, so that other programs show them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.media.metadata import KEY, Elsewhere, Record, reachable, writing
from infuse.media.texts import block

DESCRIPTION = 0x010E
"""EXIF's ImageDescription."""
MOST_TEXT = 900 << 10
"""Bytes of a record: Pillow opens no PNG with a text of more than 1 MiB."""
MOST_EXIF = 65_000
"""Bytes of everything in a JPEG's EXIF, whose segment ends at 65533."""


def writable_picture(path: str | Path) -> None:
    """Complain before long work if a picture could not be written there. Raises RecipeError."""
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in WRITERS:
        what = f"pictures are not written as {ending}" if ending else "a picture's name needs an ending"
        raise RecipeError("", f"{path}: {what}. Choose {', '.join(dict.fromkeys(WRITERS))}.")
    if ending == ".avif":
        from PIL import features

        if not features.check("avif"):
            raise RecipeError("", f"{path}: this Pillow was built without AVIF. Choose .png, .webp or .jpg.")
    if path.is_dir():
        raise RecipeError("", f"{path} is a folder. Name a file.")
    reachable(path)


def write_picture(image: Any, path: str | Path, record: Record | None = None) -> tuple[str, ...]:
    """Write a PIL image in the format of the name's ending, with its record. Returns notes of what was adjusted.

    .png, .webp and .tiff lose nothing, .jpg (quality 95) and .avif (90) little, both with colour at every pixel. The same picture
    and record give the same bytes. Raises RecipeError (see `writable_picture`; a full disk).
    """
    path = Path(path)
    writable_picture(path)
    notes: tuple[str, ...] = ()
    if record is not None and weight(record, path.suffix) > room(path.suffix) >= len(record.text()):
        record, notes = replace(record, parameters=""), ("the webui's words had no room beside the recipe",)
    if record is not None and (size := weight(record, path.suffix)) > room(path.suffix):
        note = f"{path.name} carries no recipe: it has {size >> 10} KiB of text, and {path.suffix} files hold {room(path.suffix) >> 10}. Keep the recipe as a .yaml"
        record, notes = None, (note,)
    with writing(path) as to:
        WRITERS[path.suffix.lower()](image.convert("RGB"), to, record)
    return notes


def room(suffix: str) -> int:
    """Bytes that a format has for what is said in it."""
    return MOST_EXIF if suffix.lower() in (".jpg", ".jpeg") else MOST_TEXT


def weight(record: Record, suffix: str) -> int:
    """Bytes of what is said, as this format keeps it."""
    beside = 2 if suffix.lower() in (".jpg", ".jpeg") else 1  # UserComment is UTF-16
    return len(record.text()) + beside * len(record.parameters)


def write_png(image: Any, path: Path, record: Record | Elsewhere | None) -> None:
    """A PNG whose record is the iTXt chunk "infuse", compressed, and whose chunk "parameters" is the webui's."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add(b"sRGB", b"\0")  # perceptual
    if record is not None:
        if record.parameters:
            info.add_text("parameters", record.parameters)
        info.add_itxt(KEY, record.text(), zip=True)
    image.save(path, "PNG", pnginfo=info, compress_level=6)


def exif(record: Record | None) -> bytes:
    """The same as an EXIF block: ImageDescription, and UserComment as the webui writes it."""
    return block({DESCRIPTION: record.text()}, record.parameters) if record is not None else b""


def _jpeg(image: Any, path: Path, record: Record | None) -> None:
    image.save(path, "JPEG", quality=95, subsampling=0, optimize=True, exif=exif(record), icc_profile=srgb())


def _webp(image: Any, path: Path, record: Record | None) -> None:
    image.save(path, "WEBP", lossless=True, exact=True, quality=80, method=4, exif=exif(record), icc_profile=srgb())


def _tiff(image: Any, path: Path, record: Record | None) -> None:
    # not compressed: libtiff, which would, cannot write EXIF
    image.save(path, "TIFF", icc_profile=srgb(), **({"exif": exif(record)} if record is not None else {}))


def _avif(image: Any, path: Path, record: Record | None) -> None:
    # one thread: the same bytes on every machine
    image.save(path, "AVIF", quality=90, subsampling="4:4:4", max_threads=1, exif=exif(record), icc_profile=srgb())


WRITERS: Mapping[str, Callable[[Any, Path, Record | None], None]] = {
    ".png": write_png, ".jpg": _jpeg, ".jpeg": _jpeg, ".webp": _webp, ".tiff": _tiff, ".tif": _tiff, ".avif": _avif,
}  # fmt: skip


@cache
def srgb() -> bytes:
    """The ICC profile of sRGB, the same bytes each time: its date is the one of the standard."""
    from PIL import ImageCms

    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    made[24:36] = b"".join(n.to_bytes(2, "big") for n in (1999, 10, 1, 0, 0, 0))
    return bytes(made)

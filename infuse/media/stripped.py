"""A picture's or film's own bytes without what it tells of its making: no camera, no place, no comment, no recipe.

Pixels are not coded anew: chunks are left out. What cannot be had so (another format; a colour profile or a turn that a
reader must know of) is None, and whoever asks writes the pixels that he sees instead.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

from infuse.errors import RecipeError
from infuse.media.png_text import SIGNATURE
from infuse.media.video_reader import CONTAINERS, pyav

PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"sRGB", b"acTL", b"fcTL", b"fdAT")
"""What pixels and animations are made of, and the word that they are sRGB. gAMA and cHRM are not looked at by readers."""
ZIP = b"PK\3\4"
TURNED = 0x0112


def stripped(content: bytes) -> bytes | None:
    """The same pixels without metadata, or None. What has none already comes back as it is. Damaged files are None."""
    try:
        if content.startswith(SIGNATURE):
            return _png(content)
        if content.startswith(b"\xff\xd8\xff"):
            return _jpeg(content)
        if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
            return _webp(content)
        if content.startswith(b"GIF8"):
            return _gif(content)
        if content.startswith(ZIP):
            return _zip(content)
        return _mp4(content) if content[4:8] == b"ftyp" else None
    except (IndexError, ValueError, struct.error, zipfile.BadZipFile):
        return None


def _png(content: bytes) -> bytes | None:
    out, at = [SIGNATURE], 8
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        whole = content[at : at + 12 + size]
        if len(whole) < 12 + size or kind == b"iCCP" or (kind == b"eXIf" and _turned(whole[8:-4])):
            return None
        if kind in PNG_KEPT and not _names_more(kind, whole):
            out.append(whole)
        if kind == b"IEND":
            return b"".join(out)
        at += 12 + size
    return None


def _names_more(kind: bytes, whole: bytes) -> bool:
    """A chunk whose checksum is wrong may hold anything."""
    return zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big")


def _jpeg(content: bytes) -> bytes | None:
    out, at = [b"\xff\xd8"], 2
    while True:
        while content[at + 1] == 0xFF:  # padding
            at += 1
        kind = content[at + 1]
        if content[at] != 0xFF:
            return None
        if kind == 0xD9:
            return b"".join([*out, b"\xff\xd9"])  # what hangs on behind it (a film of the moment, a gain map) goes
        size = int.from_bytes(content[at + 2 : at + 4], "big")
        whole, inside = content[at : at + 2 + size], content[at + 4 : at + 2 + size]
        if kind == 0xE2 and inside.startswith(b"ICC_PROFILE\0"):
            return None
        if kind == 0xE1 and inside.startswith(b"Exif\0\0") and _turned(inside[6:]):
            return None
        at += 2 + size
        # APP0 is JFIF's own, APP14 says how colours are coded
        if (kind == 0xE0 and inside.startswith(b"JFIF")) or kind == 0xEE or not (0xE0 <= kind <= 0xEF or kind == 0xFE):
            out.append(_bare_jfif(whole) if kind == 0xE0 else whole)
        if kind == 0xDA:
            end = at
            while content[end] != 0xFF or content[end + 1] in (0, *range(0xD0, 0xD8)):
                end = content.index(b"\xff", end + 1)
            out.append(content[at:end])
            at = end


def _bare_jfif(whole: bytes) -> bytes:
    """JFIF without its thumbnail."""
    return whole if whole[16:18] == b"\0\0" and len(whole) == 18 else b"\xff\xe0\0\x10" + whole[4:16] + b"\0\0"


def _webp(content: bytes) -> bytes | None:
    out, at = [], 12
    while at + 8 <= len(content):
        kind, size = content[at : at + 4], struct.unpack("<I", content[at + 4 : at + 8])[0]
        whole = content[at : at + 8 + size + size % 2]
        if kind == b"ICCP" or (kind == b"EXIF" and _turned(whole[8 : 8 + size])):
            return None
        if kind == b"VP8X":
            whole = whole[:8] + bytes([whole[8] & ~0x0C]) + whole[9:]  # no EXIF and no XMP are in it any more
        if kind in (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"):
            out.append(whole)
        at += 8 + size + size % 2
    body = b"".join([b"WEBP", *out])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _gif(content: bytes) -> bytes | None:
    def table(flags: int) -> int:
        return 3 << ((flags & 7) + 1) if flags & 0x80 else 0

    def blocks(at: int) -> int:
        while content[at]:
            at += 1 + content[at]
        return at + 1

    at = 13 + table(content[10])
    out = [content[:at]]
    while content[at] != 0x3B:
        begin = at
        if content[at] == 0x21:
            kind, at = content[at + 1], blocks(at + 2)
            if kind == 0xF9 or (kind == 0xFF and content[begin + 3 : begin + 14] == b"NETSCAPE2.0"):
                out.append(content[begin:at])
        elif content[at] == 0x2C:
            at = blocks(at + 11 + table(content[at + 9]))
            out.append(content[begin:at])
        else:
            return None
    return b"".join([*out, b";"])


def _zip(content: bytes) -> bytes | None:
    """Frames that are each stripped; names and order stay."""
    from infuse.media.film_arrays import zipped

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(i.file_size for i in archive.infolist()) > 64 << 20:
            return None
        frames = {name: stripped(archive.read(name)) for name in archive.namelist() if not name.endswith("/")}
    if any(f is None for f in frames.values()):
        return None
    return zipped({name: f for name, f in frames.items() if f is not None})


def _mp4(content: bytes) -> bytes | None:
    """An MP4 as it is, if its boxes hold nothing beside the film; with names or a place of the camera it does not travel."""
    return (
        content
        if not any(word in content for word in (b"udta", b"uuid", b"meta", b"\xa9xyz", b"mdta"))
        else _remuxed(content)
    )


def _remuxed(content: bytes) -> bytes | None:
    """The same packets in a new container that says nothing."""
    try:
        av = pyav("taking the metadata out of a film")
    except RecipeError:
        return None
    out = io.BytesIO()
    try:
        with (
            av.open(io.BytesIO(content), options={"format_whitelist": CONTAINERS}) as source,
            av.open(out, "w", format="mp4", options={"fflags": "+bitexact"}) as to,
        ):
            video = source.streams.video[0]
            copy = to.add_stream_from_template(video)
            copy.metadata.clear()
            for packet in source.demux(video):
                if packet.dts is not None:
                    packet.stream = copy
                    to.mux(packet)
    except (av.error.FFmpegError, ValueError, IndexError):
        return None
    return out.getvalue()


def _turned(exif: bytes) -> bool:
    """Does an EXIF block say that the picture is to be turned?"""
    from PIL import Image

    found = Image.Exif()
    try:
        found.load(exif)
        return found.get(TURNED, 1) not in (0, 1)
    except Exception:  # a reader makes nothing of it either, but who knows which
        return True

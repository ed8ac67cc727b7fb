"""Films in every form that is read, and what befalls their bytes on the way."""

from __future__ import annotations

import io
import random
import zipfile
from functools import cache
from pathlib import Path

import filming

FRAMES = filming.drifting(6, size=(48, 32))
VIDEOS = {"a.mp4": "libx264", "a.webm": "libvpx-vp9", "a.avi": "mpeg4", "a.mkv": "libx264", "a.mov": "mpeg4"}
ANIMATIONS = {"a.gif": "GIF", "a.webp": "WEBP", "a.png": "PNG", "a.tiff": "TIFF"}
FORMS = (*VIDEOS, *ANIMATIONS, "stored.zip", "packed.zip", "folder/2.png")


@cache
def whole(form: str, at: Path) -> bytes:
    """A film of six frames in this form."""
    if form in VIDEOS:
        return filming.video(at / form, FRAMES, VIDEOS[form]).read_bytes()
    out = io.BytesIO()
    if form in ANIMATIONS:
        said = {"compression": "tiff_lzw"} if form == "a.tiff" else {"duration": 100, "disposal": 2}
        first, *rest = (f.copy() for f in FRAMES)  # Pillow leaves an encoder's options on what it has saved
        first.save(out, ANIMATIONS[form], save_all=True, append_images=rest, **said)
    elif form.endswith("zip"):
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED if form == "packed.zip" else zipfile.ZIP_STORED) as archive:
            for i, frame in enumerate(FRAMES):
                archive.writestr(f"{i}.png", filming.png(frame))
    else:
        return filming.png(FRAMES[2])
    return out.getvalue()


SIZES = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\x40\0",
    b"\0\x40\0\0",
    b"\xff\xff",
)


def broken(raw: bytes, other: bytes, chance: random.Random) -> bytes:
    """Bytes changed, left out, doubled, put in and cut off; numbers made huge; the rest of another film behind it."""
    content = bytearray(raw)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8, 30))):
        at = chance.randrange(len(content) or 1)
        at = min(at, chance.randrange(200)) if chance.random() < 0.3 else at  # where headers are
        match chance.choices(range(8), (8, 4, 3, 2, 2, 1, 1, 2))[0]:
            case 0:
                content[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                content[at : at + 1] = bytes([(content[at] if content else 0) ^ 1 << chance.randrange(8)])
            case 2:
                size = chance.choice(SIZES)
                content[at : at + len(size)] = size
            case 3:
                del content[at : at + chance.randrange(1, 60)]
            case 4:
                content[at:at] = chance.randbytes(chance.randrange(1, 12))
            case 5:
                del content[at:]
            case 6:
                content[at:] = other[chance.randrange(len(other)) :]
            case 7:
                to = chance.randrange(len(content) or 1)
                content[to:to] = content[at : at + chance.randrange(1, 400)]
    return bytes(content)

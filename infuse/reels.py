"""What a film is read from has one face, a reel: sizes and times from the headers first, pixels later and only of the
frames that are wanted. Here are the readers of loose pictures and of animations; reels_video.py reads videos.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infuse.errors import CapacityError, InfuseError, RecipeError
from infuse.pictures import LARGEST, MOST, SMALLEST

MOST_FRAMES = 100_000
"""How many frames a film may have, taken or not (an hour at 27 per second)."""
FOLDER_RATE = 8
"""Frames per second of pictures that lie in a folder and know no time; what infuse writes films at."""

PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Reel:
    """A film's headers. `times` are the seconds at which its frames appear, from 0; the last one leaves at `end`."""

    name: str
    size: tuple[int, int]
    times: tuple[float, ...]
    end: float
    draw: Callable[[Sequence[int]], Iterator[tuple[int, Any]]]
    """Ascending frame numbers -> (number, upright RGB image). Raises RecipeError where a frame cannot be read."""
    clock: bool = True
    """Whether `times` are the film's own; loose pictures have none and are counted `FOLDER_RATE` per second."""
    still: bool = False
    notes: tuple[str, ...] = ()
    hurt: str = ""
    """What is known to be missing at its end."""
    codec: str = ""
    """Of a video."""
    parts: tuple[str, ...] = ()
    """Names of the loose pictures, in order."""

    @property
    def rate(self) -> float:
        """Frames per second, on average."""
        return len(self.times) / self.end

    @property
    def variable(self) -> bool:
        """Whether the gaps differ by more than a container's rounding (GIF counts in 1/100 s, WebM in 1/1000 s)."""
        gaps = [b - a for a, b in zip(self.times, (*self.times[1:], self.end), strict=True)]
        return max(gaps) - min(gaps) > min(0.0105, 0.35 / self.rate)


def fits(name: str, size: tuple[int, int], frames: int) -> None:
    """Complain about sides and numbers of frames beyond the limits."""
    if max(size) > LARGEST or size[0] * size[1] > MOST:
        raise CapacityError(
            "",
            f"{name} is {size[0]} x {size[1]} px; the limit is {LARGEST} px a side and "
            f"{MOST // 1_000_000} megapixels. Scale it down first.",
        )
    if min(size) < SMALLEST:
        raise RecipeError("", f"{name} is {size[0]} x {size[1]} px. Give frames of at least {SMALLEST} px a side.")
    if frames > MOST_FRAMES:
        raise CapacityError("", f"{name} has {frames} frames; the limit is {MOST_FRAMES}. Cut out the part you need.")


def numbered(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which frame 9 comes before frame 10."""
    return [(0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"([0-9]+)", name.lower()) if p]


def flat(image: Any) -> Any:
    """RGB; 16-bit grey is scaled, and what is transparent becomes black, which says nothing in masks, depths and
    sketches."""
    from PIL import Image

    if image.mode.startswith("I"):
        return image.point(lambda v: v / 257).convert("L").convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    return image.convert("RGB")


# Loose pictures ---------------------------------------------------------------------------------------------------


def zipped_reel(name: str, content: bytes) -> Reel:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        if (size := sum(i.file_size for i in archive.infolist())) > 4 << 30:
            raise CapacityError("", f"{name} unpacks to {size >> 30} GiB; the limit is 4 GiB. Use a folder of frames.")
        return loose_reel(name, [i.filename for i in archive.infolist() if not i.is_dir()], archive.read)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, InfuseError):
            raise
        raise RecipeError("", f"{name} is a zip file that cannot be read ({error}). Pack it again.") from None


def loose_reel(name: str, names: Sequence[str], read: Callable[[str], bytes]) -> Reel:
    from PIL import Image, ImageOps

    parts = sorted((n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith((".", "__"))), key=numbered)
    if not parts:
        raise RecipeError(
            "", f"{name} holds no pictures ({len(names)} other files). Give one with frames as PNG, JPEG or WebP files."
        )
    if len(parts) > MOST_FRAMES:
        fits(name, (SMALLEST, SMALLEST), len(parts))

    @contextmanager
    def image(part: str) -> Iterator[Any]:
        try:
            with Image.open(io.BytesIO(read(part)), formats=PICTURES) as found:
                yield found
        except (OSError, ValueError, SyntaxError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
            at = f"frame {parts.index(part)} of {len(parts)}"
            raise RecipeError("", f"{part} in {name} ({at}) cannot be read: {error}. Make this frame again.") from None

    size = (0, 0)
    for part in parts:
        with image(part) as found:
            turned = found.getexif().get(0x0112, 1) > 4  # EXIF orientations 5 to 8 lie on their side
            own = found.size[::-1] if turned else found.size
        if part == parts[0]:
            size = own
            fits(name, size, len(parts))
        elif own != size:
            raise RecipeError(
                "",
                f"{name} mixes sizes: {parts[0]} is {size[0]} x {size[1]} px, {part} is {own[0]} x {own[1]} px. "
                "Bring all of its frames to one size.",
            )

    def draw(wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        for i in wanted:
            with image(parts[i]) as found:
                yield i, flat(ImageOps.exif_transpose(found))

    others = [n for n in names if n not in parts and not n.startswith(".")]
    notes = (f"{name}: {len(others)} files that are no pictures are left out ({others[0]}, ...)",) if others else ()
    times = tuple(i / FOLDER_RATE for i in range(len(parts)))
    end = len(parts) / FOLDER_RATE
    return Reel(name, size, times, end, draw, False, len(parts) == 1, notes, parts=tuple(parts))


# Animations -------------------------------------------------------------------------------------------------------


def animated_reel(name: str, source: Path | bytes, image: Any) -> Reel:
    """GIF, animated WebP and PNG; a picture with one frame is a still. A frame of 0 s stays for 0.1 s, as in browsers."""
    from PIL import Image, ImageOps

    count = getattr(image, "n_frames", 1)
    turned = image.getexif().get(0x0112, 1) > 4
    size = image.size[::-1] if turned else image.size
    fits(name, size, count)

    def draw(wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURES) as again:
            for i in wanted:
                yield i, flat(ImageOps.exif_transpose(at(again, i)))

    def at(film: Any, i: int) -> Any:
        try:
            if count > 1:
                film.seek(i)
            film.load()
        except (OSError, EOFError, ValueError, SyntaxError) as error:
            raise stopped(name, i, count, f"{error}") from None
        return film

    if count == 1:
        return Reel(name, size, (0.0,), 1 / FOLDER_RATE, draw, False, True)
    times = [0.0]
    for i in range(count):
        shown = at(image, i).info.get("duration") or 100
        times.append(times[-1] + shown / 1000)
    return Reel(name, size, tuple(times[:-1]), times[-1], draw)


def stopped(name: str, seen: int, count: int, why: str) -> RecipeError:
    return RecipeError(
        "",
        f"{name} is damaged at frame {seen} of {count} ({why}); {seen} frames could be read. "
        "Ask for fewer frames, or copy or encode the film again.",
    )

"""What a film is read from has one face, a reader: sizes and times from the headers first, pixels later and only of the
frames that are wanted. Here are the readers of loose pictures and of animations; video_reader.py reads videos.
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
from infuse.media.pictures import SMALLEST, limited, px, trust_it
from infuse.media.png_text import wordless
from infuse.media.reading import OWN, Reading
from infuse.media.settle import NUMERIC, is_turned, shades

FOLDER_RATE = 8
"""Frames per second of pictures that lie in a folder and know no time; what infuse writes films at."""

PICTURES = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff")

Look = Callable[[Any, str], Any]
"""(a frame as it lies there, how letters name it) -> the frame as it is wanted: `settle.seen` or `settle.drawn`."""


@dataclass(frozen=True)
class Clip:
    """What was taken from a film."""

    frames: tuple[Any, ...]
    """RGB PIL images of one size."""
    places: tuple[int, ...]
    """The number of each in the film, from 0."""
    notes: tuple[str, ...] = ()
    """What was adjusted on the way, one sentence each."""


@dataclass(frozen=True)
class Reader:
    """A film's headers. `times` are the seconds at which its frames appear, from 0; the last one leaves at `end`."""

    name: str
    size: tuple[int, int]
    times: tuple[float, ...]
    end: float
    draw: Callable[[Sequence[int], Look], Iterator[tuple[int, Any]]]
    """Ascending frame numbers -> (number, what a look at the frame gives). Raises RecipeError where one cannot be read."""
    clock: bool = True
    """Whether `times` are the film's own; loose pictures have none and are counted `FOLDER_RATE` per second."""
    still: bool = False
    notes: tuple[str, ...] = ()
    hurt: str = ""
    """What is known to be missing at its end."""
    chained: bool = False
    """Whether each frame of a video is coded from the one before it, so that its motion vectors span one frame."""
    parts: tuple[str, ...] = ()
    """Names of the loose pictures, in order."""
    piece: Callable[[str], bytes] = lambda part: b""
    """The file of one of them. Raises RecipeError if it cannot be read."""

    @property
    def rate(self) -> float:
        """Frames per second, on average."""
        return len(self.times) / self.end

    @property
    def variable(self) -> bool:
        """Whether the gaps differ by more than a container's rounding (GIF counts in 1/100 s, WebM in 1/1000 s)."""
        gaps = [b - a for a, b in zip(self.times, (*self.times[1:], self.end), strict=True)]
        return max(gaps) - min(gaps) > min(0.0105, 0.35 / self.rate)


def fits(name: str, size: tuple[int, int], frames: int, reading: Reading = OWN) -> None:
    """Complain about sides and numbers of frames beyond the limits."""
    limited(name, size, reading)
    if min(size) < SMALLEST:
        raise RecipeError("", f"{name} is {px(size)}. Give frames of at least {SMALLEST} px a side.")
    if frames > reading.most_frames:
        raise CapacityError(
            "", f"{name} has {frames} frames; the limit is {reading.most_frames}. Cut out the part you need."
        )


def numbered(name: str) -> list[tuple[int, int | str]]:
    """A sort key by which frame 9 comes before frame 10."""
    return [(0, int(p)) if p.isdecimal() else (1, p) for p in re.split(r"([0-9]+)", name.lower()) if p]


def missing(parts: Sequence[str]) -> str:
    """The first place where a number is missing from names that otherwise count evenly; empty if there is none."""
    found = [re.fullmatch(r"(.*?)([0-9]+)([^0-9]*)", Path(p).stem) for p in parts]
    numbers = [int(m[2]) for m in found if m]
    gaps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    if len({m and (m[1], m[3]) for m in found}) > 1 or len(gaps) < 2 or (step := min(gaps)) < 1:
        return ""
    if max(gaps) == step or any(g % step for g in gaps):  # the latter are times, or other numbers that do not count
        return ""
    at = next(i for i, g in enumerate(gaps) if g > step)
    return f"{parts[at]} is followed by {parts[at + 1]}"


# Loose pictures ---------------------------------------------------------------------------------------------------


MOST_UNPACKED = 4 << 30
"""Bytes of all frames in a zip."""


def zipped_reader(name: str, content: bytes, reading: Reading = OWN) -> Reader:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        most = min(MOST_UNPACKED, 4 * reading.most_film_bytes)
        if (size := sum(i.file_size for i in archive.infolist())) > most:
            raise CapacityError(
                "", f"{name} unpacks to {size >> 20} MiB; the limit is {most >> 20} MiB. Use a folder of frames."
            )

        def read(part: str) -> bytes:
            stated = archive.getinfo(part).file_size
            reading.weigh(f"{part} in {name}", stated)
            with archive.open(part) as file:  # what unpacks to more than is stated is damaged
                content = file.read(stated + 1)
            if len(content) > stated:
                raise zipfile.BadZipFile(f"{part} is larger than it says")
            return content

        return loose_reader(name, [i.filename for i in archive.infolist() if not i.is_dir()], read, reading)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        if isinstance(error, InfuseError):
            raise
        raise RecipeError("", f"{name} is a zip file that cannot be read ({error}). Pack it again.") from None


def loose_reader(name: str, names: Sequence[str], read: Callable[[str], bytes], reading: Reading = OWN) -> Reader:
    from PIL import Image

    parts = sorted((n for n in names if n.lower().endswith(SUFFIXES) and not n.startswith((".", "__"))), key=numbered)
    if not parts:
        raise RecipeError(
            "", f"{name} holds no pictures ({len(names)} other files). Give one with frames as PNG, JPEG or WebP files."
        )
    fits(name, (SMALLEST, SMALLEST), len(parts), reading)

    @contextmanager
    def mended(part: str) -> Iterator[None]:
        try:
            yield
        except InfuseError:
            raise
        except Exception as error:  # the disk, zipfile, zlib and Pillow: each has many words for a broken file
            at = f"frame {parts.index(part)} of {len(parts)}"
            raise RecipeError("", f"{part} in {name} ({at}) cannot be read: {error}. Make this frame again.") from None

    @contextmanager
    def image(part: str) -> Iterator[Any]:
        with mended(part), Image.open(io.BytesIO(wordless(read(part))), formats=PICTURES) as found:
            yield found

    def piece(part: str) -> bytes:
        with mended(part):
            return read(part)

    size = (0, 0)
    for part in parts:
        with image(part) as found:
            own = found.size[::-1] if is_turned(found) else found.size
            if found.mode in NUMERIC:
                shades(found, f"{part} in {name}")
        if part == parts[0]:
            size = own
            fits(name, size, len(parts), reading)
        elif own != size:
            raise RecipeError(
                "",
                f"{name} mixes sizes: {parts[0]} is {px(size)}, {part} is {px(own)}. "
                "Bring all of its frames to one size.",
            )

    def draw(wanted: Sequence[int], look: Look) -> Iterator[tuple[int, Any]]:
        for i in wanted:
            with image(parts[i]) as found:
                found.load()
                yield i, look(found, f"{parts[i]} in {name}")

    others = [n for n in names if n not in parts and not n.startswith(".")]
    notes = [f"{name}: {len(others)} files that are no pictures are left out ({others[0]}, ...)"] if others else []
    if hole := missing(parts):
        notes.append(f"{name}: numbers are missing ({hole}); its frames are taken one after another all the same")
    times = tuple(i / FOLDER_RATE for i in range(len(parts)))
    end = len(parts) / FOLDER_RATE
    return Reader(name, size, times, end, draw, False, len(parts) == 1, tuple(notes), parts=tuple(parts), piece=piece)


# Animations -------------------------------------------------------------------------------------------------------


def animated_reader(name: str, source: Path | bytes, image: Any, reading: Reading = OWN) -> Reader:
    """GIF, TIFF, animated WebP and PNG; a picture with one frame is a still. A frame of 0 s stays for 0.1 s, as in browsers."""
    from PIL import Image

    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # a camera's other views, or gain map
    size = image.size[::-1] if is_turned(image) else image.size
    fits(name, size, count, reading)
    if (pixels := count * size[0] * size[1]) > reading.most_animated and count > 1:
        raise CapacityError("", f"{name} has {count} frames of {px(size)}, {pixels / 1e6:.0f} megapixels in all; the limit is "
                                f"{reading.most_animated / 1e6:.0f}. Scale it down first{trust_it(reading)}.")  # fmt: skip

    def draw(wanted: Sequence[int], look: Look) -> Iterator[tuple[int, Any]]:
        try:
            film = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=PICTURES)
        except Exception as error:  # it was there when its headers were read
            raise stopped(name, 0, count, f"{error}") from None
        with film as again:
            for i in wanted:
                yield i, look(at(again, i), name)

    def at(film: Any, i: int) -> Any:
        try:
            if count > 1:
                film.seek(i)
            film.load()
        except Exception as error:  # Pillow has many words for a broken file
            raise stopped(name, i, count, f"{error}") from None
        return film

    own, times = image.size, [0.0]
    for i in range(count if count > 1 or image.mode in NUMERIC else 0):
        if (page := at(image, i)).size != own:
            raise RecipeError("", f"{name} mixes sizes: page 0 is {px(own)}, page {i} is {px(page.size)}. "
                                  "Bring all of its pages to one size.")  # fmt: skip
        if page.mode in NUMERIC:
            shades(page, name)
        times.append(times[-1] + (page.info.get("duration") or 100) / 1000)
    if count == 1:
        return Reader(name, size, (0.0,), 1 / FOLDER_RATE, draw, False, True)
    return Reader(name, size, tuple(times[:-1]), times[-1], draw)


def stopped(name: str, seen: int, count: int, why: str) -> RecipeError:
    return RecipeError(
        "",
        f"{name} is damaged at frame {seen} of {count} ({why}); {seen} frames could be read. "
        "Ask for fewer frames, or copy or encode the film again.",
    )

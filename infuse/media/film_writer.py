"""A film is written with its recipe inside, as pictures are: MP4, GIF, WebP, or a folder of PNG frames.

The recipe lies in the comment of an MP4 or GIF, in the EXIF description of a WebP, and in the first frame of a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.media.film_readers import FOLDER_RATE, SUFFIXES, numbered
from infuse.media.metadata import Elsewhere, Record, reachable, read_record, record_in_file, writing
from infuse.media.picture_writer import exif, write_png
from infuse.media.reading import OWN, Reading
from infuse.media.video_reader import pyav

SLOWEST, FASTEST = 0.02, 1000
"""Frames per second that all formats can say."""


def writable(path: str | Path) -> None:
    """Complain before long work if a film could not be written there. Raises RecipeError."""
    path = Path(path)
    if path.suffix.lower() not in ("", *WRITERS):
        raise RecipeError(
            "", f"{path}: films are not written as {path.suffix}. Choose .mp4, .gif, .webp, or a folder (no suffix)."
        )
    if path.suffix.lower() == ".mp4":
        pyav("writing .mp4")
    reachable(path)
    if not path.suffix and path.is_dir() and any(p.suffix.lower() in SUFFIXES for p in path.iterdir()):
        raise RecipeError("", f"the folder {path} holds pictures already. Name a new folder, or empty this one.")
    if path.suffix and path.is_dir():
        raise RecipeError("", f"{path} is a folder. Name a file.")
    if not path.suffix and path.exists() and not path.is_dir():
        raise RecipeError("", f"{path} is a file, and a name without a suffix is a folder of frames. Name another.")


def shown_at(fps: float, field: str = "fps") -> None:
    """Raises RecipeError for a frame rate that the formats cannot say."""
    if not SLOWEST <= fps <= FASTEST:
        raise RecipeError(field, f"films are not written at {fps:g} frames per second. Choose {SLOWEST} to {FASTEST}.")


def write_film(
    frames: Sequence[Any], path: str | Path, record: Record | None = None, fps: float = FOLDER_RATE
) -> tuple[str, ...]:
    """Write PIL images as a film of `fps` frames per second; the suffix says how. Returns notes of what was adjusted.

    .mp4: H.264 at nearly no loss (MPEG-4 where PyAV was built without x264), sides padded to even ones. .gif: one
    palette of 256 colours for all frames, looped. .webp: lossless, looped. No suffix: a folder of PNG frames.
    Raises RecipeError (see `writable` and `shown_at`; also no frames, or frames of several sizes; a full disk).
    """
    path, frames = Path(path), [f.convert("RGB") for f in frames]
    writable(path)
    shown_at(fps)
    if not frames:
        raise RecipeError("", f"there are no frames to write into {path}. Make at least one.")
    if len(sizes := {f.size for f in frames}) > 1:
        raise RecipeError("", f"a film has one size, these frames have {len(sizes)}. Bring them to one size.")
    if record is not None:
        record = replace(record, fps=float(fps))
    if path.suffix:
        with writing(path) as to:
            return WRITERS[path.suffix.lower()](frames, to, record, fps)
    for i, frame in enumerate(frames):
        with writing(path / f"{i:04}.png") as to:
            write_png(frame, to, Elsewhere("0000.png") if i and record else record)
    return ()


def read_record_of(path: str | Path, limits: Reading = OWN) -> dict[str, Any]:
    """The record in a film or picture made by infuse, or in the first frame of a folder: {"recipe", "inputs", "weights",
    a film's "fps", ...}.

    Raises RecipeError if there is none.
    """
    return read_record(_carrier(Path(path)), limits)


def record_in(path: str | Path, limits: Reading = OWN) -> tuple[dict[str, Any] | None, dict[str, str]]:
    """(the same record, or None; every text that is written there). Raises RecipeError if it cannot be read."""
    return record_in_file(_carrier(Path(path)), limits)


def _carrier(path: Path) -> Path:
    """The file that has the record: of a folder of frames, the first."""
    if not path.is_dir():
        return path
    frames = sorted((p for p in path.iterdir() if p.suffix.lower() == ".png"), key=lambda p: numbered(p.name))
    if not frames:
        raise RecipeError("", f"the folder {path} holds no PNG frames.")
    return frames[0]


def _mp4(frames: Sequence[Any], path: Path, record: Record | None, fps: float) -> tuple[str, ...]:
    """The same frames and record give the same bytes: one thread, no dates. Colours are BT.709, and say so."""
    import numpy as np

    av = pyav("writing .mp4")
    bt709, full, video_range = (
        av.video.reformatter.Colorspace.ITU709,
        av.video.reformatter.ColorRange.JPEG,
        av.video.reformatter.ColorRange.MPEG,
    )
    width, height = frames[0].size
    odd = (width % 2, height % 2)
    notes = []
    if any(odd):
        notes.append(
            f"{width} x {height} px became {width + odd[0]} x {height + odd[1]}: MP4 wants even sides, so the last row or "
            "column is there twice"
        )
    x264 = "libx264" in av.codecs_available
    try:
        with av.open(str(path), "w", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
            if record:
                container.metadata["comment"] = record.text()
            video = container.add_stream("libx264" if x264 else "mpeg4", rate=Fraction(fps).limit_denominator(1001))
            video.width, video.height, video.pix_fmt = width + odd[0], height + odd[1], "yuv420p"
            # crf 16 and qscale 2 lie just below what eyes tell from the original
            # x264's macroblock tree reads memory that nobody wrote when frames are small: other bytes each time
            video.options = {"crf": "16", "x264-params": "mbtree=0"} if x264 else {"qmin": "2", "qmax": "2"}
            video.codec_context.thread_count = 1
            # primaries, transfer and matrix 1: BT.709; without these tags players guess by the size of the frame
            video.codec_context.color_primaries = video.codec_context.color_trc = video.codec_context.colorspace = 1
            video.codec_context.color_range = 1
            for frame in frames:
                pixels = np.pad(np.asarray(frame), ((0, odd[1]), (0, odd[0]), (0, 0)), "edge")
                shown = av.VideoFrame.from_ndarray(pixels, "rgb24")
                container.mux(
                    video.encode(
                        shown.reformat(
                            format="yuv420p", dst_colorspace=bt709, src_color_range=full, dst_color_range=video_range
                        )
                    )
                )
            container.mux(video.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno, error.strerror) from None
    if not x264:
        notes.append("written as MPEG-4 Part 2: this build of PyAV brings no H.264 encoder")
    return tuple(notes)


def _gif(frames: Sequence[Any], path: Path, record: Record | None, fps: float) -> tuple[str, ...]:
    from PIL import Image

    tile = (min(frames[0].width, 256), min(frames[0].height, 256))
    strip = Image.new("RGB", (tile[0], tile[1] * min(len(frames), 16)))
    for i in range(strip.height // tile[1]):
        shown = frames[i * len(frames) // (strip.height // tile[1])]
        strip.paste(shown.resize(tile, Image.Resampling.NEAREST), (0, i * tile[1]))
    palette = strip.quantize(256)
    first, *rest = [f.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for f in frames]
    shown = _durations(len(frames), fps, 10)
    text = record.text().encode() if record else b""
    first.save(path, "GIF", save_all=True, append_images=rest, duration=shown, loop=0, comment=text)
    # a frame stays for one unit at least
    faster = (f"a GIF shows 100 frames per second at most: it plays at 100, not at {fps:g}",) if fps > 100 else ()
    return (*faster, *_same(first, rest, shown))


def _webp(frames: Sequence[Any], path: Path, record: Record | None, fps: float) -> tuple[str, ...]:
    first, *rest = frames
    shown = _durations(len(frames), fps, 1)
    said = exif(record)
    first.save(path, "WEBP", save_all=True, append_images=rest, duration=shown, loop=0, lossless=True, exif=said)
    return _same(first, rest, shown)


def _durations(count: int, fps: float, unit: int) -> list[int]:
    """Milliseconds of each frame in whole units, so that the k-th appears as near to k / fps as the format can say."""
    ends = [round(1000 * k / fps / unit) * unit for k in range(count + 1)]
    return [max(unit, b - a) for a, b in zip(ends, ends[1:], strict=False)]


def _same(first: Any, rest: Sequence[Any], shown: Sequence[int]) -> tuple[str, ...]:
    """What these formats do by themselves, said aloud."""
    notes = []
    pairs = zip([first, *rest], rest, strict=False)
    if same := sum(a.tobytes() == b.tobytes() for a, b in pairs):
        notes.append(f"{same} of {len(shown)} frames equal the one before and are stored as its longer duration")
    if min(shown) < 20:
        notes.append("frames of less than 0.02 s are shown more slowly by most viewers")
    return tuple(notes)


WRITERS: Mapping[str, Callable[[Sequence[Any], Path, Record | None, float], tuple[str, ...]]] = {
    ".mp4": _mp4,
    ".gif": _gif,
    ".webp": _webp,
}

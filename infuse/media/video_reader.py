"""A video file as a reader: its packets are counted and timed first, frames are decoded when they are wanted.

Frames are known by their time stamps, turned as the metadata asks, and a damaged one is an error, never a guess.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.media.film_readers import Look, Reader, fits, stopped
from infuse.media.pictures import SMALLEST
from infuse.media.reading import OWN, Reading
from infuse.media.settle import seen

CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,asf,ivf,nut,mxf,dv,h264,hevc,"
    "yuv4mpegpipe,wav,mp3,aac,flac,aiff"
)
"""Nothing here can point to another file or address, as playlists do."""
COVER = 0x400
"""ffmpeg's mark of the picture on a song's sleeve."""
CHAINED = ("mpeg1video", "mpeg2video", "mpeg4")
"""Codecs that tell their motion, and code a frame from the one before it or, as a B-frame, from two; H.264 and later ones
look several frames away."""


def pyav(purpose: str) -> Any:
    """The package that reads and writes videos. Raises RecipeError with the line that installs it."""
    try:
        import av
    except ImportError:
        raise RecipeError("", f"{purpose} needs the package av. Run: pip install 'infuse[video]'") from None
    return av


@contextmanager
def stream(name: str, source: Path | bytes, **options: str) -> Iterator[tuple[Any, Any]]:
    """(container, video stream) of a video file, with options of its decoder. Raises RecipeError if there is none."""
    av = pyav(f"{name} is a video, and reading it")
    try:
        file = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        container = av.open(file, options={"format_whitelist": CONTAINERS})
    except (av.error.FFmpegError, ValueError) as error:
        if _index_is_missing(source):
            raise RecipeError(
                "",
                f"{name} has lost its index (moov), which is written last: the recording or copy was cut short, "
                "and none of its frames can be read. Copy or record it again.",
            ) from None
        why = getattr(error, "strerror", None) or error
        raise RecipeError(
            "", f"{name} is not a film that can be read ({why}). Give an MP4, WebM, GIF or a folder of frames."
        ) from None
    with container:
        seen = [s for s in container.streams.video if not s.disposition.value & COVER]
        if not seen:
            has = "holds sound only" if container.streams.audio else "holds no picture"
            raise RecipeError("", f"{name} {has}. Give a file with a video stream.")
        if seen[0].codec_context is None:
            raise RecipeError(
                "", f"{name} is coded in a way that the package av does not know. Encode it again, as H.264."
            )
        # "explode": a damaged frame is an error, not a guess of the decoder's
        seen[0].codec_context.options = {"err_detect": "explode", **options}
        seen[0].thread_type = "SLICE"  # decoding several frames at once loses motion vectors of some of them
        yield container, seen[0]


def video_reader(name: str, source: Path | bytes, reading: Reading = OWN) -> Reader:
    av = pyav(f"{name} is a video, and reading it")
    ticks: list[int] = []
    last, timed = 0, True
    with stream(name, source) as (container, video):
        fits(name, (video.codec_context.width or SMALLEST, video.codec_context.height or SMALLEST), 1, reading)
        step = float(video.time_base)
        try:
            for packet in container.demux(video):
                if not packet.size or packet.is_corrupt or packet.is_discard:
                    continue
                timed &= packet.pts is not None
                ticks.append(packet.pts if packet.pts is not None else packet.dts if packet.dts is not None else -1)
                last = packet.duration or last
                fits(name, (SMALLEST, SMALLEST), len(ticks), reading)
        except av.error.FFmpegError:
            pass  # what was read until here counts
        stated = video.frames if "mp4" in container.format.name else 0
        codec = video.codec_context.name
        guess = float(video.average_rate or video.guessed_rate or 25)
    if not ticks:
        raise RecipeError("", f"{name} has a video stream without a frame. Record or encode it again.")
    chained = codec in CHAINED and ticks == sorted(ticks)  # others have frames that are coded from later ones
    ticks.sort()
    if len(set(ticks)) < len(ticks):  # a raw stream: frames without times
        timed, step, last, ticks = False, 1 / guess, 1, list(range(len(ticks)))
    gap = (ticks[-1] - ticks[0]) / (len(ticks) - 1) if len(ticks) > 1 else 1 / guess / step
    times = tuple((t - ticks[0]) * step for t in ticks)
    where = {t: i for i, t in enumerate(ticks)}

    def draw(wanted: Sequence[int], look: Look) -> Iterator[tuple[int, Any]]:
        """Frames are known by their time stamps; without any, by their place."""
        left, place = list(wanted), -1
        i = -1
        try:
            with stream(name, source) as (container, video):
                aspect = video.sample_aspect_ratio
                if timed and left[0] > 64:  # a key frame's own time may come after frames that are shown before it
                    container.seek(ticks[left[0] - 32], stream=video)
                for frame in decoded(container, video):
                    place += 1
                    i = where.get(frame.pts, -1) if timed else place
                    if i == left[0]:
                        yield left.pop(0), look(upright(frame, aspect), name)
                    if not left:
                        return
        except av.error.FFmpegError as error:
            raise stopped(name, i + 1, len(ticks), f"{error.strerror}") from None
        raise stopped(name, left[0], len(ticks), "the decoder gives nothing for it")

    _, first = next(iter(draw([0], lambda image, name: seen(image, name)[0])))
    fits(name, first.size, len(ticks), reading)
    hurt = f"it was cut short: {len(ticks)} of its {stated} frames are there" if stated > len(ticks) else ""
    notes = (f"{name}: {hurt}",) if hurt else ()
    return Reader(
        name, first.size, times, times[-1] + (last or gap) * step, draw, notes=notes, hurt=hurt, chained=chained
    )


def decoded(container: Any, video: Any) -> Iterator[Any]:
    """Every whole frame: of a file that was cut short, those that were held back for their order, too."""
    for packet in container.demux(video):
        if not packet.is_corrupt:
            yield from packet.decode()


def upright(frame: Any, aspect: Any) -> Any:
    """RGB, with square pixels, turned and mirrored as its metadata asks."""
    image = frame.to_image()
    if aspect and aspect != 1:
        image = image.resize((max(1, round(image.width * aspect)), image.height))
    matrix = next((bytes(s) for s in frame.side_data if s.type.name == "DISPLAYMATRIX"), b"")
    return shown_by(image, matrix) if len(matrix) == 36 else image


def shown_by(image: Any, matrix: bytes) -> Any:
    """An image as a display matrix shows it: any of the eight ways in which a picture can lie.

    matrix: nine 32-bit integers; (x, y) is shown at (a x + c y, b x + d y), a, b, c, d being the 1st, 2nd, 4th and 5th
    (ISO 14496-12, 8.5.2; libavutil/display.h).
    """
    from PIL.Image import Transpose

    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    across = abs(b) + abs(c) > abs(a) + abs(d)
    if across:
        image, a, d = image.transpose(Transpose.TRANSPOSE), c, b
    if a < 0:
        image = image.transpose(Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Transpose.FLIP_TOP_BOTTOM) if d < 0 else image


def _index_is_missing(source: Path | bytes) -> bool:
    """Whether these are the boxes of an MP4 or MOV file without a whole one called moov."""
    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as file:
        length = file.seek(0, io.SEEK_END)
        kinds, at = [], 0
        while file.seek(at) < length and len(head := file.read(16)) >= 8 and len(kinds) < 1000:
            size = int.from_bytes(head[:4], "big")
            at += (int.from_bytes(head[8:16], "big") if size == 1 else size) or length
            kinds.append(head[4:8] if at <= length else b"cut")
            if at < 8:
                break
    return kinds[:1] == [b"ftyp"] and b"moov" not in kinds

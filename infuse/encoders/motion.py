"""What moved where, as arrows in pixels: read from a video's own motion vectors, or measured by optical flow.

Everywhere in infuse `flow[k]` is the displacement of the content from frame k-1 to frame k, seen at frame k: x to the
right, y down, in pixels of the frame; frame 0 has none. What was at p - flow[k](p) is now at p.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from infuse.errors import CapacityError, RecipeError
from infuse.media.films import Film
from infuse.media.pictures import px
from infuse.media.video_reader import decoded, pyav, stream

if TYPE_CHECKING:
    from jaxtyping import Float

EXPORT = {"flags2": "+export_mvs"}
INTRA = 12
"""MPEG-4 frames from one that is whole to the next, ffmpeg's own: such a frame has no motion."""
BITS = 200_000
"""Bits per second of the re-encoded film, ffmpeg's own: as VideoComposer's training clips were made."""
SMALLEST_FLOW, LARGEST_CODED = 12, 8191
"""Pixels a side: what optical flow needs, and what MPEG-4 can hold."""


def codec_motion(
    film: Film,
    count: int,
    fps: float | None = None,
    size: tuple[int, int] | None = None,
    recode: bool | None = None,
) -> tuple[Float[np.ndarray, "f 2 h w"], tuple[str, ...]]:
    """The sparse map of a codec's motion vectors for the frames that `film.take(count, fps, size)` takes, and notes.

    recode: True encodes those frames as MPEG-4 in memory and reads the vectors of that, as VideoComposer always does;
    False reads the vectors that are in the file; None prefers those where they are of use: the frames are consecutive,
    upright and in their own size, and each vector spans one frame (MPEG-1, -2 and -4 without B-frames). H.264 and later
    codecs look several frames away and do not say how many, so their films are always encoded again.
    A still has no motion. Frames that are coded whole (I) have none, either.
    Raises RecipeError (the letters of Film; vectors asked for with recode=False that are not there) or CapacityError
    (more than 8191 px a side, which MPEG-4 does not know).
    """
    places, notes = film.plan(count, fps, size)
    if not recode:
        found = None if size not in (None, film.size) or not may_tell(film, places) else _own_vectors(film, places)
        if found is not None:
            return found, notes
        if recode is False:
            raise RecipeError(
                "",
                f"{film} has no motion vectors for the frames that are taken. Let it be encoded again (recode: true), take "
                "consecutive frames, or measure with optical flow.",
            )
    encodable(film, size)
    clip = film.take(count, fps, size)
    if film.reader.still:
        return np.zeros((count, 2, *clip.frames[0].size[::-1]), np.float32), clip.notes
    note = (
        () if recode else (f"{film} brings no motion vectors for these frames; they were encoded as MPEG-4 for them",)
    )
    return recoded_motion(clip.frames), (*clip.notes, *note)


def may_tell(film: Film, places: Sequence[int]) -> bool:
    """Whether, by its headers, a film's own vectors lie between these frames."""
    return film.reader.chained and tuple(places) == tuple(range(places[0], places[0] + len(places)))


def encodable(film: Film, size: tuple[int, int] | None = None) -> None:
    """Raises CapacityError if frames are too large for MPEG-4."""
    if max(shown := size or film.size) > LARGEST_CODED and not film.reader.still:
        raise CapacityError("", f"{film} is {px(shown)}, and MPEG-4, from which motion vectors are read, ends at {LARGEST_CODED} px a side. "
                                "Scale it down, or measure with optical flow.")  # fmt: skip


def recoded_motion(frames: Sequence[Any]) -> Float[np.ndarray, "f 2 h w"]:
    """The sparse map of the motion vectors that MPEG-4 finds between PIL images of one size, encoded in memory."""
    av = pyav("reading motion vectors")
    width, height = frames[0].size
    to, back = av.CodecContext.create("mpeg4", "w"), av.CodecContext.create("mpeg4", "r")
    to.width, to.height, to.pix_fmt, to.time_base = width, height, "yuv420p", Fraction(1, 4)
    to.gop_size, to.bit_rate, back.options = INTRA, BITS, EXPORT
    seen = []
    for k, frame in enumerate([*frames, None]):
        shown = None if frame is None else av.VideoFrame.from_image(frame.convert("RGB"))
        if shown is not None:
            shown.pts = k
        for packet in to.encode(shown):
            seen += back.decode(packet)
    seen += back.decode(None)
    return np.stack([motion_map(_rows(f), height, width) for f in seen]).transpose(0, 3, 1, 2)


def motion_map(rows: Any, height: int, width: int) -> Float[np.ndarray, "h w 2"]:
    """One codec frame's vectors as a sparse map: each at the centre of its block, zero elsewhere; later rows win.

    `rows` is PyAV's structured array, or numbers in columns: source, w, h, src_x, src_y, dst_x, dst_y, motion_x,
    motion_y, motion_scale. A codec says where a block came from (source -1: earlier) or comes again (+1: later), as
    source position minus own position; times the sign of `source` that is how the content moves forward in time:
    infuse's convention as it stands. (VideoComposer@5c14d4f tools/videocomposer/datasets.py)
    """
    field = np.zeros((height, width, 2), np.float32)
    if not len(rows):
        return field
    if rows.dtype.names:
        rows = np.stack([rows[n].astype(np.float64) for n in COLUMNS], -1)
    rows = np.asarray(rows, np.float64)
    x, y = rows[:, 5].clip(0, width - 1).astype(int), rows[:, 6].clip(0, height - 1).astype(int)
    field[y, x] = rows[:, :1] * rows[:, 7:9] / rows[:, 9:]
    return field


COLUMNS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")


def optical_flow(frames: Sequence[Any]) -> Float[np.ndarray, "f 2 h w"]:
    """Dense flow between PIL images of one size, by OpenCV's DIS (Kroeger et al. 2016), medium preset.

    Raises RecipeError for frames of less than 12 px a side.
    """
    import cv2

    width, height = frames[0].size
    if min(width, height) < SMALLEST_FLOW:
        raise RecipeError(
            "", f"optical flow sees nothing in {width} x {height} px. Give frames of {SMALLEST_FLOW} px or more."
        )
    eye: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    grey = [np.asarray(f.convert("L")) for f in frames]
    out = np.zeros((len(grey), 2, height, width), np.float32)
    for k in range(1, len(grey)):
        # asked backwards, it answers at the later frame's pixels where they were before: minus the displacement
        out[k] = -np.moveaxis(eye.calc(grey[k], grey[k - 1], None), -1, 0)
    return out


def fitted_motion(
    flow: Float[np.ndarray, "f 2 h w"], height: int, width: int, scaled: bool = False
) -> Float[np.ndarray, "f 2 height width"]:
    """The field on another canvas: resized (bilinear, no smoothing) until it covers it, then cut around the centre.

    scaled: arrows grow and shrink with the picture. Not so by default: VideoComposer was trained on vectors in pixels of
    the source film, whatever its size.
    """
    import cv2

    h, w = flow.shape[2:]
    ratio = max(height / h, width / w)
    # the side that fits is exact, the other is rounded down, as torchvision does
    high = height * w >= width * h
    tall, wide = (height, w * height // h) if high else (h * width // w, width)
    top, left = round((tall - height) / 2), round((wide - width) / 2)
    out = np.zeros((len(flow), 2, height, width), np.float32)
    for k, field in enumerate(flow):
        big = cv2.resize(np.moveaxis(field, 0, -1).astype(np.float32), (wide, tall), interpolation=cv2.INTER_LINEAR)
        out[k] = np.moveaxis(big[top : top + height, left : left + width], -1, 0)
    return out * ratio if scaled else out


def sparse_motion(flow: Float[np.ndarray, "f 2 h w"], every: int = 16) -> Float[np.ndarray, "f 2 h w"]:
    """A dense field as a codec would tell it: one vector at the centre of each block, zero elsewhere."""
    out, at = np.zeros_like(flow), slice(every // 2, None, every)
    out[:, :, at, at] = flow[:, :, at, at]
    return out


def videocomposer_fps(seconds: float, count: int = 16) -> float:
    """The rate at which VideoComposer samples a film: 4 frames per second, more if that would not give `count`."""
    return 4.0 if seconds * 4 > count else float(int(count / seconds) + 1)


def _own_vectors(film: Film, places: Sequence[int]) -> Float[np.ndarray, "f 2 h w"] | None:
    """The vectors in the file for a run of frames; None if it tells none, or they are not between these frames."""
    first, (width, height) = places[0], film.size
    told, out = False, []
    av = pyav("reading motion vectors")
    with suppress(av.error.FFmpegError), stream(str(film), film.data, **EXPORT) as (container, video):
        for frame in itertools.islice(decoded(container, video), first, first + len(places)):
            rows, kinds = _rows(frame), av.video.frame.PictureType
            plain = frame.pict_type == kinds.I or (frame.pict_type == kinds.P and len(rows))
            if (frame.width, frame.height) != (width, height) or frame.rotation or frame.interlaced_frame or not plain:
                return None
            told |= len(rows) > 0
            out.append(motion_map(rows, height, width))
    if not told or len(out) < len(places):
        return None
    out[0] = np.zeros_like(out[0])  # its vectors point out of the clip
    return np.stack(out).transpose(0, 3, 1, 2)


def _rows(frame: Any) -> Any:
    found = frame.side_data.get("MOTION_VECTORS")
    return [] if found is None else found.to_ndarray()

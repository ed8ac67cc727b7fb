"""Small films for tests: a texture that drifts, in whatever container is asked for, whole and damaged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infuse.media.films import Film
from infuse.validation import Strict


class Asking(Strict):
    """Stands for a condition with a film."""

    video: Film | None = None


@cache
def texture(height: int = 240, width: int = 480) -> np.ndarray:
    """Smooth grey blotches of about 6 px."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (height // 6, width // 6), dtype=np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC).convert("RGB"))


def drifting(count: int, dx: int = 3, dy: int = 0, size: tuple[int, int] = (128, 96)) -> list[Image.Image]:
    """Frames in which the content moves by dx to the right and dy down from each to the next."""
    w, h = size
    big = texture()
    corners = [(60 - dy * k, 200 - dx * k) for k in range(count)]
    return [Image.fromarray(big[y : y + h, x : x + w].copy()) for y, x in corners]


def video(
    path: Path,
    frames: Sequence[Image.Image],
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    moov_first: bool = False,
    aspect: int = 1,
    rate: int = 8,
    **options: str,
) -> Path:
    """A video of `rate` frames per second, or with each frame at its own time (s); `options` are the encoder's."""
    import av

    with av.open(str(path), "w", options={"movflags": "+faststart"} if moov_first else {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *frames[0].size, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        for k, image in enumerate(frames):
            frame: Any = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = round(1000 * (k / rate if times is None else times[k])), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16_000)
        frame: Any = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def on_its_side(path: Path, to: Path) -> Path:
    """The same MP4, marked as a phone marks a portrait: to be shown turned clockwise."""
    return shown_as(path, to, (0, 1, -1, 0))


def shown_as(path: Path, to: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The same MP4 with a display matrix (a, b, c, d): (x, y) is to be shown at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = (v << 16 for v in matrix)
    turn = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in turn)
    to.write_bytes(content)
    return to


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def folder(path: Path, frames: Sequence[Image.Image], name: str = "{}.png") -> Path:
    path.mkdir()
    for k, frame in enumerate(frames):
        frame.save(path / name.format(k))
    return path


def usual(at: Path, frames: Sequence[Image.Image]) -> bytes:
    """Films that many tests need, whole and cut short, in a folder; returns the bytes of one with its index in front."""
    video(at / "clip.mp4", frames)
    video(at / "three.mp4", frames[:3])
    sound(at / "sound.m4a")
    whole, first = (at / "clip.mp4").read_bytes(), video(at / "first.mp4", frames, moov_first=True).read_bytes()
    (at / "unfinished.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (at / "words.mp4").write_bytes(b"hello world\n" * 50)
    return first


def apart(a: Any, b: Any) -> float:
    """Mean difference of two pictures in levels of 255."""
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).mean())

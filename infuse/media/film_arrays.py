"""Frames that are given as they are (arrays, tensors, images) become a data URI: a zip of lossless WebP, which is exact,
smaller than PNG, the same bytes each time, and read like a folder of frames.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.media.arrays import channels_last, eight_bits, from_numbers, numbers, read
from infuse.media.pictures import Picture
from infuse.media.settle import seen, upright


def source_of(value: Any) -> str:
    """The path (seen from the recipe's folder) or data URI of whatever stands for a film."""
    if isinstance(value, str | Path):
        if not str(value).strip():
            raise ValueError("an empty path names no film; give a path, a data URI, or frames")
        return Picture.of(value).source
    try:
        frames = _frames(read(value))
    except (ValueError, RecipeError):
        raise
    except Exception as error:  # numpy, torch and Pillow have many words for what they cannot turn into each other
        raise ValueError(f"{' '.join(repr(value)[:40].split())} is not a film that can be read ({error}); give a path, a data URI, an "
                         "array (f, h, w, 3) or a list of PIL images") from None  # fmt: skip
    return (
        frames
        if isinstance(frames, str)
        else data_uri(zipped({f"{i:04}.webp": f for i, f in enumerate(frames)}), "application/zip")
    )


def _frames(value: Any) -> list[bytes] | str:
    """Lossless WebP frames of a sequence: exact, and smaller than PNG. A single picture is the URI of a PNG."""
    import numpy as np
    from PIL import Image

    what = "give a path, a data URI, an array (f, h, w, 3), a tensor (f, c, h, w), or a list of PIL images, arrays or tensors"
    if isinstance(value, Picture | Image.Image | bytes | bytearray | memoryview):
        return Picture.of(value).source if not isinstance(value, bytes | bytearray | memoryview) else _bytes(value)
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(f, Image.Image | np.ndarray) or hasattr(f, "detach") for f in value):
            raise ValueError(f"{repr(value)[:40]} is not a film; {what}")
        frames = [upright(f)[0] if isinstance(f, Image.Image) else from_numbers(f) for f in value]
        if len(sizes := {f.size for f in frames}) > 1:
            raise ValueError(f"the frames have several sizes ({', '.join(f'{w} x {h}' for w, h in sorted(sizes))} px)")
        return [_webp(f) for f in frames]
    is_tensor = hasattr(value, "detach")
    if not is_tensor and not isinstance(value, np.ndarray):
        raise ValueError(f"{repr(value)[:40]} is not a film; {what}")
    if not all(value.shape):
        raise ValueError(f"an array of shape {tuple(value.shape)} holds no frame; {what}")
    if value.ndim == 2 or value.ndim == 3 and _is_picture(value.shape, is_tensor):
        return Picture.of(value).source
    if value.ndim not in (3, 4) or value.ndim == 4 and not {value.shape[-1], value.shape[1]} & {1, 3, 4}:
        raise ValueError(f"an array of shape {tuple(value.shape)} is no film; {what}")
    whole = eight_bits(numbers(value))  # one range for all frames
    return [_webp(Image.fromarray(np.ascontiguousarray(channels_last(f, is_tensor, "frame")))) for f in whole]


def _is_picture(shape: Sequence[int], is_tensor: bool) -> bool:
    """Whether three axes are one picture with channels, wherever they come, rather than grey frames (f, h, w); four in front
    are frames."""
    return shape[0] in (1, 3) or not is_tensor and shape[-1] in (1, 3, 4)


def _bytes(content: bytes | bytearray | memoryview) -> str:
    return data_uri(bytes(content), "application/octet-stream")


def _webp(image: Any) -> bytes:
    """A frame, its alpha and its colour profile kept for whoever looks at it."""
    buffer, icc = io.BytesIO(), image.info.get("icc_profile", b"")
    if image.mode not in ("RGB", "RGBA"):
        if image.has_transparency_data:
            image = image.convert("RGBA")
        else:
            image, icc = seen(image, "a frame")[0], b""
    image.save(buffer, "WEBP", lossless=True, exact=True, quality=30, method=1, icc_profile=icc)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """The same files give the same bytes: no dates, no compression of what is compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


ENDINGS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".gif")
"""Names that end in one of these are films, where a picture would do as well."""


def is_film(value: Any) -> bool:
    """Does a value that may be a picture or a film say that it is a film: by its type, its name, or its four axes?"""
    if isinstance(value, list | tuple) or hasattr(value, "reverse"):
        return True
    if isinstance(value, str | Path):
        return str(value).lower().endswith(ENDINGS) or str(value).startswith(("data:video/", "data:application/zip"))
    return isinstance(value, dict) and "source" in value or getattr(value, "ndim", 0) == 4

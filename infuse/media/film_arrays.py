"""Frames that are given as they are (arrays, tensors, images) become a data URI: a zip of lossless WebP, which is exact,
smaller than PNG, the same bytes each time, and read like a folder of frames.
"""

from __future__ import annotations

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

from infuse.media.pictures import Picture, flat


def source_of(value: Any) -> str:
    """The path (seen from the recipe's folder) or data URI of whatever stands for a film."""
    if isinstance(value, str | Path):
        if not str(value).strip():
            raise ValueError("an empty path names no film; give a path, a data URI, or frames")
        return Picture.of(value).source
    frames = _frames(value)
    return (
        frames
        if isinstance(frames, str)
        else data_uri(zipped({f"{i:04}.webp": f for i, f in enumerate(frames)}), "application/zip")
    )


def _frames(value: Any) -> list[bytes] | str:
    """Lossless WebP frames of a sequence: exact, and smaller than PNG. A single picture is the URI of a PNG."""
    import numpy as np
    from PIL import Image

    what = "give a path, a data URI, an array (f, h, w, 3), a tensor (f, c, h, w) or a list of PIL images"
    if isinstance(value, Picture | Image.Image):
        return Picture.of(value).source
    if isinstance(value, list | tuple):
        if not value or not all(isinstance(f, Image.Image) for f in value):
            raise ValueError(f"{repr(value)[:40]} is not a film; {what}")
        if len(sizes := {f.size for f in value}) > 1:
            raise ValueError(f"the frames have several sizes ({', '.join(f'{w} x {h}' for w, h in sorted(sizes))} px)")
        return [_webp(f) for f in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
        value = np.moveaxis(value, -3, -1) if value.ndim in (3, 4) else value
    if isinstance(value, np.ndarray) and value.ndim == 2:  # a mask
        return Picture.of(value).source
    if not isinstance(value, np.ndarray) or value.ndim not in (3, 4) or value.shape[-1] not in (1, 3, 4):
        raise ValueError(f"{repr(value)[:40]} is not a film; {what}")
    if not value.size:
        raise ValueError(f"an array of shape {value.shape} holds no frame; {what}")
    if value.dtype != np.uint8:
        if value.dtype.kind != "f" or not np.isfinite(value).all() or value.min() < 0 or value.max() > 1:
            raise ValueError("an array must hold uint8, or finite floats from 0 to 1")
        value = (value * 255).round().astype(np.uint8)
    if value.ndim == 3:
        return Picture.of(value).source
    return [_webp(Image.fromarray(np.squeeze(f, -1) if f.shape[-1] == 1 else f)) for f in value]


def _webp(image: Any) -> bytes:
    buffer = io.BytesIO()
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA") if image.has_transparency_data else flat(image, "a frame")
    image.save(buffer, "WEBP", lossless=True, exact=True, quality=30, method=1)
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

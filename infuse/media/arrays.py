"""Arrays and tensors as pictures: whatever their axes and numbers are, channels come last and black is 0, white 255."""

from __future__ import annotations

import io
from typing import Any


def from_numbers(value: Any) -> Any:
    """A PIL image of an array or tensor; see `Picture.of`. Raises ValueError that tells the accepted shapes and ranges."""
    import numpy as np
    from PIL import Image

    is_tensor, value = hasattr(value, "detach"), numbers(value)
    if not isinstance(value, np.ndarray):
        raise ValueError(
            f"{repr(value)[:40]} is not a picture; give a path, a data URI, a PIL image or an array (h, w, 3)"
        )
    return Image.fromarray(eight_bits(channels_last(value, is_tensor, "picture")))


def read(value: Any) -> Any:
    """The bytes of an open file, from its beginning; anything else as it is. Raises ValueError for an open file of text."""
    if not callable(getattr(value, "read", None)):
        return value
    if callable(getattr(value, "seek", None)):
        value.seek(0)
    content = value.read()
    if not isinstance(content, bytes):
        raise ValueError("an open file must give bytes; open it with mode rb")
    return content


def numbers(value: Any) -> Any:
    """A tensor as an array; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach()
    if str(value.device) == "meta":
        raise ValueError(
            f"a tensor of shape {tuple(value.shape)} on the device meta holds no numbers; give one that does"
        )
    value = (value.to_dense() if value.is_sparse else value).cpu()
    return (value.float() if value.is_floating_point() else value).numpy()


def channels_last(value: Any, first: bool, what: str) -> Any:
    """An array (h, w) or (h, w, c) of one in either order of axes. first: channels come first where both could be."""
    import numpy as np

    shape = value.shape
    if value.ndim == 2:
        return value
    if value.ndim == 3 and all(shape):
        ahead, behind = shape[0] in (1, 3, 4), shape[-1] in (1, 2, 3, 4)
        if ahead and (first or not behind):
            value, behind = np.moveaxis(value, 0, -1), True
        if behind:
            return value[..., 0] if value.shape[-1] == 1 else value
    order = "(c, h, w)" if first else "(h, w, c)"
    raise ValueError(f"an array of shape {shape} is no {what}; give (h, w) or {order} with 1, 3 or 4 channels")


def eight_bits(value: Any) -> Any:
    """uint8 of booleans, uint8, uint16 (divided by 257) or other integers from 0 to 255, or floats from 0 to 1.

    Raises ValueError for other numbers.
    """
    import numpy as np

    if value.dtype == np.uint8:
        return np.ascontiguousarray(value)
    if value.dtype == bool:
        return value.astype(np.uint8) * 255
    if value.dtype == np.uint16:
        if value.size and 0 < value.max() <= 255:
            raise ValueError(f"an array of uint16 reaches from 0 to 65535, and this one {value.max()} only: next to black. Give these "
                             "numbers as uint8")  # fmt: skip
        return (value // 257).astype(np.uint8)
    if value.dtype.kind not in "iuf":
        raise ValueError(f"an array of {value.dtype} holds no shades; give uint8, uint16, or floats from 0 to 1")
    low, high = (value.min(), value.max()) if value.size else (0, 0)
    if value.dtype.kind in "iu" and low >= 0 and high <= 255:
        return value.astype(np.uint8)
    if value.dtype.kind == "f" and np.isfinite(value).all() and low >= 0 and high <= 1:
        return (value * 255).round().astype(np.uint8)
    of = "a float array" if value.dtype.kind == "f" else f"an array of {value.dtype}"
    rule = "finite floats from 0 to 1" if value.dtype.kind == "f" else "uint8, uint16, or floats from 0 to 1"
    hint = (
        ", not from -1 to 1: add 1 and halve it"
        if value.dtype.kind == "f" and low >= -1 and low < 0 and high <= 1
        else ""
    )
    raise ValueError(f"{of} must hold {rule}{hint}; this one holds {low:g} to {high:g}")


EXIF_ORIENTATION = 0x0112
NEAR = {"PA": "RGBA", "RGBa": "RGBA", "La": "LA", "HSV": "RGB", "I;16N": "I"}
"""Modes that neither PNG nor TIFF holds -> the nearest that one of them does."""


def plain(image: Any) -> bool:
    """Is this PIL image nothing but pixels that a PNG holds as they are?"""
    told = {"icc_profile", "transparency", "gamma", "srgb", "chromaticity"}
    return image.mode in ("L", "RGB") and not told & set(image.info) and _orientation(image) == 1


def encoded(image: Any) -> tuple[bytes, str]:
    """(bytes, format) of a PIL image: whatever its mode is, the file holds the same numbers."""
    from PIL import Image

    kept: dict[str, Any] = {}
    if icc := image.info.get("icc_profile"):
        kept["icc_profile"] = icc
    if (turned := _orientation(image)) != 1:
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = turned
        kept["exif"] = exif
    kind = "png" if image.mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "tiff"
    if near := NEAR.get(image.mode):
        image, kind = image.convert(near), "tiff" if near == "I" else "png"
    buffer = io.BytesIO()
    if kind == "png":
        kept["compress_level"] = 1  # four times as fast as the usual 6, for some more bytes
    image.save(buffer, kind.upper(), **kept)
    return buffer.getvalue(), kind


def _orientation(image: Any) -> int:
    try:
        turned = image.getexif().get(EXIF_ORIENTATION, 1)
        return turned if turned in range(2, 9) else 1
    except Exception:
        return 1

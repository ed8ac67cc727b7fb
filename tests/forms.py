"""The forms in which people bring one picture, and one mask: files, objects and numbers, each with what it looks like."""

from __future__ import annotations

import base64
import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

SIZE = (40, 24)


def plain() -> Image.Image:
    """Smooth colours, no two corners alike, so that no way of turning it looks like another."""
    w, h = SIZE
    y, x = np.mgrid[:h, :w]
    pixels = np.stack([60 + 4 * x, 40 + 7 * y, 200 - 2 * x - 3 * y], -1)
    return Image.fromarray(pixels.astype(np.uint8))


def grey() -> Image.Image:
    return plain().convert("L")


def blob() -> np.ndarray:
    """A hole: an odd box and a wire."""
    white = np.zeros(SIZE[::-1], bool)
    white[5:14, 9:31] = True
    white[20, 3:38] = True
    return white


@dataclass(frozen=True)
class Form:
    make: Callable[[Path], Any]
    """A folder -> what a user gives."""
    loss: float = 0
    """How far its pixels may be from `like`'s, on average, of 255."""
    like: Callable[[], Image.Image] = plain


def saved(image: Image.Image, name: str, **how: Any) -> Callable[[Path], Path]:
    def make(at: Path) -> Path:
        image.save(at / name, **how)
        return at / name

    return make


TURNS = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
         5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270}  # fmt: skip
"""How a camera that wrote this orientation had stored the picture."""


def exif(turned: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = turned
    found[0x010F] = "A camera"
    return found


def stored(turned: int) -> Image.Image:
    return plain().transpose(TURNS[turned]) if turned in TURNS else plain()


def held(turned: int, mode: str = "RGB") -> Image.Image:
    """A PIL image whose EXIF says how it is to be held."""
    buffer = io.BytesIO()
    stored(turned).convert(mode).save(buffer, "PNG", exif=exif(turned))
    return Image.open(io.BytesIO(buffer.getvalue()))


def clear() -> Image.Image:
    """Transparent on the left, opaque on the right."""
    alpha = np.zeros(SIZE[::-1], np.uint8)
    alpha[:, SIZE[0] // 2 :] = 255
    image = plain().copy()
    image.putalpha(Image.fromarray(alpha))
    return image


def on_white(image: Callable[[], Image.Image] = clear) -> Image.Image:
    one = image().convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", one.size, "white"), one).convert("RGB")


def transparent_palette() -> Image.Image:
    image = plain().quantize(64)
    image.info["transparency"] = image.getpixel((0, 0))
    return image


def p3() -> bytes:
    """Display P3 as an ICC profile (version 2): its primaries adapted to D50, and sRGB's curve as a table."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    def xyz(*values: float) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))

    levels = np.arange(1024) / 1023
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 1024) + np.round(linear * 65535).astype(">u2").tobytes()
    name = b"Display P3\0"
    description = b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name + bytes(78)
    tags = {
        b"desc": description, b"cprt": b"text\0\0\0\0none\0", b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.51512, 0.2412, -0.00105), b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.1571, 0.06657, 0.78407), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve,
    }  # fmt: skip
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for tag, data in tags.items():
        data += bytes(-len(data) % 4)
        table += tag + struct.pack(">II", at + len(body), len(data))
        body += data
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + fixed(0.9642) + fixed(1) + fixed(0.8249)
    return head + bytes(128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def in_p3() -> Image.Image:
    """The picture's colours, written in numbers of Display P3."""
    from PIL import ImageCms

    wide = ImageCms.ImageCmsProfile(io.BytesIO(p3()))
    out = ImageCms.profileToProfile(plain(), ImageCms.createProfile("sRGB"), wide, outputMode="RGB")
    assert out is not None
    return out


def pixels() -> np.ndarray:
    return np.asarray(plain())


def uri(_: Path) -> str:
    buffer = io.BytesIO()
    plain().save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


PICTURES: Mapping[str, Form] = {
    "png": Form(saved(plain(), "a.png")),
    "jpeg": Form(saved(plain(), "a.jpg", quality=95, subsampling=0), 2),
    "webp": Form(saved(plain(), "a.webp", lossless=True)),
    "bmp": Form(saved(plain(), "a.bmp")),
    "tiff": Form(saved(plain(), "a.tiff")),
    "an object": Form(lambda at: plain()),
    "bytes": Form(lambda at: saved(plain(), "a.png")(at).read_bytes()),
    "a data URI": Form(uri),
    **{f"EXIF {n}": Form(saved(stored(n), f"{n}.png", exif=exif(n))) for n in range(1, 9)},
    **{f"EXIF {n} in a JPEG": Form(saved(stored(n), f"{n}.jpg", exif=exif(n), quality=95, subsampling=0), 2) for n in (5, 6, 8)},
    **{f"an object of EXIF {n}": Form(lambda at, n=n: held(n)) for n in (2, 6, 7)},
    "an object of EXIF 6, transparent": Form(lambda at: held(6, "RGBA")),
    "RGBA, opaque": Form(saved(plain().convert("RGBA"), "a.png")),
    "RGBA": Form(saved(clear(), "a.png"), like=on_white),
    "RGBA in a WebP": Form(saved(clear(), "a.webp", lossless=True), like=on_white),
    "an object in RGBA": Form(lambda at: clear(), like=on_white),
    "an array in RGBA": Form(lambda at: np.asarray(clear()), like=on_white),
    "LA": Form(saved(clear().convert("LA"), "a.png"), 1, lambda: on_white(lambda: clear().convert("LA"))),
    "a palette": Form(saved(plain().quantize(256), "a.png"), 6),
    "a palette with transparency": Form(saved(transparent_palette(), "a.png"), 1, lambda: on_white(transparent_palette)),
    "a GIF": Form(saved(plain().quantize(256), "a.gif"), 6),
    "grey": Form(saved(grey(), "a.png"), like=grey),
    "16 bits, grey": Form(saved(Image.fromarray(np.asarray(grey()).astype(np.uint16) * 257), "a.png"), like=grey),
    "16 bits, an array": Form(lambda at: pixels().astype(np.uint16) * 257),
    "floats, a TIFF": Form(saved(Image.fromarray(np.asarray(grey()).astype(np.float32) / 255), "a.tiff"), like=grey),
    "CMYK": Form(saved(plain().convert("CMYK"), "a.tiff"), 1),
    "CMYK in a JPEG": Form(saved(plain().convert("CMYK"), "a.jpg", quality=95), 4),
    "an object in CMYK": Form(lambda at: plain().convert("CMYK"), 1),
    "Display P3": Form(saved(in_p3(), "a.png", icc_profile=p3()), 1.5),
    "an array": Form(lambda at: pixels()),
    "a float array": Form(lambda at: pixels() / 255),
    "channels first": Form(lambda at: np.moveaxis(pixels(), -1, 0)),
    "a uint8 tensor": Form(lambda at: torch.from_numpy(pixels().copy()).permute(2, 0, 1)),
    "a float tensor": Form(lambda at: torch.from_numpy(pixels() / 255).permute(2, 0, 1)),
    "grey with an axis": Form(lambda at: np.asarray(grey())[None], like=grey),
}  # fmt: skip


def white(mode: str = "L") -> Image.Image:
    return Image.fromarray(blob().astype(np.uint8) * 255).convert(mode)


def in_alpha(colour: tuple[int, int, int] = (255, 255, 255), mode: str = "RGBA") -> Image.Image:
    """Drawn with a brush on a transparent sheet."""
    image = Image.new("RGBA", SIZE, (*colour, 0))
    image.putalpha(white())
    return image.convert(mode)


def mask_palette(transparent: bool) -> Image.Image:
    image = Image.fromarray(blob().astype(np.uint8)).convert("P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    if transparent:
        image.info["transparency"] = 0
    return image


MASKS: Mapping[str, Callable[[Path], Any]] = {
    "grey": saved(white(), "m.png"),
    "1 bit": saved(white("1"), "m.png"),
    "RGB": saved(white("RGB"), "m.png"),
    "RGBA, opaque": saved(white("RGBA"), "m.png"),
    "drawn in alpha": saved(in_alpha(), "m.png"),
    "drawn in alpha, a WebP": saved(in_alpha(), "m.webp", lossless=True, exact=True),
    "drawn in alpha, black": lambda at: in_alpha((0, 0, 0)),
    "LA": saved(in_alpha(mode="LA"), "m.png"),
    "a palette": saved(mask_palette(False), "m.png"),
    "a palette with transparency": saved(mask_palette(True), "m.png"),
    "16 bits": saved(Image.fromarray(blob().astype(np.uint16) * 65535), "m.png"),
    "booleans": lambda at: blob(),
    "(1, h, w)": lambda at: blob()[None].astype(np.uint8) * 255,
    "(3, h, w)": lambda at: np.repeat(blob()[None].astype(np.uint8) * 255, 3, 0),
    "(h, w, 1)": lambda at: blob()[..., None].astype(np.float32),
    "a tensor": lambda at: torch.from_numpy(blob()),
    "a uint8 tensor": lambda at: torch.from_numpy(blob().astype(np.uint8) * 255)[None],
    "EXIF 6": saved(white().transpose(TURNS[6]), "m.png", exif=exif(6)),
    "JPEG": saved(white(), "m.jpg", quality=95),
}

"""What is put into a recipe where something else was: all that a file can hold, and all that Python can hold besides."""

from __future__ import annotations

import base64
import copy
import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from infuse import Film, Recipe, Text


@cache
def clip() -> Film:
    return Film.of(np.random.default_rng(0).integers(0, 256, (4, 24, 24, 3), dtype=np.uint8))


def uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@cache
def png(mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> bytes:
    out = io.BytesIO()
    Image.new(mode, size, 1).save(out, "PNG")
    return out.getvalue()


NUMBERS = (0, 1, -1, 2, 7, 8, 9, 0.5, 1e-300, 1e300, 1e308, -1e308, 2**31, 2**63 - 1, 2**63, 2**64, 10**400, -(10**30), 8192, 8193, 100_000,
           float("nan"), float("inf"), -float("inf"), True, False)  # fmt: skip
WORDS = ("", " ", "\0", "x", "a" * 100_000, "wörd \u202e \ud7ff \U0001f600", "\ud800", "nan", "inf", "1e999", "0x10", "1_000", "[1, 2]", "{}", "null",
         "random", "512x512", "../../etc/passwd", "/dev/zero", "/etc/passwd", "~", "~nobody/x.png", ".", "/", "C:\\a.png", "x" * 300 + ".png",
         "file:///etc/passwd", "https://example.org/a.png", "sha256:" + "ab" * 32, "sha256:", "owner/name", "tabletop", "none", "auto", "%s%n{0}",
         "Euler a", "DPM++ 2M Karras", "a.mp4", "*", "con", "$(id)")  # fmt: skip
URIS = ("data:", "data:,", "data:;base64,", "data:image/png;base64,@@@", "data:image/png;base64,aGVsbG8", "data:image/png;base64,aGVsbG8=", "data:video/mp4;base64,aGVsbG8=",
        "data:application/zip;base64,UEsDBA==", uri(b""), uri(png()[:40]), uri(png() + b"x" * 999), uri(png(size=(1, 1))), uri(png(size=(8, 2000))),
        uri(png(size=(600, 400))), uri(png("1")), uri(png("I;16")), uri(png(), "video/mp4"))  # fmt: skip
NAMES = ("kind", "model", "image", "mask", "film", "weight", "start", "end", "fit", "seed", "steps", "width", "height", "frames", "count", "guidance",
         "scheduler", "strength", "annotator", "source", "fps", "short", "task", "conditions", "background", "applies_to", "prompt", "size", "cfg",
         "wieght", "", " ", "\0", "__class__", "model_fields", "self", "_reading", "a.b", "0")  # fmt: skip


def plain_things() -> list[Callable[[random.Random], Any]]:
    """What a file can hold."""
    return [
        lambda c: c.choice(NUMBERS), lambda c: c.choice(NUMBERS), lambda c: c.choice(WORDS), lambda c: c.choice(URIS), lambda c: None,
        lambda c: [], lambda c: {}, lambda c: [c.choice(NUMBERS) for _ in range(c.randrange(1, 5))], lambda c: [c.choice(WORDS)] * c.randrange(1, 70),
        lambda c: {c.choice(NAMES): c.choice(NUMBERS + WORDS)}, lambda c: {str(c.choice(NUMBERS)): c.choice(NUMBERS)},
        lambda c: deep(c.randrange(1, 60), c), lambda c: {"source": c.choice(URIS + WORDS), "fps": c.choice(NUMBERS)},
        lambda c: [{"kind": c.choice(("text", "size", "motion", "nothing"))}] * c.randrange(1, 30), lambda c: {f"{i / 2000}": 1.0 for i in range(2000)},
    ]  # fmt: skip


def deep(levels: int, chance: random.Random) -> Any:
    out: Any = 1
    for _ in range(levels):
        out = [out] if chance.random() < 0.5 else {"conditions": out}
    return out


DTYPES = ("u1", "i1", "u2", ">u2", "i4", "u8", "i8", "f2", "f4", ">f4", "f8", "g", "c8", "?", "O", "U3", "S3", "M8[s]", "m8[s]", "V4", [("r", "u1"), ("g", "u1")])  # fmt: skip
SHAPES = ((), (0,), (16,), (16, 16), (0, 0), (16, 0, 3), (16, 16, 0), (16, 16, 1), (16, 16, 2), (16, 16, 3), (16, 16, 4), (16, 16, 5), (1, 16, 16), (3, 16, 16),
          (1, 1, 3), (4, 16, 16, 3), (4, 3, 16, 16), (4, 16, 16), (0, 16, 16, 3), (1, 1, 1, 1, 1), (3, 3, 3), (1, 1), (2, 5000), (4, 16, 16, 7))  # fmt: skip
MODES = ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX", "RGBa", "La", "I;16", "I;16B", "I;16L", "I;16N")  # fmt: skip


def array(chance: random.Random) -> Any:
    shape, dtype = chance.choice(SHAPES), np.dtype(chance.choice(DTYPES))
    out = np.zeros(shape, dtype)
    if dtype.kind in "uifc?" and out.size:
        with np.errstate(all="ignore"):
            out[...] = np.array(
                chance.choice((0, 1, 0.5, 255, 256, 65535, -1, float("nan"), float("inf"), 1e30))
            ).astype(dtype)
    match chance.randrange(8):
        case 0:
            out = out[..., ::-1] if out.ndim else out
        case 1:
            out = out.T
        case 2:
            out.flags.writeable = False
        case 3:
            out = np.ma.masked_array(out, mask=out.dtype.names is None and np.ones(shape, bool))
        case 4:
            out = np.broadcast_to(out, (*([4] if out.ndim < 4 else []), *out.shape))
    return out


TENSORS: dict[str, Callable[[], Any]] = {
    "bfloat16": lambda: torch.zeros(3, 16, 16, dtype=torch.bfloat16), "float8": lambda: torch.zeros(3, 16, 16, dtype=torch.float8_e4m3fn),
    "wanting gradients": lambda: torch.zeros(3, 16, 16, requires_grad=True), "complex": lambda: torch.zeros(3, 16, 16, dtype=torch.complex64),
    "on no device": lambda: torch.zeros(3, 16, 16, device="meta"), "sparse": lambda: torch.zeros(16, 16).to_sparse(), "empty": lambda: torch.zeros(0),
    "conjugate": lambda: torch.zeros(16, 16, dtype=torch.complex64).conj(), "one number": lambda: torch.tensor(1.0), "booleans": lambda: torch.ones(16, 16, dtype=torch.bool),
    "a batch of one": lambda: torch.zeros(1, 3, 16, 16), "expanded": lambda: torch.zeros(1, 1, 1).expand(3, 16, 16), "NaN": lambda: torch.full((3, 16, 16), float("nan")),
    "a clip": lambda: torch.zeros(4, 3, 16, 16), "a parameter": lambda: torch.nn.Parameter(torch.zeros(3, 16, 16)), "negative": lambda: torch.full((3, 16, 16), -1.0),
}  # fmt: skip


def image(chance: random.Random) -> Any:
    size = chance.choice(((16, 16), (16, 16), (0, 0), (1, 1), (16, 0), (7, 300), (600, 400)))
    out = Image.new(chance.choice(MODES), size)
    match chance.randrange(8):
        case 0:
            out.info["icc_profile"] = chance.choice((b"", b"nonsense", "words", 5))
        case 1:
            out.info["transparency"] = chance.choice((0, 300, b"", b"\0\1", (1, 2, 3), "x"))
        case 2:
            out.info["exif"] = chance.choice((b"", b"Exif\0\0II*\0\xff\xff\xff\xff", "words"))
        case 3:
            out.close()
        case 4:
            out.getexif()[0x0112] = chance.choice((1, 6, 9, -1, "x", 10**9))
        case 5:
            out = Image.open(io.BytesIO(png()[: len(png()) - chance.randrange(1, 24)]))  # lazy, and cut short
    return out


def odd_things() -> list[Callable[[random.Random], Any]]:
    """What Python can hold besides."""
    return [
        array, array, array, image, image, lambda c: TENSORS[c.choice(list(TENSORS))](), lambda c: c.choice((b"", b"x", png(), bytearray(png()), memoryview(png()))),
        lambda c: [image(c) for _ in range(4)], lambda c: [array(c)] * 3, lambda c: (1, "x", None), lambda c: {1, 2}, lambda c: object(), lambda c: 1j, lambda c: len,
        lambda c: Path(c.choice(WORDS)), lambda c: np.float64(c.choice(NUMBERS[:16])), lambda c: np.int64(3), lambda c: np.bool_(True), lambda c: np.str_("x"), lambda c: {1: 2, None: 3},
        lambda c: {0.5: array(c)}, lambda c: iter([1]), lambda c: Recipe, lambda c: Recipe(prompt="x"), lambda c: clip(), lambda c: Text(prompt="x"), lambda c: range(3),
    ]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(p for k, v in inside for p in places(v, (*path, k)))]


def bent(recipe: dict[str, Any], chance: random.Random, things: list[Callable[[random.Random], Any]]) -> dict[str, Any]:
    """The same recipe with something in the place of something else, put in, left out or said twice."""
    out = copy.deepcopy(recipe)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        *way, last = chance.choice(places(out)[1:] or [("prompt",)])
        where: Any = out
        for step in way:
            where = where[step]
        thing = chance.choice(things)(chance)
        match chance.choices(range(4), (6, 1, 2, 1))[0]:
            case 0:
                where[last] = thing
            case 1:
                del where[last]
            case 2 if isinstance(where, dict):
                where[chance.choice(NAMES)] = thing
            case 3 if isinstance(where, list):
                where.extend(where * chance.choice((1, 3, 40)))
    return out

"""Photos with a camera's secrets, and results made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from infuse import Recipe
from infuse.engine.result import Result

CAMERA = ("Secret Camera", "SecretCam 9000", "Secret Person")


def noise(side: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def soft(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((side, side))


def photo(path: str, image: Image.Image | None = None, turned: int = 1, **options: Any) -> str:
    """As a phone writes it: camera, place, name of its owner."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x013B] = CAMERA
    exif[0x0112] = turned
    exif.get_ifd(0x8825)[1], exif.get_ifd(0x8825)[2] = "N", (52.0, 31.0, 12.3)
    (image or soft()).save(path, exif=exif, **options)
    return path


def result(*said: Any, **fields: Any) -> Result:
    made = {
        "resolved": {"width": 16, "height": 16, "device": "cuda:0", "dtype": "float16"},
        "weights": {"tabletop": "ab" * 32},
    }
    return Result((soft(16),), Recipe(model="tabletop", conditions=said), None, **(made | fields))

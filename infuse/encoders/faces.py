"""The face in a photo, by insightface if it is installed: the numbers of its recognition network, and a crop that is upright.

Which face: the largest, as in the webui; the original takes the detector's first, which is the same where there is one.
Nothing is fetched: insightface loads its models at its first use by itself, and until somebody has let it, a letter says how.
Sources: tencent-ailab/IP-Adapter@62e4af9 (README, ip_adapter_faceid.py); insightface's face_align.py
(GrigoryEvko/insightface@4d21fa7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import RLock
from typing import Any, Literal

import numpy as np

from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.notices import note

Detector = Literal["buffalo_l", "antelopev2"]
HOME = Path("~/.insightface/models")
"""Where insightface keeps its models."""
SIDES = (640, 576, 512, 448, 384, 320)
"""Pixels a side in which faces are looked for: a face that fills the picture is found in a smaller one (ComfyUI's ladder)."""
CROP = 224
"""Pixels a side of the upright crop, as the original's FaceID-plus sees it."""
FIVE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Where the eyes, the nose and the corners of the mouth lie in a crop of 112 pixels."""
NORM = 20.0
"""About the length of a face as the recognition network gives it."""

_one_at_a_time = RLock()


@dataclass(frozen=True, eq=False)
class Found:
    """A face in a photo."""

    numbers: tuple[float, ...]
    """As the recognition network gives them: not on the unit sphere."""
    crop: Picture
    """The face upright, for FaceID-plus."""


def missing(detector: Detector, field: str) -> None:
    """Raises RecipeError if a photo's face cannot be looked at here. Loads nothing."""
    if any(find_spec(package) is None for package in ("insightface", "onnxruntime")):
        raise RecipeError(field, "this adapter reads a face's numbers, and insightface, which makes them of a photo, is not installed: pip install insightface "
                                 "onnxruntime. Or give the numbers themselves as face: a file (.npy, .json, .safetensors) or a list of 512.")  # fmt: skip
    if not (HOME / detector).expanduser().is_dir():
        raise RecipeError(field, f"insightface is installed, and its models {detector!r} are not in {HOME / detector}. Let it fetch them once: python -c "
                                 f"\"from insightface.app import FaceAnalysis; FaceAnalysis('{detector}')\"")  # fmt: skip


def found(photo: Picture, detector: Detector, field: str) -> Found:
    """The largest face of a photo. Raises RecipeError if there is none."""
    image = photo.image
    with _one_at_a_time:  # onnxruntime may be asked by several at once, its detector's size is one for all
        faces = _looked(np.ascontiguousarray(np.asarray(image)[:, :, ::-1]), detector)  # insightface reads BGR
    if not faces:
        raise RecipeError(
            field,
            f"{photo} shows no face that insightface finds. Give a photo with a clear one, or its numbers as face.",
        )
    face = max(faces, key=lambda f: (f.bbox[2] - f.bbox[0]) * (f.bbox[3] - f.bbox[1]))
    if len(faces) > 1:
        note(f"{field}: {photo} shows {len(faces)} faces, and the largest is taken. Crop it to the one that is meant.")
    return Found(tuple(float(x) for x in face.embedding), Picture.of(upright(image, face.kps)))


def _looked(bgr: Any, detector: Detector) -> list[Any]:
    app = _app(detector)
    for side in SIDES:
        app.det_model.input_size = (side, side)
        if faces := list(app.get(bgr)):
            return faces
    return []


@cache
def _app(detector: Detector) -> Any:
    from insightface.app import FaceAnalysis  # type: ignore[import-not-found]

    app = FaceAnalysis(name=detector, providers=["CPUExecutionProvider"], allowed_modules=["detection", "recognition"])
    app.prepare(ctx_id=-1, det_size=(SIDES[0], SIDES[0]))
    return app


def upright(image: Any, five: Sequence[Sequence[float]], side: int = CROP) -> Any:
    """A PIL image of `side` pixels: the face with its five points (x, y) where the recognition network's training had them.

    A `side` that is no multiple of 112 is one of 128 in which the face lies 8 pixels further to the right. Black outside.
    """
    from PIL import Image

    ratio, shift = (side / 112, 0.0) if side % 112 == 0 else (side / 128, 8 * side / 128)
    to = np.array(FIVE) * ratio + (shift, 0.0)
    a, b, c, d, e, f = np.linalg.inv(np.vstack([similarity(np.asarray(five, np.float64), to), (0, 0, 1)]))[:2].ravel()
    # PIL counts from pixels' corners, the points from their centres
    half = (a, b, c + 0.5 - 0.5 * (a + b), d, e, f + 0.5 - 0.5 * (d + e))
    return image.convert("RGB").transform((side, side), Image.Transform.AFFINE, half, Image.Resampling.BILINEAR)


def similarity(points: Any, to: Any) -> Any:
    """(2, 3): the turn, scale and shift that bring points (n, 2) nearest to others, by least squares (Umeyama 1991)."""
    here, there = points.mean(0), to.mean(0)
    p, q = points - here, to - there
    u, s, vt = np.linalg.svd(q.T @ p / len(points))
    sign = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    turn = u @ np.diag(sign) @ vt
    scale = (s * sign).sum() / p.var(0).sum()
    return np.hstack([scale * turn, (there - scale * turn @ here)[:, None]])


def on_sphere(numbers: Sequence[float], raw: bool) -> tuple[tuple[float, ...], str]:
    """A face as an adapter was trained to read it (`raw`: InstantID and portrait unnorm; else of length 1), and what is said of it."""
    length = float(np.linalg.norm(np.asarray(numbers, np.float64)))
    if raw:
        far = length < NORM / 4
        return tuple(numbers), far * (
            f"this face has a length of {length:.3g}, and this adapter reads faces as the recognition network gives them, of a length of about "
            f"{NORM:g}. Give its `embedding`, not its `normed_embedding`."
        )  # fmt: skip
    if abs(length - 1) <= 1e-3:
        return tuple(numbers), ""
    return tuple(
        x / length for x in numbers
    ), f"this face has a length of {length:.3g}, and is brought to 1, as FaceID reads it."

"""A photo's face: the largest, upright, its numbers as the adapter reads them; without insightface a letter says what to do."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from infuse.encoders import faces
from infuse.errors import InfuseWarning, RecipeError
from infuse.media.pictures import Picture

FIVE = np.array(faces.FIVE)


def turned(points: Any, degrees: float, scale: float, shift: tuple[float, float]) -> Any:
    a = np.radians(degrees)
    return points @ np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]).T * scale + shift


def test_points_are_brought_where_training_had_them() -> None:
    matrix = faces.similarity(turned(FIVE, 25, 1.7, (40, -10)), FIVE)
    back = turned(FIVE, 25, 1.7, (40, -10)) @ matrix[:, :2].T + matrix[:, 2]
    np.testing.assert_allclose(back, FIVE, atol=1e-9)


@pytest.mark.parametrize("side", [112, 224, 256])
def test_crops_equal_the_original_s(side: int) -> None:
    """insightface's norm_crop, by OpenCV: up to its fixed-point coordinates."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3)).astype(np.uint8)
    photo = np.asarray(Image.fromarray(noise).resize((240, 240), Image.Resampling.BICUBIC))
    points = turned(FIVE, -12, 1.2, (70, 30)) + np.random.default_rng(1).normal(0, 1.5, (5, 2))
    ratio, shift = (side / 112, 0.0) if side % 112 == 0 else (side / 128, 8 * side / 128)
    want = cv2.warpAffine(photo, faces.similarity(points, FIVE * ratio + (shift, 0)), (side, side), borderValue=0.0)
    found = np.asarray(faces.upright(Image.fromarray(photo), points.tolist(), side))
    inside = (
        cv2.warpAffine(
            np.ones(photo.shape[:2], np.uint8) * 255, faces.similarity(points, FIVE * ratio + (shift, 0)), (side, side)
        )
        == 255
    )
    assert np.abs(found.astype(int) - want)[inside].mean() < 1.0


class Analysis:
    """insightface's FaceAnalysis, as far as it is asked."""

    seen: list[Any] = []
    found: list[Any] = []

    def __init__(self, name: str, providers: Any, allowed_modules: Any) -> None:
        self.det_model = SimpleNamespace(input_size=None)

    def prepare(self, ctx_id: int, det_size: tuple[int, int]) -> None:
        self.det_model.input_size = det_size

    def get(self, bgr: Any) -> list[Any]:
        Analysis.seen.append((bgr, self.det_model.input_size))
        return self.found if self.det_model.input_size[0] <= 512 else []


def face(x: float, side: float, value: float) -> Any:
    return SimpleNamespace(
        bbox=np.array([x, 0, x + side, side]), kps=FIVE * side / 112 + (x, 0), embedding=np.full(512, value, np.float32)
    )


@pytest.fixture
def insightface(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Analysis]:
    package, app = ModuleType("insightface"), ModuleType("insightface.app")
    app.FaceAnalysis = Analysis  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "insightface", package)
    monkeypatch.setitem(sys.modules, "insightface.app", app)
    monkeypatch.setattr(faces, "find_spec", lambda name: object())
    monkeypatch.setattr(faces, "HOME", tmp_path)
    (tmp_path / "buffalo_l").mkdir()
    faces._app.cache_clear()
    monkeypatch.setattr(Analysis, "seen", [])
    return Analysis


def test_the_largest_face_in_bgr_and_at_the_size_that_finds_it(
    insightface: type[Analysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insightface, "found", [face(0, 20, 0.5), face(30, 60, 2.0)])
    photo = Picture.of(Image.new("RGB", (100, 80), (255, 0, 0)))
    faces.missing("buffalo_l", "face.0")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        got = faces.found(photo, "buffalo_l", "face.0")
    assert got.numbers == (2.0,) * 512 and got.crop.image.size == (224, 224)
    assert [size for _, size in insightface.seen] == [(640, 640), (576, 576), (512, 512)]
    assert insightface.seen[0][0][0, 0].tolist() == [0, 0, 255]
    assert [
        str(w.message) for w in said if w.category is InfuseWarning and "2 faces, and the largest" in str(w.message)
    ]


def test_no_face_is_a_letter(insightface: type[Analysis], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(insightface, "found", [])
    with pytest.raises(RecipeError, match=r"^face\.1: .*shows no face"):
        faces.found(Picture.of(Image.new("RGB", (64, 64))), "buffalo_l", "face.1")


def test_without_insightface_or_its_models_a_letter(
    insightface: type[Analysis], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match=r"^face\.0: .*antelopev2.*FaceAnalysis\('antelopev2'\)"):
        faces.missing("antelopev2", "face.0")
    monkeypatch.setattr(faces, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"^face\.0: .*pip install insightface onnxruntime"):
        faces.missing("buffalo_l", "face.0")


def test_lengths() -> None:
    raw = tuple(np.full(512, 20 / 512**0.5))
    plain, said = faces.on_sphere(raw, raw=False)
    assert np.linalg.norm(plain) == pytest.approx(1) and "length of 20" in said and "brought to 1" in said
    assert faces.on_sphere(plain, raw=False) == (plain, "")
    assert faces.on_sphere(raw, raw=True) == (raw, "")
    assert "length of about 20" in faces.on_sphere(plain, raw=True)[1]

"""Faces come in as lists, arrays and files; what is none is a letter, and a stranger's recipe reads no files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.media.reading import STRICT, reading
from infuse.media.vectors import vectors

ONE = np.linspace(-1, 1, 512).astype(np.float32)
TWO = np.stack([ONE, ONE[::-1]])


def equal(found: tuple[Any, ...], want: Any) -> bool:
    return np.array_equal(np.array(found, np.float32), np.asarray(want, np.float32).reshape(len(found), -1))


@pytest.mark.parametrize(("value", "want"), [
    (ONE.tolist(), ONE), (tuple(ONE.tolist()), ONE), (ONE, ONE), (torch.from_numpy(ONE), ONE), (ONE[None], ONE), (TWO, TWO), (TWO.tolist(), TWO),
    ([ONE, ONE[::-1].copy()], TWO), (TWO[:, None], TWO), (ONE.astype(np.float16), ONE.astype(np.float16)),
])  # fmt: skip
def test_numbers(value: Any, want: Any) -> None:
    assert equal(vectors(value), want)


def write(path: Path, kind: str) -> Path:
    match kind:
        case "npy":
            np.save(path / "f.npy", TWO)
        case "json":
            (path / "f.json").write_text(json.dumps(TWO.tolist()))
        case "named json":
            (path / "f.json").write_text(json.dumps({"bbox": [0, 1, 2, 3], "embedding": TWO.tolist()}))
        case "safetensors":
            save_file(
                {"a": torch.from_numpy(TWO[:1].copy()), "b": torch.from_numpy(TWO[1].copy())}, path / "f.safetensors"
            )
        case "half":
            save_file({"a": torch.from_numpy(TWO.copy()).half()}, path / "f.safetensors")
        case "bf16":
            save_file({"a": torch.from_numpy(TWO.copy()).bfloat16()}, path / "f.safetensors")
    return next(path.iterdir())


@pytest.mark.parametrize("kind", ["npy", "json", "named json", "safetensors", "half", "bf16"])
def test_files(kind: str, tmp_path: Path) -> None:
    want = {
        "half": torch.from_numpy(TWO.copy()).half().float(),
        "bf16": torch.from_numpy(TWO.copy()).bfloat16().float(),
    }.get(kind, TWO)
    path = write(tmp_path, kind)
    assert equal(vectors(str(path)), want) and equal(vectors([path]), want)


def test_photos_and_numbers_side_by_side(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16))
    found = vectors([ONE.tolist(), image, "face.png"])
    assert len(found[0]) == 512 and all(isinstance(f, Picture) for f in found[1:])
    assert isinstance(vectors(np.zeros((16, 16, 3), np.uint8))[0], Picture)
    assert vectors(None) == vectors(()) == vectors([]) == ()


@pytest.mark.parametrize(("value", "says"), [
    ([1.0, 2.0], "2 numbers are no face"), ([float("nan")] * 512, "NaN"), ([0.0] * 512, "all of its numbers are 0"), ({}, "mapping"), ([[]], "no face"),
    ([True] * 512, "not a picture"), (np.ones((300, 512), np.float32), "more than 256"),
])  # fmt: skip
def test_what_is_no_face(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        vectors(value)


@pytest.mark.parametrize(("name", "content"), [
    ("f.npy", b"nothing"), ("f.json", b"{"), ("f.json", b"[]"), ("f.json", b'{"a": 1, "b": 2}'), ("f.safetensors", b"x"), ("f.json", b"[1, 2]"),
])  # fmt: skip
def test_broken_files(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RecipeError, match=r"f\.(npy|json|safetensors) holds no"):
        vectors(str(tmp_path / name))


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RecipeError, match="holds no faces"):
        vectors(str(tmp_path / "f.npy"))
    with pytest.raises(RecipeError, match="cannot be read"):
        vectors(str(tmp_path / "none.npy"))


def test_a_stranger_s_recipe_reads_no_files(tmp_path: Path) -> None:
    path = write(tmp_path, "npy")
    with reading(STRICT), pytest.raises(RecipeError, match="may not read files"):
        vectors(str(path))

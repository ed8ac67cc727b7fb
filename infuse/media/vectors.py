"""A face in a recipe: the numbers that a recognition network has for it, or a photo of which they will be asked.

Numbers come as lists, arrays, tensors, or in a .npy, .json or .safetensors file. A file is read when the recipe is made, and
its numbers are kept: they are few, they travel, and they are what the picture depends on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from infuse.errors import RecipeError
from infuse.media.pictures import Picture, must_be_file
from infuse.media.reading import at_home, policy, shown

FILES = (".npy", ".json", ".safetensors")
FEWEST, MOST, FACES = 8, 4096, 256
"""Numbers of a vector, and vectors."""
NAMES = (
    "normed_embedding",
    "embedding",
    "embeddings",
    "face",
    "faces",
    "face_id",
    "faceid",
    "id_embeds",
    "vector",
    "vectors",
)
"""Under which a JSON file has them beside other things."""

Vector = tuple[float, ...]


def vectors(value: Any) -> tuple[Any, ...]:
    """Faces in the order in which they came, each a tuple of numbers or a picture.

    Raises ValueError if it is none, RecipeError if a file may not be read.
    """
    if value is None or (isinstance(value, list | tuple) and not value):
        return ()
    found = tuple(_one_or_more(value))
    if not found:
        raise ValueError("it holds no face. Give the numbers of one, a file of them, or a photo")
    if len(found) > FACES:
        raise ValueError(f"{len(found)} faces are more than {FACES}. Give fewer")
    return found


Faces = Annotated[tuple[Annotated[Vector | Picture, Field(union_mode="left_to_right")], ...], BeforeValidator(vectors)]
"""Faces as a recipe keeps them."""


def _one_or_more(value: Any) -> list[Any]:
    match value:
        case Picture():
            return [value]
        case str() | Path():
            path = str(value)
            return _in_file(path) if path.lower().endswith(FILES) else [Picture.of(path)]
        case list() | tuple():
            if value and all(_is_number(v) for v in value):
                return [_vector(value)]
            return [one for v in value for one in _one_or_more(v)]
        case Mapping():
            raise ValueError("it is a mapping; give the numbers of a face as a list, a file of them, or a photo")
    array = _array(value)
    return [Picture.of(value)] if array is None else _rows(array)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _array(value: Any) -> Any:
    """A numpy array or tensor that holds vectors, as an array; None if it is a picture, or nothing of the sort."""
    import numpy as np

    if hasattr(value, "detach"):  # a tensor
        value = value.detach().float().cpu().numpy()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        return None
    is_vectors = value.ndim in (1, 2) or (value.ndim == 3 and min(value.shape[:2]) == 1 and value.shape[2] > 4)
    return value if is_vectors and value.shape[-1:] != (0,) else None


def _rows(array: Any) -> list[Vector]:
    return [_vector(row) for row in array.reshape(-1, array.shape[-1])]


def _vector(row: Any) -> Vector:
    """Numbers as Python has them; what was a float32 keeps no more digits than it has."""
    import numpy as np

    if not FEWEST <= len(row) <= MOST:
        raise ValueError(f"{len(row)} numbers are no face; recognition networks give 512 of them")
    short = isinstance(row, np.ndarray) and row.dtype.itemsize <= 4
    numbers = tuple(float(str(np.float32(v))) if short else float(v) for v in row)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("it holds a number that is infinite or NaN. Compute it again")
    if not any(numbers):
        raise ValueError("all of its numbers are 0: that is what an adapter hears when there is no face")
    return numbers


def _in_file(name: str) -> list[Any]:
    """Vectors of a file. Raises RecipeError if it may not or cannot be read."""
    limits = policy()
    path = at_home(limits.located(name))
    try:
        must_be_file(path)
        limits.weigh(shown(name), path.stat().st_size)
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError("", f"{shown(name)} cannot be read ({error.strerror}). Check the path.") from None
    try:
        found = {".npy": _npy, ".json": _json, ".safetensors": _safetensors}[path.suffix.lower()](content)
    except RecipeError:
        raise
    except Exception as error:  # the readers have many words for what is broken
        raise RecipeError("", f"{shown(name)} holds no faces that can be read ({' '.join(str(error).split())[:200]}). It should hold one or several "
                              "vectors of 512 numbers.") from None  # fmt: skip
    if not found:
        raise RecipeError("", f"{shown(name)} holds no vectors. It should hold one or several of 512 numbers.")
    return found


def _npy(content: bytes) -> list[Vector]:
    import io

    import numpy as np

    array = _array(np.load(io.BytesIO(content), allow_pickle=False))
    if array is None:
        raise ValueError("it is no list of vectors")
    return _rows(array)


def _json(content: bytes) -> list[Any]:
    value = json.loads(content.decode("utf-8-sig"))
    if isinstance(value, dict):
        named = [v for k in NAMES if (v := value.get(k)) is not None]
        if not named and len(value) == 1:
            named = list(value.values())
        if not named:
            raise ValueError(f"none of its fields is called {', '.join(NAMES[:2])} or the like")
        value = named[0]
    flat = _flat(value)
    if not flat:
        raise ValueError("it is no list of numbers")
    return [_vector(row) for row in flat]


def _flat(value: Any) -> list[list[Any]]:
    """Lists of numbers, however deep."""
    if not isinstance(value, list):
        return []
    if value and all(_is_number(v) for v in value):
        return [value]
    return [row for v in value for row in _flat(v)]


def _safetensors(content: bytes) -> list[Vector]:
    """All of its tensors, in the order of their names. Read here: numpy has no bfloat16."""
    import numpy as np

    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    out: list[Vector] = []
    for name in sorted(k for k in header if k != "__metadata__"):
        entry = header[name]
        (a, b), kind = entry["data_offsets"], entry["dtype"]
        raw = content[8 + size + a : 8 + size + b]
        if kind == "BF16":
            numbers = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        else:
            numbers = np.frombuffer(raw, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[kind])
        array = _array(numbers.reshape(entry["shape"]))
        if array is None:
            raise ValueError(f"{name} has the shape {entry['shape']}, and vectors are (n, 512)")
        out += _rows(array)
    return out

"""The table of a .safetensors file, read as if a stranger had written it: small, flat, and true to the bytes that follow.

A JSON object of name -> type, shape and place. Whatever it says is compared with the file before anybody believes it.
"""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

from infuse.errors import WeightsError

BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
         "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8}  # fmt: skip
MAX_HEADER = 100 * 2**20
"""The limit of the format itself: more is no length, but something else."""
MOST_BYTES, MOST_VALUES = 16 * 2**20, 1_000_000
"""Of a table that is read: SDXL's has 0.3 MiB and 16,000 values, and a table takes ten times its size in memory."""
MOST_AXES, LARGEST = 64, 2**63  # of a torch tensor


class Entry(NamedTuple):
    """One tensor in the table: `dtype` in safetensors' spelling ("F16"), `shape` as stored."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * BYTES.get(self.dtype, 4)

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("F", "BF"))


def read_table(path: Path, size: int) -> tuple[dict[str, Entry], dict[str, str]]:
    """(tensors, metadata) of a .safetensors file of that many bytes. Raises WeightsError unless all of it fits."""

    def broken(why: str) -> WeightsError:
        return WeightsError("", f"{path.name} is not a sound .safetensors file: {why}")

    if size < 10:
        raise broken(f"it has {size} bytes. Download it again.")
    with path.open("rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        if length > min(MAX_HEADER, size - 8):
            cut = length <= MAX_HEADER and f.read(1) == b"{"
            why = f"cut short inside its header, {size:,} bytes are there" if cut else "it does not begin with a header"
            raise broken(f"{why}. Download it again, and compare its size with the page you took it from.")
        if length > MOST_BYTES:
            raise broken(_too_large(f"{length / 2**20:.0f} MiB"))
        raw = f.read(length)
    if (values := raw.count(b",")) > MOST_VALUES:
        raise broken(_too_large(f"{values:,} values"))
    try:
        table = json.loads(raw.decode("utf-8"), object_pairs_hook=_once)
        del raw
        metadata = {str(k): str(v) for k, v in (table.pop("__metadata__", None) or {}).items()}
        entries = {k: _entry(v) for k, v in table.items()}
        spans = sorted((*_span(v), k) for k, v in table.items())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as e:
        raise broken("its header is not the JSON table it should be. Download it again, or save it anew.") from e
    if not entries:
        raise broken("it holds no tensor.")
    end = 0
    for start, stop, key in spans:
        known = entries[key].dtype in BYTES
        if start != end or stop < start or (known and stop - start != entries[key].nbytes):
            raise broken(f"tensor {key[:100]!r} does not lie where the header says. Save or download the file again.")
        end = stop
    data = size - 8 - length
    if data < end:
        raise broken(f"it is cut short, {data:,} of {end:,} data bytes are there. Download it again.")
    if data > end:
        raise broken(f"{data - end:,} bytes follow after the last tensor. Download it again.")
    return entries, metadata


def _too_large(what: str) -> str:
    return f"its header has {what}, where those of Stable Diffusion have less than 1 MiB. Save the tensors anew, without metadata."


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a name that is there twice: readers would take one or the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def _entry(value: dict[str, Any]) -> Entry:
    """Raises ValueError, KeyError or TypeError unless this says a type and a shape."""
    dtype, shape = value["dtype"], value["shape"]
    if not isinstance(dtype, str) or not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise ValueError("no type or no shape")
    return Entry(dtype, tuple(_whole(n) for n in shape))


def _span(value: dict[str, Any]) -> tuple[int, int]:
    start, stop = value["data_offsets"]
    return _whole(start), _whole(stop)


def _whole(n: Any) -> int:
    if type(n) is not int or not 0 <= n < LARGEST:  # JSON's true is an int to Python
        raise ValueError("no size")
    return n

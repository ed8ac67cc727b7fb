"""A pickle becomes a safetensors file: the same tensors under the same names, read without running any code of it."""

from __future__ import annotations

from pathlib import Path

from infuse.errors import WeightsError
from infuse.weights.formats import read_header, read_tensors


def convert(source: str | Path, out: str | Path) -> int:
    """Write the tensors of a weights file (.bin, .pt, .pth, .ckpt, .safetensors) as .safetensors; returns their number.

    Raises WeightsError if the source is none, if `out` is there already or no .safetensors.
    """
    from safetensors.torch import save_file

    source, out = Path(source).expanduser(), Path(out).expanduser()
    if out.suffix != ".safetensors":
        raise WeightsError("out", f"{out} is no name of a safetensors file. Let it end with .safetensors.")
    if out.exists():
        raise WeightsError(
            "out", f"{out} is there already, and nothing is overwritten. Name another file, or remove it."
        )
    header = read_header(source, "source")
    tensors = {k: t.contiguous().clone() for k, t in read_tensors(source).items()}  # names may share memory in a pickle
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata={"format": "pt", **header.metadata})
    return len(tensors)

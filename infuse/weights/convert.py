"""Weights in another layout, with the same numbers: pickles as safetensors, one file as a folder, a folder as one file.

Nothing is overwritten, and what is not finished is not there: all is written beside its place, and moved at the end. No
pickle is read in this process (`unpickling`).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infuse.errors import WeightsError
from infuse.weights.formats import PICKLES, SUFFIXES, read_header, read_tensors
from infuse.weights.source import Source
from infuse.weights.unpickling import unpickled

DTYPES = {"fp16": "float16", "float16": "float16", "bf16": "bfloat16", "bfloat16": "bfloat16", "fp32": "float32", "float32": "float32"}  # fmt: skip
"""What people call the dtypes that are written."""


def convert(
    source: str | Path, out: str | Path, dtype: str | None = None, tell: Callable[[str], None] = lambda _: None
) -> int:
    """Write a model in the layout that `out` is the name of; returns the number of tensors.

    A .safetensors file out of a pickle (.bin, .pt, .pth, .ckpt) has the same tensors under the same names; out of a diffusers
    folder it is one checkpoint in the original layout. A folder out of a checkpoint is diffusers'. dtype: fp16, bf16 or fp32
    for all floats; None keeps each its own. tell: called with a line for each part.

    Raises WeightsError if the source is none of these, if `out` is there already, or its name fits neither.
    """
    source, out = Path(source).expanduser(), Path(out).expanduser()
    kind = _dtype(dtype)
    if not source.exists():
        source = _found(source).path
    if out.suffix in PICKLES or (out.suffix != ".safetensors" and source.is_dir()):
        raise WeightsError("out", f"{out} is no name of a safetensors file. Let it end with .safetensors.")
    if out.exists():
        raise WeightsError("out", f"{out} is there already, and nothing is overwritten. Name another file, or remove it.")  # fmt: skip
    with _beside(out) as part:
        if source.is_dir():
            from infuse.weights.to_checkpoint import to_checkpoint

            return to_checkpoint(_found(source), part, kind, tell)
        if out.suffix == ".safetensors":
            return _file(source, part, kind, tell)
        from infuse.weights.to_folder import to_folder

        with _safely(source, out, tell) as safe:
            part.mkdir()
            return to_folder(Source(source.name, safe, field="source"), part, kind, tell)


def _dtype(said: str | None) -> Any:
    """torch's, of which nothing is imported for the letters."""
    if said is None:
        return None
    if said.strip().lower() not in DTYPES:
        raise WeightsError("dtype", f"{said!r} is not written. Use fp16, bf16 or fp32, or leave it out to keep what is there.")  # fmt: skip
    import torch

    return getattr(torch, DTYPES[said.strip().lower()])


def _found(folder: Path) -> Source:
    """A model by its path or name, with what lends to it. Raises WeightsError if there is none."""
    from infuse.weights.library import Library

    return Library(offline=True).find(str(folder), "source")


def is_pickle(path: Path) -> bool:
    """By its content: some safetensors files are called .bin."""
    with path.open("rb") as f:
        head = f.read(9)
    return path.suffix in PICKLES and head[8:] != b"{"


def _file(source: Path, out: Path, dtype: Any, tell: Callable[[str], None]) -> int:
    """The same tensors under the same names."""
    from safetensors.torch import save_file

    if source.suffix not in SUFFIXES:
        raise WeightsError("source", f"{source.name} is no weights file. Those end with {', '.join(SUFFIXES)}.")
    count = None
    if is_pickle(source):
        tell(f"reading {source.name} in a process of its own")
        count = unpickled(source, out)
        if dtype is None:
            return count
        source = out
    header = read_header(source, "source")
    tensors = {k: t.to(dtype if dtype and t.is_floating_point() else t.dtype) for k, t in read_tensors(source).items()}
    tensors = {k: t.contiguous().clone() for k, t in tensors.items()}
    save_file(tensors, out, metadata={"format": "pt", **header.metadata})
    return len(tensors)


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A place beside `out`, which is moved there if all goes well, and removed otherwise."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_name(f".{out.name}.part")
    _remove(part)
    try:
        yield part
        if out.exists():
            raise WeightsError("out", f"{out} has come to be meanwhile, and nothing is overwritten. Name another file.")
        part.rename(out)
    finally:
        _remove(part)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _safely(source: Path, out: Path, tell: Callable[[str], None]) -> Iterator[Path]:
    """A checkpoint as a safetensors file: itself, or what the child process makes of a pickle, for as long as it is used."""
    if not is_pickle(source):
        yield source
        return
    tell(f"reading {source.name} in a process of its own")
    between = out.with_name(f".{out.name}.safetensors")
    try:
        unpickled(source, between)
        yield between
    finally:
        between.unlink(missing_ok=True)

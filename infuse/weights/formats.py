"""A weights file is a table of names, shapes and bytes. Read the table first, the bytes only when someone needs them.

`.safetensors` files carry that table in a JSON header. Older pickles (`.bin .pt .pth .ckpt`) are read by torch's
restricted unpickler only, so opening a file never runs code from it. What a file *is* is decided in `identify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from infuse.errors import WeightsError
from infuse.weights.table import MAX_HEADER, Entry, read_table

if TYPE_CHECKING:
    from torch import Tensor

PICKLES = (".bin", ".pt", ".pth", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
HARMLESS = ("pytorch_lightning.", "lightning.", "omegaconf.", "ray.train.", "typing.", "collections.defaultdict")
"""Names that training frameworks leave in checkpoints beside the tensors: read as inert placeholders, never as code."""
PARAMETERS = "torch.nn.modules.container.ParameterDict"
"""Textual inversions of 2022 hold their tensors in one."""


@dataclass(frozen=True)
class Header(Mapping[str, Entry]):
    """A weights file without its tensors: a mapping of key to `Entry`. `metadata` holds strings only."""

    path: Path
    tensors: Mapping[str, Entry] = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    size: int = 0
    stored: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Key here -> key in the file, where the two differ (see `layouts.wrapped`)."""

    def __getitem__(self, key: str) -> Entry:
        return self.tensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def shapes(self, prefix: str = "") -> dict[str, tuple[int, ...]]:
        """Shapes of the keys under `prefix`, with the prefix taken off."""
        return {k[len(prefix) :]: e.shape for k, e in self.tensors.items() if k.startswith(prefix)}


def read_header(path: str | Path, field: str = "") -> Header:
    """Read the table of one weights file; `field` is the recipe field that errors name.

    Raises WeightsError when the file is missing, empty, cut short, or not a weights file at all.
    """
    path = Path(path)
    try:
        stat = path.stat()
        with path.open("rb") as f:
            head = f.read(512)
    except OSError as e:
        raise WeightsError(
            field, f"{path} cannot be read ({e.strerror or e}). Check the path and its permissions."
        ) from e
    try:
        return _header(path, stat.st_size, stat.st_mtime_ns, head)
    except WeightsError as e:
        raise e.under(field) from e.__cause__


@lru_cache(maxsize=64)
def _header(path: Path, size: int, _mtime: int, head: bytes) -> Header:
    if path.suffix in PICKLES and head[:2] in (b"PK", b"\x80\x02", b"\x80\x04"):
        return _pickle_header(path, size)
    own = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER
    if not own and (foreign := looks_like(head, size)):
        raise WeightsError("", f"{path.name} is not a weights file: it is {foreign}")
    tensors, metadata = read_table(path, size)
    return Header(path, tensors, metadata, size)


def looks_like(head: bytes, size: int) -> str:
    """What a file that is not .safetensors seems to be, with the remedy; "" when nothing speaks against it."""
    text = head.lstrip().lower()
    signs = (
        (size == 0, "empty (0 bytes). Download it again."),
        (text.startswith(b"version https://git-lfs"),
         "a Git LFS pointer of a few lines. Run `git lfs pull` there, or download the file itself."),
        (text.startswith((b"<!doctype", b"<html", b"<?xml")),
         "a web page, probably a login or error page saved under this name. Download it again, logged in if needed."),
        (head[:2] == b"PK", "a zip archive, probably a PyTorch checkpoint renamed. Give it the suffix .pt."),
        (head[:2] in (b"\x80\x02", b"\x80\x04"), "a Python pickle. Give it the suffix .pt, so that it is read safely."),
        (head[:4] == b"GGUF", "a GGUF file (quantised). infuse reads .safetensors; choose the fp16 file of this model."),
        (head[:4] in (b"\x89PNG", b"RIFF") or head[:3] == b"\xff\xd8\xff", "a picture. Choose the weights beside it."),
        (text.startswith((b"{", b"[")), "a JSON text. Choose the weights beside it, or the folder that holds both."),
        (_printable(head), "a text file. Download the weights themselves."),
    )  # fmt: skip
    return next((what for is_it, what in signs if is_it), "")


def _printable(head: bytes) -> bool:
    try:
        return head.decode("utf-8", "strict" if len(head) < 512 else "ignore").isprintable() or not set(head) & {
            *range(9)
        }
    except UnicodeDecodeError:
        return False


def _pickle_header(path: Path, size: int) -> Header:
    flat, scalars = _load_pickle(path, "meta")
    if not flat:
        raise WeightsError("", f"{path.name} holds no tensors. Choose the model's weights, not its training state.")
    tensors = {k: Entry(_dtype_name(t), tuple(t.shape)) for k, t in flat.items()}
    return Header(path, tensors, scalars, size)


class _Placeholder:
    """Stands where a training framework pickled an object of its own. Keeps nothing, does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


class _Parameters(dict[str, Any]):
    """Stands where a ParameterDict was pickled. Keeps its tensors by their names, and nothing else."""

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.update(state["_parameters"])


def _load_pickle(path: Path, device: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors under dotted names, and the scalars beside them (`global_step`) as strings."""
    import torch
    from torch import serialization

    try:
        unsafe = serialization.get_unsafe_globals_in_checkpoint(path)
    except (
        RuntimeError,
        ValueError,
        EOFError,
        UnpicklingError,
    ):  # written before torch 1.6: that question is only answered for zip files
        unsafe = []
    stand_in = {name: _Placeholder for name in unsafe if name.startswith(HARMLESS)}
    stand_in |= {name: _Parameters for name in unsafe if name == PARAMETERS}
    inert = [(cls, name) for name, cls in stand_in.items()]
    with serialization.safe_globals(inert):  # pyright: ignore[reportArgumentType]
        try:
            try:
                found = torch.load(path, map_location=device, weights_only=True, mmap=True)
            except RuntimeError as e:
                if "mmap" not in str(e):
                    raise
                found = torch.load(path, map_location=device, weights_only=True)
        except Exception as e:
            raise WeightsError("", _unsafe_letter(path, [n for n in unsafe if n not in stand_in], e)) from e
    scalars: dict[str, str] = {}
    for _ in range(2):  # some files wrap the state dict twice (ControlNet 1.0 community conversions)
        if isinstance(found, dict):
            scalars.update(
                {k: str(v) for k, v in found.items() if isinstance(k, str) and isinstance(v, int | float | str)}
            )
            found = found.get("state_dict", found)
    flat = dict(_flatten(found)) if isinstance(found, Mapping) else {}
    return flat, scalars


def _unsafe_letter(path: Path, unsafe: list[str], error: Exception) -> str:
    if not unsafe and "weights" not in str(error).lower():
        return f"{path.name} cannot be read as a PyTorch file ({type(error).__name__}): cut short? Download it again."
    names = ", ".join(unsafe[:3]) or "objects other than tensors"
    return (
        f"{path.name} is a pickle that would run code when opened ({names}), so infuse does not open it. Take the "
        ".safetensors version of this model; or, if you trust its author, convert it on a machine that holds nothing "
        'precious: torch.load(path, weights_only=False)["state_dict"], then safetensors.torch.save_file.'
    )


def _flatten(tree: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    import torch

    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, torch.Tensor):
            yield name, value.detach()
        elif isinstance(value, Mapping):
            yield from _flatten(value, f"{name}.")


def _dtype_name(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    special = {
        "bfloat16": "BF16",
        "bool": "BOOL",
        "float8_e4m3fn": "F8_E4M3",
        "float8_e5m2": "F8_E5M2",
        "complex64": "C64",
    }
    return special.get(name) or name.replace("uint", "U").replace("int", "I").replace("float", "F")


def read_tensors(path: str | Path, keys: Iterable[str] | None = None, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of one file, as stored (on the CPU, memory-mapped: pages are read when touched).

    `keys` are full names in the file; left out, all keys under `prefix`. The prefix is taken off the returned names.
    Raises WeightsError for a file that `read_header` refuses and for keys that are not there.
    """
    header = read_header(path)
    wanted = [k for k in header if k.startswith(prefix)] if keys is None else list(keys)
    absent = [k for k in wanted if k not in header]
    if absent:
        raise WeightsError(
            "", f"{header.path.name} has no tensor {absent[0]!r} ({len(absent)} of {len(wanted)} missing)."
        )
    if header.path.suffix in PICKLES and not _is_safetensors(header.path):
        flat, _ = _load_pickle(header.path, "cpu")
        return {k.removeprefix(prefix): flat[k] for k in wanted}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(header.path, framework="pt") as f:
            return {k.removeprefix(prefix): f.get_tensor(k) for k in wanted}
    except (SafetensorError, KeyError, AttributeError) as e:
        kinds = ", ".join(sorted({header[k].dtype for k in wanted}))
        raise WeightsError("", f"{header.path.name} cannot be read ({e}). It holds numbers of the types {kinds}; choose its fp16 or fp32 "
                               "version.") from e  # fmt: skip


def read_all(files: Mapping[str, Iterable[Path]]) -> dict[str, Tensor]:
    """All tensors of a model of one part, whose files a Source lists: one, or the shards of a component's folder."""
    return {k: t for paths in files.values() for path in paths for k, t in read_tensors(path).items()}


def read_keys(header: Header, keys: Iterable[str]) -> dict[str, Tensor]:
    """Tensors by the keys that this header has for them, whatever the file calls them. Raises as `read_tensors` does."""
    names = {k: header.stored.get(k, k) for k in keys}
    found = read_tensors(header.path, names.values())
    return {k: found[name] for k, name in names.items()}


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(9)[8:] == b"{"


def digest(path: str | Path) -> str:
    """sha256 of the content, as 64 hex digits. Remembered while size and modification time stay the same."""
    path = Path(path)
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _digest(path: Path, _size: int, _mtime: int) -> str:
    state = sha256()
    with path.open("rb") as f:
        while chunk := f.read(2**22):
            state.update(chunk)
    return state.hexdigest()

"""Where models live and in which numbers: dtype, device and memory as people write them, and moving without surprises.

torch is asked only where tensors are, or where this machine may have more than a CPU: a check needs neither.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from infuse import processor
from infuse.errors import CapacityError, RecipeError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

T = TypeVar("T")
Device: TypeAlias = "str | torch.device | None"
Dtype: TypeAlias = "str | torch.dtype | None"

DTYPES = (
    ("float16", "fp16", "half"),
    ("bfloat16", "bf16"),
    ("float32", "fp32", "float"),
    ("float64", "fp64", "double"),
)
"""torch's name of each dtype that networks run in, and what else people call it."""
AUTO = "auto"
"""A dtype that is chosen for each base: see `chosen`."""
LARGE = 300_000_000
"""Parameters from which on a network is worth half precision on a CPU. Released ones of Stable Diffusion have 320 million (tiny-sd) and more."""
NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/nvmap", "/dev/kfd")
"""What Linux shows of a GPU that torch calls cuda: NVIDIA's, under WSL, of a Jetson, and AMD's."""
AMOUNT = re.compile(r"(\d+\.?\d*(?:e\d+)?) *(?:([kmgt])(i?))?b?", re.IGNORECASE)


# ── what people write ───────────────────────────────────────────────────────────────────────────────────────────────


def dtype_name(said: Dtype) -> str | None:
    """torch's name of a dtype by any of its names (`fp16`, `half`, `torch.float16`); None if it is to be chosen: None or "auto".

    Raises RecipeError for one that networks don't run in.
    """
    name = AUTO if said is None else str(said).strip().lower().removeprefix("torch.")
    if name == AUTO:
        return None
    for names in DTYPES:
        if name in names:
            return names[0]
    known = ", ".join(f"{first} ({', '.join(others)})" for first, *others in DTYPES)
    why = "networks do not run in whole numbers" if "int" in name or name == "bool" else "no such dtype is known here"
    raise RecipeError("dtype", f"{said!r}: {why}. Use {known}; or auto, as when it is left out: float16 on a "
                       "GPU; on a CPU bfloat16 for large networks where the processor computes in it, else float32.")  # fmt: skip


def usual(device: str) -> str:
    """The dtype of a device for whatever belongs to no base."""
    return "float32" if device == "cpu" else "float16"


def chosen(device: str, parameters: int) -> str:
    """The dtype in which a network of so many parameters is run on a device, where nobody says one."""
    if device == "cpu" and parameters >= LARGE and processor.bfloat16():
        return "bfloat16"
    return usual(device)


def as_dtype(said: Dtype) -> torch.dtype | None:
    """The dtype itself."""
    name = dtype_name(said)
    return None if name is None else dtype_called(name)


def dtype_called(name: str) -> torch.dtype:
    """By torch's own name."""
    import torch

    return getattr(torch, name)


def device_called(name: str) -> torch.device:
    """By its name, without asking whether it is there."""
    import torch

    return torch.device(name)


def device_name(said: Device) -> str | None:
    """The name of a device that is there; torch is asked for all but the CPU. Raises RecipeError as `as_device` does."""
    if isinstance(said, str) and said.strip().lower() == "cpu":
        return "cpu"
    return None if said is None else str(as_device(said))


def best_device() -> str:
    """cuda where there is one, else cpu. Costs nothing where nothing of a GPU is to be seen."""
    if "torch" not in sys.modules and not _may_have_cuda():
        return "cpu"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _may_have_cuda() -> bool:
    """Is there a GPU's device node or its driver? Only torch knows for certain, and that is two seconds of importing."""
    if not sys.platform.startswith("linux"):
        return sys.platform != "darwin"
    if any(Path(node).exists() for node in NODES):
        return True
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def as_device(said: Device) -> torch.device | None:
    """A device that is there. Raises RecipeError for an unknown kind, and for one that this machine does not have."""
    if said is None:
        return None
    import torch

    counts: dict[str, Callable[[], int]] = {
        "cpu": lambda: 1,
        "cuda": lambda: torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": lambda: int(torch.backends.mps.is_available()),
        "xpu": lambda: torch.xpu.device_count() if torch.xpu.is_available() else 0,
    }
    here = [k for k, count in counts.items() if count()]
    try:
        device = torch.device(said.strip().lower() if isinstance(said, str) else said)
    except (RuntimeError, TypeError, ValueError):
        device = None
    if device is None or device.type not in counts:
        raise RecipeError("device", f"{str(said)!r} is not known. Known are {', '.join(counts)} and, of several, cuda:0, cuda:1 and so on; "
                                    f"here: {', '.join(here)}.")  # fmt: skip
    n = counts[device.type]()
    if not n:
        why = "this PyTorch was built without it, or no such device or driver is there"
        raise RecipeError(
            "device", f"{str(said)!r}: {device.type.upper()} is not available here ({why}). Here: {', '.join(here)}."
        )
    if (device.index or 0) >= n:
        have = f"{device.type}:0" + (f" to {device.type}:{n - 1}" if n > 1 else "")
        raise RecipeError("device", f"{str(said)!r} is not there: this machine has {n} of them. Use {have}.")
    return torch.device(device.type) if device.type in ("cpu", "mps") else device


def as_bytes(said: str | int | None) -> int | None:
    """Bytes of "8GB", "7.5 GiB", "500M" or a plain number; None is no limit. Raises RecipeError for anything else."""
    if said is None:
        return None
    found = AMOUNT.fullmatch(str(said).strip())
    size = 0
    if found and not isinstance(said, bool):
        number, unit, binary = found.groups()
        size = int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(unit.lower()) if unit else 0))
    if size <= 0:
        raise RecipeError(
            "memory", f'{said!r} is no amount of memory. Write bytes, or a size as "8GB" or "500MB"; None: no limit.'
        )
    return size


def in_words(size: int) -> str:
    """Bytes for people: 6.9 GiB, 340.0 MiB."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"


# ── what a model is made of ─────────────────────────────────────────────────────────────────────────────────────────


def parts(thing: Any) -> Iterator[nn.Module]:
    """The modules of a base, of task texts, of an image encoder with its processor, or a module itself."""
    from torch import nn

    from infuse.encoders.kit import Base

    if isinstance(thing, Base):
        small = thing.composer.modules if thing.composer else ()
        tasks = thing.tasks and thing.tasks.model
        found = (
            thing.network.unet,
            thing.vae,
            *thing.texts.models,
            thing.image_encoder,
            thing.image_noise,
            tasks,
            *small,
        )
        yield from (m for m in found if isinstance(m, nn.Module))
    elif isinstance(thing, tuple):
        yield from (m for m in thing if isinstance(m, nn.Module))
    elif isinstance(thing, nn.Module):
        yield thing
        if tasks := getattr(thing, "tasks", None):  # a BrushNet's, made in memory
            yield tasks.model
    elif isinstance(getattr(thing, "model", None), nn.Module):
        yield thing.model


def tensors(thing: Any) -> Iterator[Tensor]:
    """Every parameter and buffer of floats, once."""
    seen: set[int] = set()
    for module in parts(thing):
        waiting = [module]
        while waiting:  # torch's own iterators make names, which takes ten times as long
            one = waiting.pop()
            for t in (*one._parameters.values(), *one._buffers.values()):
                if t is not None and t.is_floating_point() and id(t) not in seen:
                    seen.add(id(t))
                    yield t
            waiting += [m for m in reversed(one._modules.values()) if m is not None]


def nbytes(*things: Any) -> int:
    """Bytes of weights; what several of them share counts once."""
    return sum(
        {(t.data_ptr(), n): n for x in things for t in tensors(x) if (n := t.numel() * t.element_size())}.values()
    )


# ── moving ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def same_place(a: torch.device, b: torch.device) -> bool:
    """`cuda` is the current one of several."""
    import torch

    if a.type != b.type or a.type in ("cpu", "mps"):
        return a.type == b.type
    at = [torch.get_device_module(a.type).current_device() if d.index is None else d.index for d in (a, b)]
    return at[0] == at[1]


def lies_at(module: nn.Module, dtype: torch.dtype, device: torch.device) -> bool:
    """Are all of its floats of this dtype on this device?"""
    own = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    return all(t.dtype == dtype and same_place(t.device, device) for t in own)


def copied(module: nn.Module, dtype: torch.dtype, device: torch.device) -> nn.Module:
    """A module like this one, in this dtype on this device; the original stays as it is. Task texts are shared."""
    from torch import nn

    tasks = getattr(module, "tasks", None)
    memo = {} if tasks is None else {id(tasks): tasks}
    # diffusers' own `to` warns of layers to keep in float32 even where there are none
    return nn.Module.to(copy.deepcopy(module, memo), device=device, dtype=dtype)


def settled(thing: T, device: torch.device, beside: Any = None) -> T:
    """What was just read, on its device and in memory of its own. What it shares with `beside` stays shared on the CPU."""
    from torch import nn

    if device.type != "cpu":
        for module in parts(thing):
            nn.Module.to(module, device=device)
        return thing
    lent, mapped = {t.data_ptr() for t in tensors(beside)}, mappings()
    for t in tensors(thing):
        if t.data_ptr() not in lent and (mapped is None or _within(t.data_ptr(), mapped)):
            # it may lie in a mapped file: whoever overwrites that file would change or crash the jobs under way
            t.data = t.data.clone()
    return thing


def mappings() -> list[tuple[int, int]] | None:
    """Where files lie in this process's memory, (first address, end), in order; None where the system does not tell."""
    try:
        with Path("/proc/self/maps").open() as lines:
            found = [line.split(maxsplit=5) for line in lines]
    except OSError:
        return None
    spans = (one[0].split("-") for one in found if one[4] != "0")  # it has an inode
    return [(int(first, 16), int(end, 16)) for first, end in spans]


def _within(address: int, spans: list[tuple[int, int]]) -> bool:
    i = bisect_right(spans, (address, sys.maxsize)) - 1
    return i >= 0 and address < spans[i][1]


def free() -> None:
    """Give back at once what nobody holds: networks hold themselves in circles, and torch keeps a GPU's memory for later."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    trim()


def trim() -> None:
    """Give the system the pages that were freed: glibc keeps them between those in use, up to the size of what was just read."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL("libc.so.6").malloc_trim(0)


@contextmanager
def room_for(name: str, size: int, device: torch.device) -> Iterator[None]:
    """Raises CapacityError with the size that a model needs (bytes) where its device has no room for it."""
    try:
        yield
    except (RuntimeError, MemoryError, ValueError) as error:
        if not _full(error):
            raise
        raise CapacityError("model", f"{name!r} needs {in_words(size)} on {device}, which is out of memory{_free(device)}. Unload another model "
                                     "(or give the store a memory limit), use float16, or another device.") from error  # fmt: skip


def _full(error: BaseException | None) -> bool:
    import torch

    while error is not None:  # a loader may have made a letter of it
        said = str(error).lower()
        if (
            isinstance(error, torch.OutOfMemoryError | MemoryError)
            or "out of memory" in said
            or "t allocate memory" in said
        ):
            return True
        error = error.__cause__
    return False


def _free(device: torch.device) -> str:
    import torch

    if device.type != "cuda" or not torch.cuda.is_available():
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f" ({in_words(free)} of {in_words(total)} are free)"

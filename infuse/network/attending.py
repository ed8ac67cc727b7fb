"""softmax(q k^T / sqrt(d) + bias) v on a CPU: by our own kernel where one was built and is measured to be faster, else by torch.

The kernel (`kernels/attention.cpp`) is one file of C++ without a header of torch's: the machine's own compiler makes a library
of it in some seconds, once, when `prepare` is called for a large network; it is kept in the user's cache folder. Whether it is
asked is measured once per machine, number format, width of heads and kind of keys (a picture's many, some words), and kept
beside it. Nothing here is needed: without compiler, on other machines, with gradients, everything is as torch has it.

    INFUSE_KERNELS=off     never build nor ask it
    TORCH_EXTENSIONS_DIR   where it is kept; else XDG_CACHE_HOME/infuse, else ~/.cache/infuse
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infuse.notices import note

SOURCE = Path(__file__).with_name("kernels") / "attention.cpp"
FLAGS = ["-O3", "-std=c++17", "-shared", "-fPIC", "-w", "-mfma", "-mamx-tile", "-mamx-bf16"]
FLAGS += [f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "bf16")]
LIBRARY = "attention.so"
TORCH, FLOAT, PAIRS, TILES = 0, 1, 2, 4
"""Who does it: torch, or one of the kernel's paths (float32; bf16 by pairs, AVX-512; bf16 by tiles, AMX)."""
PATHS = {torch.float32: (FLOAT,), torch.bfloat16: (PAIRS, TILES)}
LONG = 256
"""More keys than this are a picture's; fewer are words'."""
MARGIN = 0.97
"""A kernel that saves less than this is not worth answers of other bits."""
ROUNDS = 5
PATIENCE = 300
"""Seconds for a compiler."""


@dataclass(eq=False)
class Kernel:
    """The library once it is loaded, the file beside it, and what has been decided: a path for (format, width, many keys?)."""

    run: Any = None
    paths: int = 0
    book: Path | None = None
    chosen: dict[tuple[torch.dtype, int, bool], int] = field(default_factory=dict)
    asked: set[tuple[torch.dtype, int, bool]] = field(default_factory=set)
    """What was prepared for: others' answers keep their bits, whatever large network was loaded before them."""
    tried: bool = False
    registered: Any = None


KERNEL = Kernel()
_lock = RLock()


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v, summed up in float32.

    q (b n L d), k and v (b n S d), views of any strides whose last dimension is contiguous; bias is added, broadcastable to
    (b n L S), -inf where nobody listens. The answer (b n L d) lies in memory as (b L n d), wherever torch's does, too. Each
    row's bits depend on that row alone, not on what else is in the batch, nor on how many threads there are.
    """
    if q.device.type == "cpu":
        if torch.is_grad_enabled():
            # CPU's fused kernel is fast forward, but its backward takes twice the time of plain products at small widths.
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1).to(v.dtype) @ v
        told = (q.dtype, q.shape[-1], k.shape[2] > LONG) in KERNEL.asked and suits(q, k, v, bias)
        path = choose(q.dtype, q.shape[-1], k.shape[2]) if told else TORCH
        if path != TORCH:
            return torch.ops.infuse.attention(q, k, v, bias, path)
    return F.scaled_dot_product_attention(q, k, v, None if bias is None else bias.to(q.dtype))


def suits(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> bool:
    """Is this a product that the kernel knows?"""
    return (
        KERNEL.run is not None
        and not torch.is_autocast_enabled("cpu")  # whoever casts asks torch's
        and q.dtype in PATHS
        and q.dtype == k.dtype == v.dtype
        and q.dim() == 4
        and q.shape[:2] == k.shape[:2]
        and k.shape == v.shape
        and q.shape[-1] == k.shape[-1]
        and 0 not in (*q.shape, k.shape[2])
        and (q.dtype == torch.float32 or q.shape[-1] % 2 == 0)  # bf16 goes by pairs
        and (bias is None or bias.dtype != torch.bool)
    )


def ready() -> bool:
    """Is there a kernel to be asked in this process?"""
    return KERNEL.run is not None


def choose(dtype: torch.dtype, width: int, keys: int) -> int:
    """Who attends to so many keys with heads of this width: `TORCH`, or a path of the kernel. Measured when first asked for, some
    ms; not while torch compiles what asks, which then goes by what `prepare` has measured."""
    kind = dtype, width, keys > LONG
    path = KERNEL.chosen.get(kind)
    if path is None:
        if torch.compiler.is_compiling():
            return TORCH
        with _lock:
            path = KERNEL.chosen.get(kind)
            if path is None:
                path = KERNEL.chosen[kind] = measured(*kind)
                remember()
    return path


def prepare(dtype: torch.dtype | None = None, widths: Iterable[int] = ()) -> bool:
    """Have the kernel built if it is not, and decide for heads of these widths. Is it there?

    Builds nothing where it is of no use: processors without AVX-512, systems other than Linux. What fails is said once, as a
    note, and torch goes on attending. Two processes may build at once: each moves a whole library into place.
    """
    with _lock:
        if not KERNEL.tried:
            KERNEL.tried = True
            if usable():
                try:
                    adopt(built(folder()))
                except (OSError, subprocess.SubprocessError, AttributeError) as error:
                    said = str(getattr(error, "stderr", None) or error)
                    note(
                        "infuse's own attention for CPUs could not be built, torch's is used (about half as fast): "
                        f"{said.strip().splitlines()[-1][:300] if said.strip() else type(error).__name__}. "
                        "Install a C++ compiler (GCC 11 or later, or name one in CXX), or set INFUSE_KERNELS=off to leave it."
                    )
        if KERNEL.run is None:
            return False
        for width in widths:
            for keys in (LONG + 1, LONG):
                if dtype is not None and dtype in PATHS and (dtype == torch.float32 or width % 2 == 0):
                    choose(dtype, width, keys)
                    KERNEL.asked.add((dtype, width, keys > LONG))
        return True


def usable() -> bool:
    """Could this machine run it, and is it wanted?"""
    off = os.environ.get("INFUSE_KERNELS", "").lower() in ("off", "0", "no", "false")
    return not off and sys.platform == "linux" and torch.backends.cpu.get_cpu_capability() == "AVX512"


def folder() -> Path:
    """Where libraries are kept, one folder for each source, set of flags and torch. One of this process alone if none can be made."""
    own = os.environ.get("TORCH_EXTENSIONS_DIR")
    mark = hashlib.sha256(SOURCE.read_bytes() + " ".join([*FLAGS, torch.__version__]).encode()).hexdigest()[:16]
    try:
        cache = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "infuse"
        found = cache / f"infuse-attention-{mark}"
        found.mkdir(parents=True, exist_ok=True)
        if os.access(found, os.W_OK) or (found / LIBRARY).exists():
            return found
    except (OSError, RuntimeError):  # nobody's home
        pass
    return Path(tempfile.mkdtemp(prefix="infuse-attention-"))


def built(where: Path, flags: Iterable[str] = ()) -> Path:
    """The library, made now if it is not there: by CXX, or the first compiler on the PATH."""
    library = where / LIBRARY
    if not library.exists():
        command = shlex.split(os.environ.get("CXX", "")) or [
            next((c for c in ("c++", "g++", "clang++") if shutil.which(c)), "c++")
        ]
        handle, fresh = tempfile.mkstemp(suffix=".so", dir=where)
        os.close(handle)
        try:
            subprocess.run(
                [*command, *FLAGS, *flags, str(SOURCE), "-o", fresh],
                check=True,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            os.replace(fresh, library)
        finally:
            Path(fresh).unlink(missing_ok=True)
    return library


def adopt(library: Path) -> None:
    """Load it, after torch: its threads are those of torch's OpenMP. What had been decided on this machine is read."""
    loaded = ctypes.CDLL(str(library))
    KERNEL.paths = loaded.infuse_attention_paths()
    if not KERNEL.paths:
        return
    run = loaded.infuse_attention
    run.argtypes = [*[ctypes.c_void_p] * 5, ctypes.c_float, ctypes.c_void_p]
    register()
    KERNEL.book = library.with_name(f"chosen-{machine()}.json")
    KERNEL.chosen = {k: path for k, path in recalled(KERNEL.book).items() if not path & ~KERNEL.paths}
    KERNEL.run = run


def register() -> None:
    """`torch.ops.infuse.attention`, an operator like torch's own: compiled graphs go through it without a break."""
    if KERNEL.registered is None:
        KERNEL.registered = torch.library.Library("infuse", "FRAGMENT")
        KERNEL.registered.define("attention(Tensor q, Tensor k, Tensor v, Tensor? bias, int path) -> Tensor")
        KERNEL.registered.impl("attention", attended, "CPU")
        torch.library.register_fake("infuse::attention", like, lib=KERNEL.registered)


def like(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, path: int) -> Tensor:
    """An empty answer (b n L d), which lies in memory as (b L n d)."""
    b, n, places, d = q.shape
    return q.new_empty(b, places, n, d).transpose(1, 2)


def attended(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, path: int) -> Tensor:
    """The kernel's answer. Raises MemoryError."""
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))
    b, n, places, d = q.shape
    keys, out = k.shape[2], like(q, k, v, bias, path)
    if bias is not None:
        bias = bias.to(torch.float32).expand(b, n, places, keys)
        bias = bias.contiguous() if bias.stride(2) and bias.stride(3) != 1 else bias
    numbers = (
        *(b, n, places, keys, d),
        *(stride for t in (q, k, v, out) for stride in t.stride()[:3]),
        *((0, 0, 0, 0) if bias is None else bias.stride()),
        *(torch.get_num_threads(), path),
    )
    data = (None if t is None else t.data_ptr() for t in (q, k, v, bias, out))
    if KERNEL.run(*data, d**-0.5, (ctypes.c_int64 * len(numbers))(*numbers)):
        raise MemoryError(f"no memory to pack the keys of {b} x {n} heads, {keys} places each")
    return out


def measured(dtype: torch.dtype, width: int, many: bool) -> int:
    """The fastest of all who could, on some noise of this kind; in turns, the best of some rounds. Seconds of the processor, of one
    thread: what else runs on the machine has no say, and with more of them all are faster alike."""
    places, keys = (512, 512) if many else (1024, 77)
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, n, 8, width, generator=noise).to(dtype).transpose(1, 2) for n in (places, keys, keys))
    asked: dict[int, Callable[[], Tensor]] = {TORCH: partial(F.scaled_dot_product_attention, q, k, v)}
    asked |= {path: partial(attended, q, k, v, None, path) for path in PATHS[dtype] if path & KERNEL.paths}
    best = dict.fromkeys(asked, float("inf"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            for _ in range(ROUNDS):
                for path, ask in asked.items():
                    begin = time.thread_time()
                    ask()
                    best[path] = min(best[path], time.thread_time() - begin)
    finally:
        torch.set_num_threads(threads)
    path = min(best, key=best.__getitem__)
    return path if best[path] < MARGIN * best[TORCH] else TORCH


def machine() -> str:
    """A mark of what measurements are true for: this processor."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        text = ""
    said = sorted({line for line in text.splitlines() if line.startswith(("model name", "flags"))})
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def remember() -> None:
    """Write down what has been decided, for processes to come."""
    if KERNEL.book is None:
        return
    names = {
        f"{str(d).removeprefix('torch.')} {w} {'long' if many else 'short'}": path
        for (d, w, many), path in KERNEL.chosen.items()
    }
    try:
        handle, fresh = tempfile.mkstemp(suffix=".json", dir=KERNEL.book.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(names, file, indent=1, sort_keys=True)
        os.replace(fresh, KERNEL.book)
    except OSError:
        pass  # measured again, then


def recalled(book: Path) -> dict[tuple[torch.dtype, int, bool], int]:
    """What has been written down; nothing, if that cannot be read."""
    try:
        said = json.loads(book.read_text("utf-8"))
        words = {tuple(name.split()): int(path) for name, path in said.items()}
        return {(getattr(torch, d), int(w), size == "long"): path for (d, w, size), path in words.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}

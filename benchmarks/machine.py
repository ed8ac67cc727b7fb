"""The machine below it all: what it is, what its library's best product reaches, what a process takes of its memory."""

from __future__ import annotations

import gc
import os
import platform
import re
import time
import warnings
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

SIDE = {"cpu": 3072, "cuda": 8192}
"""Of the square matrices whose product is taken as the machine's limit."""


def quiet() -> None:
    """Libraries say what they think of random weights; what fails is in the results."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    of_diffusers.set_verbosity_error()
    of_transformers.set_verbosity_error()
    warnings.simplefilter("ignore")


def facts(device: str) -> dict[str, Any]:
    """Hardware and versions; no names of hosts or users."""
    out: dict[str, Any] = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "diffusers", "transformers")},
        "busy": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }
    if device.startswith("cuda"):
        found = torch.cuda.get_device_properties(device)
        out |= {"gpu": found.name, "gpu_memory": found.total_memory, "cuda": torch.version.cuda}
    return out


def processor() -> str:
    """Its name, and which of the extensions it has that decide here."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"^model name\s*: (.*)$", text, re.M)
    has = [f for f in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if re.search(rf"\b{f}\b", text)]
    return f"{name[1].strip() if name else platform.machine()} ({', '.join(has)})"


def product(dtype: torch.dtype, device: str, side: int | None = None, repeats: int = 3) -> float:
    """FLOP per second of a large product, the best of some: the peak that shares are given of."""
    n = side or SIDE[device.partition(":")[0]]
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    best = 1e9
    for _ in range(repeats + 1):  # the first one warms up
        wait(device)
        begin = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * n**3 / best


def copying(device: str, size: int = 2**28) -> float:
    """Bytes read and written per second by a copy of a large tensor."""
    a = torch.ones(size // 4, device=device)
    b, best = torch.empty_like(a), 1e9
    for _ in range(4):
        wait(device)
        begin = time.perf_counter()
        b.copy_(a)
        wait(device)
        best = min(best, time.perf_counter() - begin)
    return 2 * size / best


def wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def fresh(device: str) -> None:
    """From now on the peak is measured."""
    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):  # where this cannot be, it is the peak of the process
        Path("/proc/self/clear_refs").write_text("5")


def now(device: str) -> int:
    """Bytes taken at present: of a CPU, what of this process lies in memory."""
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated()
    return _status("VmRSS")


def peak(device: str) -> int:
    """Bytes at the highest since `fresh`."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(what: str) -> int:
    try:
        text = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = re.search(rf"^{what}:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 0


def available() -> int:
    """Bytes that a process may still take without harm."""
    try:
        text = Path("/proc/meminfo").read_text("utf-8")
    except OSError:
        return 2**62
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", text, re.M)
    return int(found[1]) * 1024 if found else 2**62

"""Our attention beside torch's on a CPU, at Stable Diffusion's shapes, in turns: `python -m benchmarks.attention [--threads N]`.

Two figures per row: seconds on the wall of all threads, which others' work on the machine disturbs, and seconds of the processor
of one thread, which it hardly does. Minima of some rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from infuse.network import attending

SHAPES = {
    "SD 64x64": (2, 8, 4096, 4096, 40),
    "SD 32x32": (2, 8, 1024, 1024, 80),
    "SD 16x16": (2, 8, 256, 256, 160),
    "SD 8x8": (2, 8, 64, 64, 160),
    "SD 64x64, words": (2, 8, 4096, 77, 40),
    "SD 32x32, words": (2, 8, 1024, 77, 80),
    "SD 16x16, words": (2, 8, 256, 77, 160),
    "SD 64x64, IP-Adapter": (2, 8, 4096, 4, 40),
    "SD 64x64, IP-Adapter plus": (2, 8, 4096, 16, 40),
    "SD 2 64x64": (2, 5, 4096, 4096, 64),
    "SDXL 64x64": (2, 10, 4096, 4096, 64),
    "SDXL 32x32": (2, 20, 1024, 1024, 64),
    "SDXL 64x64, words": (2, 10, 4096, 77, 64),
    "SDXL 32x32, words": (2, 20, 1024, 77, 64),
}
"""Rows, heads, places, keys, width of a head."""


def best(asked: list[Callable[[], Tensor]], clock: Callable[[], float], rounds: int, repeats: int) -> list[float]:
    """Seconds of each, in turns."""
    found = [float("inf")] * len(asked)
    for _ in range(rounds):
        for i, ask in enumerate(asked):
            begin = clock()
            for _ in range(repeats):
                ask()
            found[i] = min(found[i], (clock() - begin) / repeats)
    return found


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), nargs="*", default=("bfloat16", "float32"))
    said = parser.parse_args()
    torch.set_num_threads(said.threads)
    begin = time.perf_counter()
    if not attending.prepare():
        raise SystemExit("there is no kernel on this machine")
    print(f"built or loaded in {time.perf_counter() - begin:.2f} s; {said.threads} threads; torch {torch.__version__}")
    print(
        "| product | format | ours, ms | torch, ms | times faster | ours, TFLOP/s | one thread: ours, ms | torch, ms | times |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for dtype in (getattr(torch, name) for name in said.dtype):
        for name, (b, n, places, keys, d) in SHAPES.items():
            q, k, v = (torch.randn(b, m, n, d).to(dtype).transpose(1, 2) for m in (places, keys, keys))
            path = max(p for p in attending.PATHS[dtype] if p & attending.KERNEL.paths)
            asked = [
                lambda q=q, k=k, v=v, path=path: attending.attended(q, k, v, None, path),
                lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v),
            ]
            flops = 4 * b * n * places * keys * d
            repeats = max(1, int(5e8 / flops))
            ours, torchs = best(asked, time.perf_counter, said.rounds, repeats)
            torch.set_num_threads(1)
            alone, beside = best(asked, time.thread_time, 3, repeats)
            torch.set_num_threads(said.threads)
            print(
                f"| {name} ({b}, {n}, {places}, {keys}, {d}) | {str(dtype).removeprefix('torch.')} | {ours * 1e3:.2f} | {torchs * 1e3:.2f}"
                f" | {torchs / ours:.2f} | {flops / ours / 1e12:.3f} | {alone * 1e3:.2f} | {beside * 1e3:.2f} | {beside / alone:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

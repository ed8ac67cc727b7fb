"""Write a full-size random checkpoint in the original layout, and load it: for machines without any real one.

    python -m tests.weights.make_full sdxl OUT.safetensors          # 6.9 GB; sd15 2.1 GB, sd21 2.6 GB, sd15-inpaint, ...
    python -m tests.weights.make_full --load OUT.safetensors float16

Streamed: it needs memory for one tensor. Weights are normal with a deviation of 0.02, norms 1, biases 0, so activations
stay finite in half precision. The values repeat with a long period; nobody will look at the pictures.
"""

from __future__ import annotations

import json
import re
import resource
import struct
import sys
import time
from math import prod
from pathlib import Path

import numpy as np

NORM = re.compile(
    r"(^|\.)(norm\w*|group_norm|ln_\w+|layer_norm\d|final_layer_norm|in_layers\.0|out_layers\.0|out\.0)\.weight$"
)
POOL = 2**22


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of the published form, with its shape."""
    from tests.weights import full

    return {k: tuple(v.shape) for k, v in full.checkpoint(name).items()}


def write(name: str, path: Path, seed: int = 0) -> None:
    """Write one checkpoint of halves."""
    shapes = shapes_of(name)
    table, end = {}, 0
    for key, shape in shapes.items():
        table[key] = {"dtype": "F16", "shape": shape, "data_offsets": [end, end := end + 2 * prod(shape)]}
    head = json.dumps(table).encode()
    head += b" " * (-len(head) % 8)
    rng = np.random.default_rng(seed)
    pool = np.tile((rng.standard_normal(POOL) * 0.02).astype(np.float16), 2)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for key, shape in shapes.items():
            left = prod(shape)
            if NORM.search(key) or key.endswith("bias"):
                f.write(np.full(left, float(not key.endswith("bias")), np.float16).tobytes())
                continue
            while left:
                start, count = int(rng.integers(POOL)), min(left, POOL)
                f.write(pool[start : start + count].tobytes())
                left -= count


def load(path: Path, dtype: str) -> None:
    """Load it, run one tiny step, and say what that took."""
    import torch

    from infuse.weights.base import load_base

    start = time.perf_counter()
    parts = load_base(path, dtype=getattr(torch, dtype))
    spec, taken = parts.spec, time.perf_counter() - start
    print(
        f"{spec.described}: loaded in {taken:.1f} s, {spec.parameters / 1e6:.1f} M parameters in the UNet, {_memory()}"
    )
    x, context = torch.randn(1, spec.in_channels, 16, 16), torch.randn(1, 77, spec.context_width)
    added = {k: torch.zeros(1, w) for k, w in spec.embedding_slots.items()}
    with torch.no_grad():
        unet = parts.unet
        out = unet(
            x.to(unet.dtype),
            500,
            context.to(unet.dtype),
            added_cond_kwargs={k: v.to(unet.dtype) for k, v in added.items()},
        )
        picture = parts.vae.decode(torch.randn(1, 4, 8, 8, dtype=parts.vae.dtype))
        words = [e(torch.ones(1, 77, dtype=torch.long)).last_hidden_state for e in parts.text_encoders]
    finite = all(t.isfinite().all() for t in (out.sample, picture.sample, *words))
    print(
        f"one step: std {out.sample.float().std():.3f}, everything finite: {finite}, {_memory()}, notes: {parts.notes}"
    )


def _memory() -> str:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    anonymous, mapped = (int(status[k].split()[0]) / 2**20 for k in ("RssAnon", "RssFile"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"peak RSS {peak:.1f} GiB, now {anonymous:.1f} GiB of our own and {mapped:.1f} GiB mapped from the file"


if __name__ == "__main__":
    if sys.argv[1] == "--load":
        load(Path(sys.argv[2]), sys.argv[3])
    else:
        write(sys.argv[1], Path(sys.argv[2]))

"""How long will a run take? Multiplications are counted from the network's numbers, and this machine is timed for a moment.

An estimate: what a processor does in a large product of matrices, times the part of it that networks reach, and what Python
needs for each call. Loading is not in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from infuse import processor
from infuse.network.spec import NetworkSpec

TOKENS = 77
BRANCH = 0.4
"""Of the UNet's work: a ControlNet is its encoder and its middle."""
CLIP = 1.35
"""Of a picture's work for each frame: the layers along time."""
REACHED = 0.55
"""Of a large product's speed, in a whole run of SD 1.5's widths on a CPU: attention and norms count for little and take long."""
CALL = 0.012
"""Seconds that a call takes however small the network is: a thousand operations from Python."""
REACHED_GPU = 0.3
"""The same of a GPU: what is published of SD 1.5 in half precision, not measured here."""
MOMENT = 0.06
"""Seconds of timing."""

_rates: dict[tuple[str, str], float] = {}
"""(device, dtype) -> operations a second, as measured in this process."""


def flops(
    spec: NetworkSpec, size: tuple[int, int], frames: int, rows: int, branch_rows: int, count: int, vae_width: int
) -> float:
    """Floating-point operations of a run. rows: of all evaluations of all pictures (windows of clips, too)."""
    width, height = (s // spec.vae_factor for s in size)
    own = min(frames, spec.frames) if spec.frames else 1
    each = unet(spec.config, height, width) * own * (CLIP if own > 1 else 1)
    return each * (rows + BRANCH * branch_rows) + decoding(size, vae_width) * count * frames


def unet(config: Mapping[str, Any], height: int, width: int) -> float:
    """Of one row on a latent of this size."""
    widths = tuple(config.get("block_out_channels") or (320, 640, 1280, 1280))
    levels, places = len(widths), [height * width / 4**i for i in range(len(widths))]
    kinds = config.get("down_block_types") or ("CrossAttnDownBlock2D",) * (levels - 1) + ("DownBlock2D",)
    crossed = ["CrossAttn" in str(k) for k in kinds]
    context = _number(config.get("cross_attention_dim") or 768)
    layers = [_at(config.get("layers_per_block", 2), i) for i in range(levels)]
    depths = [_at(config.get("transformer_layers_per_block", 1), i) for i in range(levels)]
    total = 18.0 * widths[0] * places[0] * (int(config.get("in_channels", 4)) + 4)
    before = widths[0]
    for i, c in enumerate(widths):
        following = widths[min(i + 1, levels - 1)]
        attended = _attended(c, places[i], depths[i], context) if crossed[i] else 0.0
        total += (
            _resnet(before, c, places[i]) + (layers[i] - 1) * _resnet(c, c, places[i]) + layers[i] * attended
        )  # down
        # up: what comes from below, and the skips; on average they are as wide as the level
        total += (
            layers[i] * _resnet(2 * c, c, places[i]) + _resnet(following + c, c, places[i]) + (layers[i] + 1) * attended
        )
        total += 18 * c * c * (places[i + 1] + places[i]) if i + 1 < levels else 0.0
        before = c
    last = widths[-1]
    return total + 2 * _resnet(last, last, places[-1]) + _attended(last, places[-1], depths[-1], context)


def decoding(size: tuple[int, int], width: int) -> float:
    """Of a VAE whose levels are 1, 2, 4 and 4 times as wide, three blocks each."""
    pixels = size[0] * size[1]
    levels = ((1, 1.0), (2, 1 / 4), (4, 1 / 16), (4, 1 / 64))
    return sum(6 * 18 * (m * width) ** 2 * pixels * share for m, share in levels) * 1.3


def _resnet(inside: float, out: float, places: float) -> float:
    return 18 * (inside * out + out * out) * places + (2 * inside * out * places if inside != out else 0)


def _attended(c: float, places: float, depth: float, context: float) -> float:
    own = 8 * c * c * places + 4 * places * places * c
    read = 4 * c * c * places + 4 * TOKENS * c * (context + places)
    return 4 * c * c * places + depth * (own + read + 24 * c * c * places)


def _at(value: Any, i: int) -> float:
    return _number(value[min(i, len(value) - 1)]) if isinstance(value, list | tuple) else _number(value)


def _number(value: Any) -> float:
    """One for lists of several, as networks that were cut down have them."""
    several = list(value) if isinstance(value, list | tuple) else [value]
    return sum(_number(v) if isinstance(v, list | tuple) else float(v or 0) for v in several) / max(len(several), 1)


def seconds(work: float, calls: int, device: str, dtype: str) -> float | None:
    """About how long so many operations in so many network calls take here; None where nothing is known of the device."""
    kind = device.partition(":")[0]
    rate = on_cpu(dtype) if kind == "cpu" else on_gpu(device, dtype) if "torch" in sys.modules else None
    return None if rate is None else work / rate + calls * (CALL if kind == "cpu" else 3 * CALL)


def on_cpu(dtype: str = "float32") -> float:
    """Operations a second that networks reach on this CPU: a product of matrices is timed for a moment, once in a process."""
    if ("cpu", "") not in _rates:
        import numpy as np

        a = np.ones((512, 512), dtype=np.float32)
        np.dot(a, a)
        done, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < MOMENT:
            np.dot(a, a)
            done += 1
        _rates["cpu", ""] = REACHED * done * 2 * 512**3 / took
    faster = (
        processor.bfloat16() if dtype == "bfloat16" else None
    ) or 0.5  # halves are emulated, where they are not computed in
    return _rates["cpu", ""] if dtype == "float32" else _rates["cpu", ""] * faster


def on_gpu(device: str, dtype: str) -> float:
    """The same of a GPU, by torch, which whoever asks has loaded."""
    if (device, dtype) not in _rates:
        import torch

        a = torch.ones(
            (4096, 4096) if device.startswith("cuda") else (512, 512), dtype=getattr(torch, dtype), device=device
        )
        float((a @ a)[0, 0])
        done, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < MOMENT:
            float((a @ a)[0, 0])  # waits for it
            done += 1
        _rates[device, dtype] = REACHED_GPU * done * 2 * len(a) ** 3 / took
    return _rates[device, dtype]


def in_words(duration: float) -> str:
    """ "about 40 s", "about 3 min": an estimate is not told to the second."""
    for unit, size in (("h", 3600), ("min", 60)):
        if duration >= 2 * size:
            return f"about {duration / size:.2g} {unit}"
    return f"about {duration:.2g} s" if duration < 100 else f"about {round(duration, -1):.0f} s"

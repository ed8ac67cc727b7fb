"""How much memory will these weights take? Counted from the header, before anything is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import prod

from infuse.weights.formats import Header
from infuse.weights.kinds import Identity

WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "F64": 8, "F32": 4, "F16": 2, "BF16": 2}
PASSENGERS = ("model_ema.", "depth_model.", "embedder.", "control_model.")
EYE = "embedder.model.visual."
"""An unCLIP model's image encoder; the rest of that CLIP is a passenger."""
SDXL_VAE = 83_653_863
"""Parameters of the VAE that stays in float32 when half precision is asked for."""


def estimate(header: Header, dtype: str, identity: Identity | None = None) -> int:
    """Bytes of the loaded weights in `dtype` ("float16", "torch.bfloat16"); activations come on top.

    Training leftovers (EMA copies, a ControlNet's own base) are not counted. Raises ValueError for an unknown dtype.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in WIDTHS:
        raise ValueError(f"dtype {dtype!r} is none of {', '.join(WIDTHS)}")
    alone = identity is not None and identity.kind != "base" and bool(identity.prefix)
    if identity is not None and identity.kind == "control_lora":
        return grown(header.shapes()) * WIDTHS[name]
    total = 0
    for key, entry in header.items():
        own = (
            key.startswith(identity.prefix)
            if alone and identity
            else key.startswith(EYE) or not key.startswith(PASSENGERS)
        )
        if own and entry.floating:
            total += entry.numel * WIDTHS[name]
    if name in ("float16", "F16") and identity is not None and identity.kind == "base" and identity.family == "sdxl":
        total += SDXL_VAE * 2
    return total


DOWN = re.compile(r"\.(down|lora_down\.weight|lora_A\.weight|lora\.down\.weight)$")
UP = re.compile(r"\.(up|lora_up\.weight|lora_B\.weight|lora\.up\.weight)$")


def grown(shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Numbers in the network that a Control-LoRA becomes beside its base: each pair of factors is one whole layer there."""
    downs = {DOWN.sub("", k): s for k, s in shapes.items() if DOWN.search(k)}
    ups = {UP.sub("", k): s for k, s in shapes.items() if UP.search(k)}
    whole = sum(prod(s) for k, s in shapes.items() if not DOWN.search(k) and not UP.search(k))
    return whole + sum(ups[k][0] * prod(s[1:]) for k, s in downs.items() if ups.get(k))

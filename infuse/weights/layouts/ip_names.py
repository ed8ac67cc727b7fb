"""An IP-Adapter's own trainer saves everything it held: the frozen UNet, the projection, and K and V under one or two names.

Released files number K and V by the list of all attentions, down, up, middle, self-attention first: the i-th
cross-attention has the number 2 i + 1. Names only; imports no torch. Source: tencent-ailab/IP-Adapter @ 62e4af9,
tutorial_train.py; accelerate's safetensors keep one name of tensors that have two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

PROJECTION, NUMBERED = "image_proj_model.", "adapter_modules."
PLACE = re.compile(
    r"unet\.(down|up|mid)_blocks?\.(?:(\d+)\.)?attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn2\.(?:processor\.(to_[kv]_ip\.weight))?"
)
SIDES = ("down", "up", "mid")


def released_names(keys: Iterable[str]) -> dict[str, str]:
    """Key of a trainer's checkpoint -> key of a released file, of what belongs to the adapter; {} for any other file."""
    keys = list(keys)
    if not any(k.startswith(PROJECTION) for k in keys) or not any(k.endswith("to_k_ip.weight") for k in keys):
        return {}
    places = {k: m for k in keys if (m := PLACE.match(k))}
    order = {at: 2 * i + 1 for i, at in enumerate(sorted({_at(m) for m in places.values()}))}
    found = {k: f"image_proj.{k.removeprefix(PROJECTION)}" for k in keys if k.startswith(PROJECTION)}
    found |= {k: f"ip_adapter.{k.removeprefix(NUMBERED)}" for k in keys if k.startswith(NUMBERED)}
    taken = set(found.values())
    twins = {k: f"ip_adapter.{order[_at(m)]}.{m[5]}" for k, m in places.items() if m[5]}
    return found | {k: name for k, name in twins.items() if name not in taken}


def _at(place: re.Match[str]) -> tuple[int, int, int, int]:
    return SIDES.index(place[1]), int(place[2] or 0), int(place[3]), int(place[4])

"""Which projection an IP-Adapter's file holds: its tensors say so. Names and shapes only; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infuse.errors import WeightsError

KINDS = {"plain": "image_proj.proj.weight", "full": "image_proj.proj.3.weight", "plus": "image_proj.proj_in.weight"}


def variant(shapes: Mapping[str, Any], model: str) -> str:
    """Which projection a file holds, by its tensors. Raises WeightsError for those that need faces."""
    if "image_proj.perceiver_resampler.proj_in.weight" in shapes or (
        "image_proj.proj.2.weight" in shapes and "image_proj.norm.weight" in shapes
    ):
        raise WeightsError(
            "model",
            f"{model!r} is a FaceID adapter: it needs face vectors, not pictures. Use a plain, plus or full one.",
        )
    if "image_proj.latents" in shapes and shapes["image_proj.proj_in.weight"][1] == 512:
        raise WeightsError(
            "model",
            f"{model!r} belongs to InstantID: it needs face vectors, not pictures. Use a plain, plus or full one.",
        )
    for kind in ("full", "plain", "plus"):
        if KINDS[kind] in shapes:
            return kind
    raise WeightsError("model", f"{model!r} has no image projection that is known here. Is it an IP-Adapter?")

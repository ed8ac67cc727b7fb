"""How much memory will a run take at its peak, and is there as much? Asked before anything is loaded or drawn.

Weights are counted; what a network call and decoding need beside them is estimated from widths and sizes. The factors were
measured on a CPU with fused attention, at 512 px in float32, on networks of SD 1.x's size: 36 to 39, and 7.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from infuse import processor
from infuse.conditions.base import Condition
from infuse.encoders import room
from infuse.engine.digests import named_by
from infuse.engine.places import place_of
from infuse.errors import CapacityError, WeightsError
from infuse.network.spec import NetworkSpec
from infuse.recipe import Recipe
from infuse.weights.estimate import WIDTHS

CALL = 40
"""Values that a UNet keeps at a time for each place of the latent and each channel of its widest resolution."""


def working(spec: NetworkSpec, size: tuple[int, int], frames: int, rows: int, count: int, most: int, view: Any) -> int:
    """Bytes beside the weights: the larger of a network call and the decoding of one picture, and what is kept until the end.

    rows: of one picture in an evaluation. most: rows of a call.
    """
    width, height = size
    places = (width // spec.vae_factor) * (height // spec.vae_factor)
    each = WIDTHS[view.dtype]
    own = min(frames, spec.frames) if spec.frames else 1
    together = max(1, min(rows * count, most)) if own == 1 else max(1, most // own) * own
    call = together * CALL * spec.widths[0] * places * each
    decoding = decoded(view, width * height)
    latents = count * frames * places * spec.latent_channels * each
    kept = count * frames * 3 * width * height + 4 * latents  # pictures; start, noise, input and state of each solver
    return max(call, decoding) + kept


def eyes(conditions: Iterable[Condition], view: Any) -> int:
    """Bytes of the image encoders that conditions name or find beside their models, each once; the base's own is counted with it."""
    names = {name for c in conditions for field, name in named_by(c) if field == "image_encoder"}
    total = 0
    for name in names:
        with suppress(WeightsError):  # a folder without weights: whoever loads it says so
            total += place_of(view.store.library, name, "vision", "image_encoder").size(view.dtype)
    return total


def decoded(view: Any, pixels: int) -> int:
    """Bytes of decoding one picture: whole where the device could hold that, else in strips. What overflows in float16 takes float32."""
    each = 2 if view.dtype == "bfloat16" else 4
    whole, strips = (room.decoding(view.vae_width, pixels, each, values) for values in (room.WHOLE, room.STRIPS))
    return whole if view.memory + whole <= available(view.device) else strips


def available(device: str) -> int:
    """Bytes that the device has in all."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_properties(device).total_memory
    return processor.memory()


def must_fit(peak: int, weights: int, recipe: Recipe, size: tuple[int, int], device: str) -> None:
    """Raises CapacityError, with the peak, if the device could not hold it even if nobody else used it."""
    there = available(device)
    if peak <= there:
        return
    field = "count" if recipe.count > 1 else "model" if weights > there else "width"
    what = {"count": "Ask for fewer pictures at a time, or smaller ones", "width": "Make it smaller, and upscale afterwards",
            "model": "Choose a smaller model, or a dtype of two bytes"}[field]  # fmt: skip
    raise CapacityError(
        field,
        f"{recipe.count} of {size[0]} x {size[1]} px would take {peak / 2**30:.1f} GiB at its peak "
        f"({weights / 2**30:.1f} GiB of weights), and {device} has {there / 2**30:.1f} GiB. {what}.",
    )

"""From finished latents to pictures: decode, and put back the pixels that were to stay."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.kit import Base
from infuse.engine.holes import stays
from infuse.engine.job import Job
from infuse.errors import RecipeError

SOFT = 1 / 40
"""Of the shorter side: over so much a pasted edge fades, all of it inside of the hole. 13 pixels of 512."""


def developed(base: Base, job: Job) -> tuple[Any, ...]:
    """PIL images of a finished job: its picture, or all frames of its clip, decoded one by one.

    A picture's bytes must not depend on those beside it, and memory does not grow with a clip's length. Raises RecipeError
    if the network's answers became infinite or NaN: what is saved is never made of them.
    """
    assert job.latent is not None
    finite(job.latent, job.seed)
    original, hole = stays(job.sides)
    if not base.spec.frames:
        return (picture(base, job.latent, original, hole),)
    frames = job.latent.unbind(1)
    kept: Any = [(None, None)] * len(frames)
    if original is not None and hole is not None:
        kept = zip(original.unbind(1), hole.unbind(1), strict=True)
    return tuple(picture(base, z, *stay) for z, stay in zip(frames, kept, strict=True))


def finite(latent: Tensor, seed: int) -> None:
    if not latent.isfinite().all():
        raise RecipeError("", f"the network's answers became infinite or NaN (seed {seed}). Weights and guidance far above 1 do that, and half "
                              "precision with some models; lower them, or use bfloat16 or float32.")  # fmt: skip


def picture(base: Base, z: Float[Tensor, "c h w"], original: Tensor | None, hole: Tensor | None) -> Any:
    """One PIL image, with what is to stay of the original."""
    from PIL import Image

    image = base.decode(z[None])[0].cpu()
    if original is not None and hole is not None:
        image = pasted(image, original.to(image), hole.to(image))
    return Image.fromarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def pasted(
    image: Float[Tensor, "3 height width"],
    original: Float[Tensor, "3 height width"],
    hole: Float[Tensor, "1 height width"],
) -> Float[Tensor, "3 height width"]:
    """Original pixels outside of the hole; pixel for pixel unchanged there, faded in inside of it."""
    return image * (alpha := feather(hole)) + original * (1 - alpha)


def feather(hole: Float[Tensor, "1 height width"]) -> Float[Tensor, "1 height width"]:
    """0 outside of the hole, rising to 1 within `SOFT` inside of it (to 1 in its middle, if it is narrower)."""
    rings, inside = hole, hole
    for _ in range(max(round(SOFT * min(hole.shape[-2:])), 1) - 1):
        inside = 1 - F.max_pool2d((1 - inside)[None], 3, 1, 1)[0]
        rings = rings + inside
    return rings / rings.max().clamp(min=1)

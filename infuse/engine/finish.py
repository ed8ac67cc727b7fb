"""From finished latents to pictures: decode, and put back the pixels that were to stay."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.kit import Base
from infuse.engine.job import Job
from infuse.ports import Ports

SOFT = 1 / 40
"""Of the shorter side: over so much a pasted edge fades, all of it inside of the hole. 13 pixels of 512."""


def pictures(base: Base, latents: Float[Tensor, "b c h w"], jobs: Sequence[Job]) -> list[Any]:
    """PIL images. Each is decoded alone: its bytes must not depend on the pictures beside it."""
    return [developed(base, z, *stays(job)) for z, job in zip(latents, jobs, strict=True)]


def clips(base: Base, latents: Float[Tensor, "b c f h w"], jobs: Sequence[Job]) -> list[tuple[Any, ...]]:
    """PIL images of every clip's frames, decoded one by one: memory does not grow with their number."""
    out = []
    for clip, job in zip(latents, jobs, strict=True):
        original, hole = stays(job)
        kept = [(None, None)] * clip.shape[1]
        if original is not None and hole is not None:
            kept = list(zip(original.unbind(1), hole.unbind(1), strict=True))
        out.append(tuple(developed(base, z, *stay) for z, stay in zip(clip.unbind(1), kept, strict=True)))
    return out


def developed(base: Base, z: Float[Tensor, "c h w"], original: Tensor | None, hole: Tensor | None) -> Any:
    """One PIL image, with what is to stay of the original."""
    from PIL import Image

    image = base.decode(z[None])[0].cpu()
    if original is not None and hole is not None:
        image = pasted(image, original.to(image), hole.to(image))
    return Image.fromarray((image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())


def stays(job: Job) -> tuple[Tensor | None, Tensor | None]:
    """(original, hole) of a picture (c height width) or clip (c f height width) that is repainted; every hole is one."""
    said = reduce(add, (s.on for s in job.sides.values()), Ports()).latent
    pairs = [e.paste for e in said if e.paste is not None]
    return (pairs[0][0], reduce(torch.maximum, (h for _, h in pairs))) if pairs else (None, None)


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

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

SOFT = 8
"""Pixels over which a pasted edge fades, all of them inside of the hole."""


def pictures(base: Base, latents: Float[Tensor, "b c h w"], jobs: Sequence[Job]) -> list[Any]:
    """PIL images. Each is decoded alone: its bytes must not depend on the pictures beside it."""
    from PIL import Image

    out = []
    for z, job in zip(latents, jobs, strict=True):
        image = pasted(base.decode(z[None])[0].cpu(), job)
        array = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        out.append(Image.fromarray(array))
    return out


def clips(base: Base, latents: Float[Tensor, "b c f h w"], jobs: Sequence[Job]) -> list[tuple[Any, ...]]:
    """PIL images of every clip's frames, decoded one by one: memory does not grow with their number."""
    return [tuple(pictures(base, z.transpose(0, 1), [job] * z.shape[1])) for z, job in zip(latents, jobs, strict=True)]


def pasted(image: Float[Tensor, "3 height width"], job: Job) -> Float[Tensor, "3 height width"]:
    """Original pixels outside of every hole; pixel for pixel unchanged there, faded in inside of it."""
    said = reduce(add, (s.on for s in job.sides.values()), Ports()).latent
    pairs = [e.paste for e in said if e.paste is not None]
    if not pairs:
        return image
    original = pairs[0][0].to(image)
    hole = reduce(torch.maximum, (h for _, h in pairs)).to(image)
    return image * (alpha := feather(hole)) + original * (1 - alpha)


def feather(hole: Float[Tensor, "1 height width"]) -> Float[Tensor, "1 height width"]:
    """0 outside of the hole, rising to 1 within `SOFT` pixels inside of it (to 1 in its middle, if it is narrower)."""
    rings, inside = hole, hole
    for _ in range(SOFT - 1):
        inside = 1 - F.max_pool2d((1 - inside)[None], 3, 1, 1)[0]
        rings = rings + inside
    return rings / rings.max().clamp(min=1)

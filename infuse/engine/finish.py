"""From finished latents to pictures: decode, and put back the pixels that were to stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.kit import Base
from infuse.engine.carried import glimpsed
from infuse.engine.holes import stays
from infuse.engine.job import Job
from infuse.engine.resolve import Resolved
from infuse.engine.result import Result
from infuse.errors import InfuseError, RecipeError
from infuse.notices import gathers
from infuse.recipe import Recipe

SOFT = 1 / 40
"""Of the shorter side: over so much a pasted edge fades, all of it inside of the hole. 13 pixels of 512."""


class Asked(Protocol):
    """A ticket, as far as its result depends on it."""

    warnings: list[str]
    weights: Mapping[str, str]

    @property
    def resolved(self) -> Resolved: ...
    @property
    def recipe(self) -> Recipe: ...


def finished(ticket: Asked, base: Base, jobs: Sequence[Job], develop: Callable[..., tuple[Any, ...]]) -> Result:
    """A ticket's pictures. One that cannot be developed is a warning among several, and an error if it is the only one."""
    resolved, made, lost = ticket.resolved, [], []
    for job in jobs:
        try:
            with gathers() as notes:
                made.append((job, develop(base, job, resolved.size)))
            ticket.warnings += [n for n in notes if n not in ticket.warnings]
        except InfuseError as error:
            lost.append((job.seed, error))
    if not made:
        raise lost[0][1]
    ticket.warnings += [f"seed {seed} gave no picture: {error.message}" for seed, error in lost]
    seeds, recipe = tuple(job.seed for job, _ in made), ticket.recipe
    if lost:
        recipe = recipe.model_copy(update={"seed": seeds[0] if len(seeds) == 1 else seeds, "count": len(seeds)})
    frames: tuple[tuple[Any, ...], ...] = tuple(f for _, f in made)
    latents = torch.stack([job.latent for job, _ in made if job.latent is not None])
    return Result(
        tuple(f[0] for f in frames), recipe, latents, ticket.weights, frames if base.spec.frames else (), resolved.plain(),
        tuple(ticket.warnings), glimpsed(recipe, base.feature_extractor, resolved.speakers),
    )  # fmt: skip


def developed(base: Base, job: Job, size: tuple[int, int]) -> tuple[Any, ...]:
    """PIL images of a finished job, cut to `size` (width, height): its picture, or all frames of its clip, decoded one by one.

    A picture's bytes must not depend on those beside it, and memory does not grow with a clip's length. Raises RecipeError
    if the network's answers became infinite or NaN: what is saved is never made of them.
    """
    assert job.latent is not None
    if not job.latent.isfinite().all():
        raise RecipeError("", f"the network's answers became infinite or NaN (seed {job.seed}). Weights and guidance far above 1 do that, and "
                              "half precision with some models; lower them, or use bfloat16 or float32.")  # fmt: skip
    original, hole = stays(job.sides)
    if not base.spec.frames:
        return (picture(base, job.latent, original, hole, size),)
    frames = job.latent.unbind(1)
    kept: Any = [(None, None)] * len(frames)
    if original is not None and hole is not None:
        kept = zip(original.unbind(1), hole.unbind(1), strict=True)
    return tuple(picture(base, z, *stay, size=size) for z, stay in zip(frames, kept, strict=True))


def picture(
    base: Base, z: Float[Tensor, "c h w"], original: Tensor | None, hole: Tensor | None, size: tuple[int, int]
) -> Any:
    """One PIL image, with what is to stay of the original."""
    from PIL import Image

    image = base.decode(z[None])[0].cpu()
    if not image.isfinite().all():
        raise RecipeError("", "the VAE answered with NaN, in float32 too: its weights are damaged, or the latent is far from any picture. Try "
                              "another VAE, or lower weights and guidance.")  # fmt: skip
    if original is not None and hole is not None:
        image = pasted(image, original.to(image), hole.to(image))
    image = image[:, : size[1], : size[0]]
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

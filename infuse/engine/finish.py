"""From finished latents to pictures: decode, and put back the pixels that were to stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from infuse.constants import tensors
from infuse.encoders.kit import Base
from infuse.engine.carried import glimpsed
from infuse.engine.frame import After
from infuse.engine.holes import stays
from infuse.engine.job import Job
from infuse.engine.placement import nbytes, trim
from infuse.engine.resolve import Resolved
from infuse.engine.result import Result
from infuse.engine.wording import WORDS
from infuse.errors import InfuseError, RecipeError
from infuse.notices import gathers
from infuse.recipe import Recipe

SOFT = 1 / 40
"""Of the shorter side: over so much a pasted edge fades, all of it inside of the hole. 13 pixels of 512."""
LARGE = 2**18
"""Pixels of a picture whose decoding takes a gigabyte, about."""
OFTEN = 16
"""Requests after which freed memory goes back all the same: a process that serves all day would grow by its holes."""
_done = count(1)


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
    after = () if resolved.after is None else (resolved.after,)
    memory = in_use(base, jobs)
    if resolved.size[0] * resolved.size[1] >= LARGE or next(_done) % OFTEN == 0:
        trim()  # what the network's calls have left in pieces, before decoding asks for as much again
    for job in jobs:
        try:
            with gathers() as notes:
                made.append((job, develop(base, job, resolved.size, *after)))
            ticket.warnings += [n for n in notes if n not in ticket.warnings]
        except InfuseError as error:
            lost.append((job.seed, error))
    if not made:
        raise lost[0][1]
    ticket.warnings += [f"seed {seed} gave no picture: {error.message}" for seed, error in lost]
    recipe = ticket.recipe
    if lost:
        recipe = recipe.only([i for i, job in enumerate(jobs) if any(job is one for one, _ in made)])
    chosen = {one.asked.seeds[0]: {f: getattr(one.asked, f) for f in (*WORDS, "styles")} for one in resolved.each}
    frames: tuple[tuple[Any, ...], ...] = tuple(f for _, f in made)
    latents = torch.stack([job.latent for job, _ in made if job.latent is not None])
    return Result(
        tuple(f[0] for f in frames), recipe, latents, ticket.weights, frames if base.spec.frames else (), resolved.plain(),
        tuple(ticket.warnings), chosen, glimpsed(recipe, base.feature_extractor, resolved.speakers), memory,
    )  # fmt: skip


def in_use(base: Base, jobs: Sequence[Job]) -> dict[str, int]:
    """Bytes that these jobs hold: of weights, of what their conditions were encoded to, of what the network keeps from call to call
    (which other jobs under way may share)."""
    sides = {id(s): s for job in jobs for s in job.sides.values()}.values()
    said = [ports for s in sides for ports in (s.on, s.off)]
    through = [e.adapter for p in said for e in p.decoupled]
    through += [getattr(e, "branch", None) for p in said for e in p.residuals]
    through += [e.network for p in said for e in p.edits]
    return {
        "weights": nbytes(base, *through),
        "encodings": sum({t.data_ptr(): t.nbytes for t in tensors(said)}.values()),  # pictures of one recipe share them
        "constants": getattr(getattr(base.network, "constants", None), "nbytes", 0),
    } | ({"lossy": held} if (held := sum(job.held for job in jobs)) else {})


def developed(base: Base, job: Job, size: tuple[int, int], after: After | None = None) -> tuple[Any, ...]:
    """PIL images of a finished job, cut to `size` (width, height): its picture, or all frames of its clip, decoded one by one.
    after: what is done to them besides; a picture that was worked on in part is put back into the whole.

    A picture's bytes must not depend on those beside it, and memory does not grow with a clip's length. Raises RecipeError
    if the network's answers became infinite or NaN: what is saved is never made of them.
    """
    assert job.latent is not None
    if not job.latent.isfinite().all():
        raise RecipeError("", f"the network's answers became infinite or NaN (seed {job.seed}). Weights and guidance far above 1 do that, and "
                              "half precision with some models; lower them, or use bfloat16 or float32.")  # fmt: skip
    original, openings = stays(job.sides)
    if not base.spec.frames:
        return (picture(base, job.latent, original, openings, size, after),)
    frames = job.latent.unbind(1)
    if original is None:
        return tuple(picture(base, z, None, [], size) for z in frames)
    holes = zip(*(o.unbind(1) for o in openings), strict=True)
    return tuple(picture(base, z, o, h, size) for z, o, h in zip(frames, original.unbind(1), holes, strict=True))


def picture(
    base: Base,
    z: Float[Tensor, "c h w"],
    original: Tensor | None,
    openings: Sequence[Tensor],
    size: tuple[int, int],
    after: After | None = None,
) -> Any:
    """One PIL image, with what is to stay of the original."""
    from PIL import Image

    image = base.decode(z[None])[0].cpu()
    if not image.isfinite().all():
        raise RecipeError("", "the VAE answered with NaN, in float32 too: its weights are damaged, or the latent is far from any picture. Try "
                              "another VAE, or lower weights and guidance.")  # fmt: skip
    if after is not None and after.colours is not None:
        there = image[:, : size[1], : size[0]]
        there.copy_(numbers(after.coloured(shades(there))))
    if original is not None and openings:
        image = pasted(image, original.to(image), together([o.to(image) for o in openings]))
    made = Image.fromarray(shades(image[:, : size[1], : size[0]]))
    if after is None or after.frame is None:
        return made
    whole, part = after.frame.back(made)
    openings = [torch.from_numpy(o)[None] for o in after.frame.openings]
    if after.frame.paste:
        part = pasted(numbers(part), numbers(whole.crop(after.frame.box)), together(openings))
        part = Image.fromarray(shades(part))
    whole.paste(part, after.frame.box[:2])
    return whole


def shades(image: Float[Tensor, "3 height width"]) -> Any:
    """Numbers from 0 to 1 as an array (height width 3) of 8 bits."""
    return (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def numbers(image: Any) -> Float[Tensor, "3 height width"]:
    """8 bits (height width 3), or a PIL image, as numbers from 0 to 1."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def pasted(
    image: Float[Tensor, "3 height width"],
    original: Float[Tensor, "3 height width"],
    alpha: Float[Tensor, "1 height width"],
) -> Float[Tensor, "3 height width"]:
    """The image by `alpha`, the original elsewhere; pixel for pixel unchanged where that is 0."""
    return image * alpha + original * (1 - alpha)


def together(openings: Sequence[Float[Tensor, "1 height width"]]) -> Float[Tensor, "1 height width"]:
    """How much of each pixel is what was made, from all holes: those of 0 and 1 get one soft edge inside of them all, others have
    brought their own."""
    sharp = [bool(((o == 0) | (o == 1)).all()) for o in openings]
    alphas = [o for o, is_sharp in zip(openings, sharp, strict=True) if not is_sharp]
    if any(sharp):
        alphas.append(feather(reduce(torch.maximum, (o for o, s in zip(openings, sharp, strict=True) if s))))
    return reduce(torch.maximum, alphas)


def feather(hole: Float[Tensor, "1 height width"]) -> Float[Tensor, "1 height width"]:
    """0 outside of the hole, rising to 1 within `SOFT` inside of it (to 1 in its middle, if it is narrower)."""
    rings, inside = hole, hole
    for _ in range(max(round(SOFT * min(hole.shape[-2:])), 1) - 1):
        inside = 1 - F.max_pool2d((1 - inside)[None], 3, 1, 1)[0]
        rings = rings + inside
    return rings / rings.max().clamp(min=1)

"""Films and pictures as a clip's frames: planned by headers, taken at a size, laid on the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from infuse.conditions.base import Encoders, View, brought
from infuse.errors import under
from infuse.media.films import Film
from infuse.media.fitting import Fit, fitted, laid, odd
from infuse.media.pictures import Picture

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


def planned(
    film: Film, field: str, view: View, size: tuple[int, int] | None, fit: Fit = "crop", mask: bool = False
) -> list[str]:
    """What will be adjusted when the clip's frames are taken; raises the film's letters under its field."""
    with under(field):
        places, notes = film.plan(view.frames, size=size)
        notes = (*notes, *film.looked_at(min(places), mask)[1])
        # an encoder may look at another size of the clip's shape, and that is not what somebody asked for
        to = view.size if size and odd(film.size, view.size) else size or film.size
        return [f"{field}: {note.rstrip('.')}." for note in notes] + brought(
            film.size, to, field, "the clip's shape", fit
        )


def taken(
    film: Film, field: str, kit: Encoders, size: tuple[int, int] | None, fit: Fit = "crop", mask: bool = False
) -> list[Any]:
    """The clip's frames as PIL images of this (width, height), and what the canvas has beyond the clip repeated from their rim.

    mask: as holes, black and white.
    """
    with under(field):
        frames = film.holes(kit.frames, size, fit) if mask else film.frames(kit.frames, size, fit)
    return [laid(f, beyond(f.size, kit)) for f in frames] if size else frames


def beyond(size: tuple[int, int], kit: Encoders) -> tuple[int, int]:
    """A (width, height) with its share of what the canvas has beyond the picture to be made."""
    width, height = (round(s * c / k) for s, c, k in zip(size, kit.canvas, kit.size, strict=True))
    return width, height


def covering(picture: Picture, size: tuple[int, int], kit: Encoders, fit: Fit = "crop") -> Any:
    """A picture as films are taken."""
    image = fitted(picture.image, size, fit)
    return laid(image, beyond(size, kit))


def pixels(frames: Sequence[Any], kit: Encoders, mode: str = "RGB") -> Float[Tensor, "c f height width"]:
    """PIL images as numbers in 0-1."""
    return kit.vector(_numbers(frames, mode))


def exactly(frames: Sequence[Any]) -> Float[Tensor, "3 f height width"]:
    """The same in float32: what is to stay, to the last of its 8 bits."""
    import torch

    return torch.from_numpy(_numbers(frames, "RGB").copy())


def _numbers(frames: Sequence[Any], mode: str) -> Any:
    array = np.stack([np.asarray(f.convert(mode), np.float32) for f in frames]) / 255
    return np.moveaxis(array.reshape(*array.shape[:3], -1), -1, 0)

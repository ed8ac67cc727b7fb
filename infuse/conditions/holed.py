"""Whoever fills a hole in a picture says how its edge is put back, and whether the whole picture is worked on or the hole alone.

What is done with pixels before the network sees them: the hole is laid out in its picture (`laid`). What is done with them
afterwards is `engine/frame.py`'s and `engine/finish.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infuse.conditions.base import HOLED, Condition, Encoders
from infuse.media.fitting import Fit, fitted, fitted_hole
from infuse.media.pictures import Picture
from infuse.media.soften import softened

if TYPE_CHECKING:
    from torch import Tensor

Area = Literal["whole", "masked"]
Colours = Literal["original", "border"]


class Holed(Condition):
    """Base of conditions whose `mask` is a hole in `image`.

    mask_blur: sigma in pixels of the picture; what is repainted fades into the picture over the blurred edge, instead of
    behind a soft edge that lies inside of the hole. area: `masked` works on the hole and `padding` pixels around it alone, at the
    recipe's width and height (the network's own size if it names none), and puts the result back into the picture, whose size
    it has; other conditions' pictures of the same size are cut alike. match_colors: what differs from the picture
    at the hole's `border`, where both show the same, is taken off in the hole, too (true says the same); `original` gives all of
    the result the picture's histogram, as the webui does, which suits a hole that is filled with what was there.
    """

    VOICE = HOLED
    HOLE = "image"

    mask_blur: float = Field(default=0.0, ge=0, le=64)
    area: Area = "whole"
    padding: int = Field(default=32, ge=0)
    match_colors: Colours | bool = False

    @property
    def colours(self) -> Colours | None:
        """By what colours are matched."""
        return "border" if self.match_colors is True else self.match_colors or None

    @property
    def edged(self) -> bool:
        """Does something of it depend on the pixels of the picture as it came, so that another size would make another result?"""
        return bool(self.mask_blur) or self.area != "whole"

    def laid(self) -> Holed:
        """The same with picture and mask as they lie on its canvas, and nothing left to be done to them."""
        return self

    def ground(self, size: tuple[int, int]) -> Any:
        """The picture (RGB, PIL) that it paints in, at this (width, height)."""
        image: Picture = getattr(self, str(self.HOLE))
        return fitted(image.image, size, self.ground_fit)

    def drawn(self, size: tuple[int, int]) -> Any:
        """Its hole as a grey PIL image as it lies in a picture of this (width, height): white is repainted."""
        assert self.mask is not None
        return fitted_hole(self.mask.mask, size)

    def edge(self, size: tuple[int, int]) -> Any:
        """The same with its edge as soft as it is wanted."""
        return softened(self.drawn(size), self.mask_blur)


def opening(
    kit: Encoders, drawn: Sequence[Callable[[], Any]], blur: float, hole: Tensor, fit: Fit = "stretch"
) -> Tensor:
    """How much of each pixel (1 height width) is what is made: the `hole` (0 or 1), or its blurred edge. drawn: what gives its parts,
    grey PIL images.

    Blurred, it is twice the blurred hole, 1 at most: all of the hole is repainted, and what is around it fades. Source: the
    webui's overlay (modules/processing.py of stable-diffusion-webui-forge@dfdcbab).
    """
    from functools import reduce

    import torch

    if not blur:
        return hole
    wide = [softened(part(), blur).point(lambda v: min(2 * v, 255)) for part in drawn]
    return reduce(torch.maximum, (kit.exact(Picture.of(one), 1, fit) for one in wide))

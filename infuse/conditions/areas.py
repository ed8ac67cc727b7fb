"""A part of the picture with words of its own: a mask, or a box in fractions of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator, model_validator

from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.shares import shared_out
from infuse.validation import Strict

if TYPE_CHECKING:
    from torch import Tensor

    from infuse.conditions.base import Encoders


class Area(Strict):
    """Words, and where they are heard: `mask` (white) or `box` (x, y, width, height; fractions of the picture, "0:0:0.5:1").

    weight: against other regions where they overlap, 0 to 5.
    """

    prompt: str = Field(min_length=1)
    mask: Picture | None = None
    box: tuple[float, float, float, float] | None = None
    weight: float = Field(default=1.0, ge=0, le=5)

    @field_validator("box", mode="before")
    @classmethod
    def _written(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return tuple(float(v) for v in value.split(":"))
        except ValueError:
            raise RecipeError(
                "", f"{value[:60]!r} is no box. Write x:y:width:height in fractions of the picture, as in 0:0:0.5:1."
            ) from None

    @model_validator(mode="after")
    def _somewhere(self) -> Area:
        if (self.mask is None) == (self.box is None):
            raise RecipeError(
                "",
                "a region has either a mask or a box (x:y:width:height in fractions of the picture). Give one of them.",
            )
        if self.box is not None:
            x, y, w, h = self.box
            if w <= 0 or h <= 0 or x < 0 or y < 0 or x + w > 1 + 1e-6 or y + h > 1 + 1e-6:
                raise RecipeError(
                    "box",
                    f"{x:g}:{y:g}:{w:g}:{h:g} (x:y:width:height) does not lie in the picture, which goes from 0 to 1.",
                )
        return self

    def somewhere(self, size: tuple[int, int]) -> None:
        """Raises RecipeError if it is nowhere in a picture of this (width, height)."""
        if self.mask is not None and not self.mask.mask.getextrema()[1]:
            raise RecipeError(
                "mask", "it is black everywhere, so these words would be heard nowhere. White is where they are heard."
            )
        if self.box is not None:
            x, y, w, h = self.box
            if any(round(n * (a + b)) <= round(n * a) for n, a, b in ((size[0], x, w), (size[1], y, h))):
                raise RecipeError(
                    "box",
                    f"{x:g}:{y:g}:{w:g}:{h:g} covers no pixel of a picture of {size[0]} x {size[1]} px. Make it larger.",
                )

    def on(self, kit: Encoders) -> Tensor:
        """Where it is on the canvas, (height width), 0-1."""
        return kit.mask(self.mask) if self.mask is not None else kit.box(self.box)  # type: ignore[arg-type]  one of them is there


def counts(areas: tuple[Area, ...], mine: int | None, rest: float, kit: Encoders) -> Tensor:
    """(height width): the share of one region, or (mine None) what all of them leave."""
    each, left = shared_out([a.on(kit) for a in areas], [a.weight for a in areas], [rest] * len(areas))
    return left if mine is None else each[mine]

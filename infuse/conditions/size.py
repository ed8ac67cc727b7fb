"""SDXL was told the size and crop of each training image. So tell it: six numbers, one slot of the embedding port."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Vector


class Size(Condition):
    """Micro-conditions, (width, height) and (left, top) in pixels.

    Leave `original` out to say "a clean image of the size I asked for". Source: SDXL, sec. 2.2.
    """

    kind: Literal["size"] = "size"
    original: tuple[PositiveInt, PositiveInt] | None = None
    crop: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain("weight", "start", "end", "applies_to")
        if "time_ids" not in net.embedding_slots:
            raise RecipeError(
                "", f"{net.described} has no size embedding. Remove this condition, or choose an SDXL base."
            )
        return [Route("embedding", "time_ids (6)")]

    def encode(self, kit: Encoders) -> Sides:
        ids = (*(self.original or kit.size)[::-1], *self.crop[::-1], *kit.size[::-1])
        return Sides.both(Ports(embedding=(Vector("time_ids", kit.vector(ids)),)))

"""SDXL was told the size and crop of each training image. So tell it: six numbers, one slot of the embedding port."""

from __future__ import annotations

from collections.abc import Mapping
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
        if self.weight not in (0, 1):
            raise RecipeError(
                "weight",
                "a size is said or not: by a part of it the network would hear another size. Use 1, or start and end.",
            )
        if "time_ids" not in net.embedding_slots:
            raise RecipeError(
                "", f"{net.described} has no size embedding. Remove this condition, or choose an SDXL base."
            )
        return [Route("embedding", "time_ids (6)")]

    def join(self, who: str, everyone: Mapping[str, Condition]) -> dict[str, Condition]:
        """Two that speak at once on one side would be added, which is the size of nothing."""
        for other, size in everyone.items():
            together = isinstance(size, Size) and other != who and size.start < self.end and self.start < size.end
            if together and {self.applies_to, size.applies_to} != {"prompt", "negative"}:
                raise RecipeError(other, f"it says a size, and so does {who} at the same time. Keep one of them, or give them steps (start, "
                                         "end) or sides (applies_to) of their own.")  # fmt: skip
        return super().join(who, everyone)

    def encode(self, kit: Encoders) -> Sides:
        ids = (*(self.original or kit.size)[::-1], *self.crop[::-1], *kit.size[::-1])
        return Sides.both(Ports(embedding=(Vector("time_ids", kit.vector(ids)),)))

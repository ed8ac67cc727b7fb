"""A LoRA, or one of its kin: what is added to the weights of the base and of its text encoders, for this picture alone.

It stands in the port `edits`: rows with different LoRAs share a call, and none has a network of its own. Weight, window and region
are those of every condition. What its text encoders' part makes of words is heard in its window, too: words are read twice then.
Source: Hu et al. 2021 (LoRA); kinds and layouts as in `network.lora` and `weights.layouts.lora`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.curves import span
from infuse.errors import RecipeError
from infuse.network.blocks import blocks
from infuse.network.spec import NetworkSpec
from infuse.notices import gathers
from infuse.ports import Edit, Ports, Sides


class Lora(Condition):
    """model: a LoRA's file or name. weight: any number, or a curve; 1 is as it was trained.

    text_weight: how strongly it changes the text encoders; left out, as `weight` (of a curve, its largest value). blocks: a factor for
    each block of the network: a preset (MIDD, OUTALL...) or 12, 17, 20 or 26 numbers, as sd-webui-lora-block-weight has them; its
    first number multiplies text_weight. merge: write it into a copy of the network instead of adding it row by row: faster for many
    pictures of one LoRA, a network of its own in memory, and the same picture to rounding.
    """

    kind: Literal["lora"] = "lora"
    model: str = Field(min_length=1)
    text_weight: float | None = None
    blocks: str | tuple[float, ...] | None = None
    merge: bool = False

    @field_validator("blocks", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value is None:
            return None
        if not isinstance(value, str | list | tuple):
            raise RecipeError(
                "", f"{value!r:.60} are no blocks. Name a preset such as MIDD, or write 12, 17, 20 or 26 numbers."
            )
        try:
            blocks(value)
        except RecipeError as error:
            raise RecipeError("", error.message) from None
        return value

    @property
    def factors(self) -> tuple[float, ...] | None:
        """Of the 26 blocks."""
        return None if self.blocks is None else blocks(self.blocks)

    @property
    def text_strength(self) -> float:
        """How strongly its part of the text encoders is heard while it is heard at all."""
        low, high = span(self.weight)
        own = (low if abs(low) > abs(high) else high) if self.text_weight is None else self.text_weight
        return own * (self.factors[0] if self.factors else 1.0)

    def settled(self, view: View) -> Condition:
        """With weight 0 and a text_weight it is heard by the text encoders alone, as `<lora:name:1:0>`."""
        if self.weight != 0 or not self.text_weight or isinstance(self, OfWords):
            return self
        said = {f: getattr(self, f) for f in self.model_fields_set} | {"weight": self.text_weight, "merge": False}
        return OfWords(**said)

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        if self.merge:
            for name, asked in (("weight", not isinstance(self.weight, float | int)), ("start", self.start > 0), ("end", self.end < 1),
                                ("mask", self.mask is not None), ("applies_to", self.applies_to != "both")):  # fmt: skip
                if asked:
                    raise RecipeError(
                        name, "a merged LoRA is heard in all steps, everywhere and alike. Remove merge, or this."
                    )
        found = view.lora(self.model)
        warnings = list(found.warnings)
        if self.blocks is not None:
            inner = all("attentions" in path for path in found.changes.get("unet", ()))
            with gathers() as notes:
                blocks(self.blocks, net.family, "lora" if inner else "locon")
            warnings += notes
        if self.applies_to != "both" and any(part != "unet" for part in found.parts):
            warnings.append(
                f'"{self.model}": its part of the text encoders changes both prompts. Set text_weight: 0 to leave it out.'
            )
        return [
            Route(
                "edits",
                found.described,
                view.identity(self.model, "model", "lora").memory,
                note="merged" * self.merge,
                warnings=tuple(warnings),
            )
        ]

    def encode(self, kit: Encoders) -> Sides:
        if self.merge:
            return Sides(Ports())
        return Sides.both(Ports(edits=(Edit(kit.lora(self.model), self.factors),)))


class OfWords(Lora):
    """One whose part of the network is left out: its weight says when words are read with it."""

    def encode(self, kit: Encoders) -> Sides:
        return Sides(Ports())

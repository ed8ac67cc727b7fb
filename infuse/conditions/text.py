"""Words become tokens of the context port. Several texts are read side by side, each with a weight, window and region."""

from __future__ import annotations

from typing import Literal

from infuse.conditions.base import Condition, Encoders, Route, View, said
from infuse.errors import CapacityError, RecipeError
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Tokens

MOST_TOKENS = 75 * 32
"""Tokens of one prompt: 32 chunks. Attention reads more, but nobody has meant more yet."""


class Text(Condition):
    """More words beside the recipe's prompt: `weight` multiplies the attention their tokens get, `mask` says where.

    Any length, in chunks of 75 tokens. A negative prompt of its own joins the recipe's.
    """

    kind: Literal["text"] = "text"
    prompt: str
    negative_prompt: str = ""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.positive()
        if self.negative_prompt and self.applies_to != "both":
            own = "prompt" if self.applies_to == "prompt" else "negative"
            raise RecipeError("negative_prompt", f"this text is heard on the {own} side alone, where only its prompt would be said. Remove "
                                                 "it, or applies_to.")  # fmt: skip
        for field in ("prompt", "negative_prompt"):
            words = len(getattr(self, field).split())
            if words > MOST_TOKENS:
                raise CapacityError(
                    field,
                    f"{words} words are more than the {MOST_TOKENS} tokens that a prompt may have. "
                    "Say it shorter, or divide it among Text conditions with regions.",
                )
        chunks = 1 + len(self.prompt.split()) // 75
        return [Route("context", f"({77 * chunks} {net.context_width})", note="77 tokens per chunk of 75")]

    def encode(self, kit: Encoders) -> Sides:
        off = Ports(context=(Tokens(kit.text(self.negative_prompt)),)) if self.negative_prompt else Ports()
        return Sides(Ports(context=(Tokens(kit.text(self.prompt)),)), off)


class Prompt(Text):
    """The recipe's own prompt and negative prompt: the pair that guidance pulls apart. Carries SDXL's pooled text."""

    def encode(self, kit: Encoders) -> Sides:
        # SDXL was trained to hear zeros, not the empty sentence, where no negative prompt is given.
        silent = kit.silence() if not self.negative_prompt else None
        return Sides(said(kit, self.prompt), silent or said(kit, self.negative_prompt))

"""Words become tokens of the context port. Several texts are read side by side, each with a weight, window and region.

What stands in them beside words (weights, BREAK, schedules, names of embeddings) is read as the recipe's `syntax` says.
"""

from __future__ import annotations

from typing import Literal

from infuse.conditions.areas import Area, counts
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

    WORDS = True

    kind: Literal["text"] = "text"
    prompt: str
    negative_prompt: str = ""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.positive()
        if self.negative_prompt and self.applies_to != "both":
            own = "prompt" if self.applies_to == "prompt" else "negative"
            raise RecipeError("negative_prompt", f"this text is heard on the {own} side alone, where only its prompt would be said. Remove "
                                                 "it, or applies_to.")  # fmt: skip
        for field in ("prompt", "negative_prompt", "prompt_2", "negative_prompt_2"):
            must_be_short(getattr(self, field, None) or "", field)
        chunks = 1 + len(self.prompt.split()) // 75
        return [Route("context", f"({77 * chunks} {net.context_width})", note="77 tokens per chunk of 75")]

    def encode(self, kit: Encoders) -> Sides:
        off = Ports(context=(Tokens(kit.text(self.negative_prompt)),)) if self.negative_prompt else Ports()
        return Sides(Ports(context=(Tokens(kit.text(self.prompt)),)), off)


def must_be_short(text: str, field: str) -> None:
    """Raises CapacityError for more words than a prompt may have tokens."""
    words = len(text.split())
    if words > MOST_TOKENS:
        raise CapacityError(
            field,
            f"{words} words are more than the {MOST_TOKENS} tokens that a prompt may have. "
            "Say it shorter, or divide it among Text conditions with regions.",
        )


class Prompt(Text):
    """The recipe's own prompt and negative prompt: the pair that guidance pulls apart. Carries SDXL's pooled text.

    prompt_2, negative_prompt_2: what SDXL's second text encoder reads instead. share: its weight where several are summed (AND).
    areas: of regions that are terms of guidance (latent couple); then it counts in `mine` of them, or, if that is None, where
    they leave room.
    """

    prompt_2: str | None = None
    negative_prompt_2: str | None = None
    share: float = 1.0
    areas: tuple[Area, ...] = ()
    mine: int | None = None
    rest: float = 0.0

    @property
    def summed(self) -> float | None:
        return self.share

    @property
    def regional(self) -> bool:
        return bool(self.areas)

    def encode(self, kit: Encoders) -> Sides:
        # SDXL was trained to hear zeros, not the empty sentence, where no negative prompt is given.
        silent = kit.silence() if not self.negative_prompt and not self.negative_prompt_2 else None
        on = said(kit, self.prompt, self.prompt_2)
        return Sides(on, silent or said(kit, self.negative_prompt, self.negative_prompt_2))

    def spoken(self, encoded: Sides, kit: Encoders) -> Sides:
        return Sides(encoded.on, encoded.off, counts(self.areas, self.mine, self.rest, kit) if self.areas else None)


class Part(Prompt):
    """A part of a prompt that is a term of guidance of its own, in place of the others (AND, latent couple): it has no negative."""

    def encode(self, kit: Encoders) -> Sides:
        return Sides(said(kit, self.prompt, self.prompt_2))

"""What is to be said to the text encoders: the words, in whose syntax, and what else they need to be heard as they are meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from infuse.encoders.embeddings import Embedding
from infuse.words.wording import Emphasis, Syntax


@dataclass(frozen=True)
class Said:
    """One text. Schedules, sums (AND) and networks are out of it already: one text is one encoding."""

    prompt: str
    second: str | None = None
    """What SDXL's second encoder hears instead, its pooled output included."""
    syntax: Syntax = "plain"
    """webui: weights in brackets and BREAK; compel: its weights, `.blend` and `.and`; plain: all of it is words."""
    emphasis: Emphasis = "original"
    """How the webui's weights act: original keeps the mean of what an encoder says, no_norm doesn't; ignore drops every weight."""
    clip_skip: int | None = None
    """Which layer is heard, counted from the last, which is 1. SDXL never hears the last: 1 is 2 there. None: the family's own."""
    embeddings: Mapping[str, Embedding] = field(default_factory=dict, hash=False)
    """Name -> textual inversion: wherever the tokens of a name are met, its vectors stand in their place."""
    chunks: int = 0
    """At least so many: encoded empty ones fill up."""

    @classmethod
    def of(cls, said: str | Said) -> Said:
        """A bare text has no syntax."""
        return cls(said) if isinstance(said, str) else said

    def prompt_of(self, encoder: int) -> str:
        """What the first encoder hears (0), or the second (1)."""
        return self.second if encoder and self.second is not None else self.prompt

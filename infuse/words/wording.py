"""How the words of a recipe are read: its syntax, and what else decides what text encoders make of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from infuse.words import schedule

Syntax = Literal["webui", "compel", "plain"]
"""webui: weights `(a:1.2)`, BREAK, AND, `[a:b:0.5]`, `[a|b]`, `<lora:name:0.8>`; compel: `a+`, `(a b)1.3`, `.and()`, `.blend()`;
plain: every sign is a word's, as in diffusers."""
Emphasis = Literal["original", "no_norm", "ignore"]
"""The webui's modes: weighed and brought back to the mean of the unweighed, weighed only, or brackets without effect."""


@dataclass(frozen=True)
class WordEdit:
    """A LoRA of the text encoders: how loudly, and in which evaluations."""

    model: str
    strength: float
    heard: tuple[bool, ...]
    """Of each evaluation."""


@dataclass(frozen=True)
class Wording:
    """What a recipe's words are read with. Equal wordings read alike."""

    syntax: Syntax = "plain"
    emphasis: Emphasis = "original"
    clip_skip: int | None = None
    """Counted from the last layer, which is 1, as in the webui."""
    evaluations: int = 0
    """Of the network for each picture; 0: nothing changes on the way."""
    embeddings: tuple[tuple[str, str], ...] = ()
    """(word, model) of textual inversions."""
    edits: tuple[WordEdit, ...] = ()

    def entries(self, prompt: str) -> tuple[tuple[int, str], ...]:
        """[(end, text)]: what of a prompt is said until which evaluation."""
        if self.syntax != "webui" or not self.evaluations:
            return ((max(self.evaluations, 1), prompt),)
        return schedule.entries(prompt, self.evaluations)

    def turns(self, *prompts: str) -> list[tuple[int, tuple[str, ...], tuple[WordEdit, ...]]]:
        """[(end, texts, LoRAs)]: evaluations before `end` read these texts with these LoRAs; neighbours differ."""
        said = [self.entries(p) for p in prompts]
        out: list[tuple[int, tuple[str, ...], tuple[WordEdit, ...]]] = []
        for k in range(max(self.evaluations, 1)):
            texts = tuple(schedule.at(entries, k) for entries in said)
            edits = tuple(e for e in self.edits if not e.heard or e.heard[k])
            if out and out[-1][1:] == (texts, edits):
                out[-1] = (k + 1, texts, edits)
            else:
                out.append((k + 1, texts, edits))
        return out

    def progress(self, end: int) -> float:
        """Between two evaluations: the progress before which what ends there is read."""
        return (end - 0.5) / max(self.evaluations, 1)


PLAIN = Wording()
MODES: Mapping[str, str] = {"Original": "original", "No norm": "no_norm", "Ignore": "ignore"}
"""What the webui calls them."""

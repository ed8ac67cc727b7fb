"""A recipe's words as the webui would have them, for the text that our pictures carry beside their recipe."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infuse.conditions.lora import Lora
from infuse.encoders.prompt_syntax import words as unescaped
from infuse.engine.carried import public
from infuse.notices import gathers
from infuse.recipe import Recipe
from infuse.weights.formats import SUFFIXES
from infuse.words import tags

BRACKETS = re.compile(r"[()\[\]\\]")


def in_webui_words(recipe: Recipe, made: Mapping[str, Any]) -> tuple[str, str]:
    """(prompt, negative prompt), with all choices made, and tags of the LoRAs that are heard as a tag would have them heard.

    made: `understanding.plain` of it. Brackets that are words get backslashes; compel's syntax stays as it is.
    """
    prompt, negative = (str(made.get(f, getattr(recipe, f))) for f in ("prompt", "negative_prompt"))
    if recipe.syntax == "plain":
        prompt, negative = (BRACKETS.sub(r"\\\g<0>", unescaped(text)) for text in (prompt, negative))
    return " ".join([prompt, *filter(None, map(_tag, recipe.conditions))]), negative


def _tag(c: Any) -> str:
    """Empty for a LoRA with a window, a curve, a region or blocks, which no tag can say alike."""
    if (
        not isinstance(c, Lora)
        or c.blocks is not None
        or c.mask is not None
        or (c.start, c.end, c.applies_to) != (0, 1, "both")
    ):
        return ""
    if not isinstance(c.weight, int | float):
        return ""
    text = "" if c.text_weight in (None, c.weight) else f"{c.text_weight:g}:"
    return f"<lora:{stem(public(c.model))}:{text}{c.weight:g}>"


def stem(model: str) -> str:
    """A file's name without folder and ending; other names as they are."""
    return Path(model).stem if Path(model).suffix in SUFFIXES else model


def hashed(recipe: Recipe, weights: Mapping[str, str]) -> str | None:
    """The first ten digits of the sha256 of LoRAs and embeddings, as model sites look them up; None if there are none."""
    named = [(c.model, "lora") for c in recipe.conditions if isinstance(c, Lora)]
    if recipe.syntax == "webui":
        with gathers():  # told already
            named += [(tag.name, "lora") for tag in tags.networks(recipe.prompt)[1]]
    named += [(name, "embed") for name in recipe.embeddings]
    found = {f"{kind}:{stem(public(name))}": digest[:10] for name, kind in named if (digest := weights.get(name))}
    return (
        json.dumps({"model": weights[m][:10]} | found if (m := str(recipe.model)) in weights else found)
        if found
        else None
    )

"""`AND` asks for several prompts at once, each with a weight: `a cat :1.2 AND a dog`. Their pushes are added, not averaged.

As in the webui it splits wherever it stands, within brackets, too; and a number after a colon at a prompt's very end is its
weight even where there is no `AND`.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab modules/prompt_parser.py.
"""

from __future__ import annotations

import re

AND = re.compile(r"\bAND\b")
WEIGHT = re.compile(r":\s*([-+]?(?:\d+\.?|\d*\.\d+))\Z")


def parts(text: str) -> tuple[tuple[str, float], ...]:
    """(text, weight) of each prompt, in order; at least one. Weights may be negative or 0. Never raises.

    The space before a text stays, that after it goes. Whoever asks should say if a single part has a weight: "at 16:9" is hardly meant
    so.
    """
    return tuple(map(_weighed, AND.split(text)))


def _weighed(text: str) -> tuple[str, float]:
    text = text.rstrip()
    match = WEIGHT.search(text, text.rfind(":")) if ":" in text else None
    return (text[: match.start()].rstrip(), float(match[1])) if match else (text, 1.0)

r"""What other programs read in a prompt as more than words: weights, LoRAs, breaks, schedules. Here all of it is words.

So whoever writes it is told, and what to do instead. Plain brackets, as in "a man (smiling)", are taken for what they are: the
webui weighs those by 1.1, but most who write them mean brackets. A backslash before a bracket says so for certain, here as
there, and is not painted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
OPEN = r"(?<!\\)"
"""Not escaped."""
WEIGH = 'Give such words a Text condition with a weight: {{kind: text, prompt: "{words}", weight: {weight}}}.'
FORMS: tuple[tuple[str, str, str], ...] = (
    (r"<(?P<what>lora|lyco|lycoris|hypernet|hypernetwork):[^<>]*>", "a LoRA or its kin, as the webui loads them", "infuse has none yet. Remove it."),
    (r"\bembedding:[\w./-]+", "a textual inversion, as ComfyUI loads them", "infuse has none yet. Remove it."),
    (rf"{OPEN}\((?P<words>[^()\n]*?[^()\n\d\s])\s*:\s*(?P<weight>{NUMBER})\s*\)", "words with a weight, as in the webui and ComfyUI", WEIGH),
    (rf"{OPEN}\((?P<words>[^()\n]+)\)(?P<weight>{NUMBER})(?![\w.])", "words with a weight, as in InvokeAI and compel", WEIGH),
    (rf"{OPEN}\(\s*{OPEN}\((?P<words>[^()\n]*)\)[^()\n]*\)", "words that the webui weighs more with each bracket",
     WEIGH),
    (rf"{OPEN}\[[^\[\]\n]*:\s*{NUMBER}\s*\]", "words that change on the way, as in the webui",
     "Use two Text conditions, one until (end) and one from (start) that part of the steps on."),
    (rf"{OPEN}\[[^\[\]|\n]+\|[^\[\]\n]+\]", "words that take turns, as in the webui", "Choose one of them."),
    (rf"{OPEN}\{{[^{{}}|\n]+\|[^{{}}\n]+\}}", "a choice, as in dynamic prompts", "Choose one of them; each recipe is one prompt."),
    (r"(?<!\S)BREAK(?!\S)", "the webui's new chunk of 75 words", "Put what follows into a Text condition of its own."),
    (r"(?<=\S) AND (?=\S)", "the webui's and ComfyUI's sum of several prompts", "Put each prompt into a Text condition; write and for the word."),
    (rf"(?:(?<![\w+-])(?P<words>(?!(?:[A-Za-z]|[Nn]otepad|[Ll]ib[a-z]*)\+\+)\w{{1,60}})\+\+|{OPEN}\([^()\n]{{1,60}}\)(?:\+\+|--))[+-]*(?![\w+-])",
     "words with a weight, as in InvokeAI and compel", WEIGH),
)  # fmt: skip
"""(pattern, what it is elsewhere, what to do here)."""
KNOWN = tuple((re.compile(pattern), what, instead) for pattern, what, instead in FORMS)
ESCAPED = re.compile(r"\\([()\[\]{}<>])")


def foreign_syntax(prompt: str) -> Iterator[str]:
    """A sentence for each kind of syntax in a prompt that is painted as words here."""
    said = set[str]()
    for pattern, what, instead in KNOWN:
        match = pattern.search(prompt)
        if match is None or what in said or (match[0].strip().isalpha() and prompt.isupper()):
            continue  # of a text in capitals AND is a word like the others
        said.add(what)
        groups = {k: v.strip() for k, v in match.groupdict().items() if v}
        less = "--" in match[0]
        remedy = instead.format(**{"words": match[0].strip("()+- "), "weight": "0.8" if less else "1.2", **groups})
        if groups.get("weight", "").startswith("-"):
            remedy = "Put such words into the negative prompt."
        escape = r" A backslash before the bracket says that it is meant as it stands." if match[0][0] in "([{" else ""
        shown = match[0] if len(match[0]) <= 60 else f"{match[0][:57]}..."
        yield f"{shown.strip()!r} is {what}; here it is painted as words. {remedy}{escape}"


def words(prompt: str) -> str:
    r"""The prompt as it is read: `\(` is a bracket."""
    return ESCAPED.sub(r"\1", prompt)

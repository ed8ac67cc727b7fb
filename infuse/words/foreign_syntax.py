r"""What others read in a prompt as more than words, and the recipe's syntax does not: weights, networks, breaks, schedules.

Whoever writes it is told, and what to do instead. In plain syntax brackets, as in "a man (smiling)", are taken for what they are: the
webui weighs those by 1.1, but most who write them mean brackets. A backslash before a bracket says so for certain, here as there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)"
OPEN = r"(?<!\\)"
"""Not escaped."""
WEIGH = {
    "plain": 'Give such words a Text condition with a weight: {{kind: text, prompt: "{words}", weight: {weight}}}.',
    "webui": "Write ({words}:{weight}).",
    "compel": "Write ({words}){weight}.",
}
AFTER = {
    "plain": "Put what follows into a Text condition of its own.",
    "compel": 'Write ("...", "...").and(1, 1) around the whole.',
}
LATER = "Use two Text conditions, one until (end) and one from (start) that part of the steps on."
PARTS = "Put each prompt into a Text condition; write and for the word."
ONE = "Choose one of them; each recipe is one prompt."
REGIONS = "Give the recipe a condition {{kind: regions}} with words and a place for each."
ALL = ("plain", "webui", "compel")


@dataclass(frozen=True)
class Form:
    """pattern; what it is elsewhere; what to do here instead, by the recipe's syntax: one that has none understands it."""

    pattern: str
    what: str
    instead: Mapping[str, str]
    found: re.Pattern[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "found", re.compile(self.pattern))


def _but(understood: str, instead: str) -> dict[str, str]:
    return {syntax: instead for syntax in ALL if syntax != understood}


def _weigh(understood: str) -> dict[str, str]:
    return {syntax: WEIGH[syntax] for syntax in ALL if syntax != understood}


FORMS = (
    Form(r"<(?P<what>lora|lyco|lycoris|hypernet|hypernetwork):(?P<name>[^<>:]*)[^<>]*>", "a LoRA or its kin, as the webui loads them",
         _but("webui", "Give the recipe a condition {{kind: lora, model: {name}}}, or set syntax: webui.")),
    Form(r"\bembedding:(?P<name>[\w./-]+)", "a textual inversion, as ComfyUI loads them", dict.fromkeys(ALL, "There is none of this name. Name its file in embeddings, or remove it.")),
    Form(rf"{OPEN}\((?P<words>[^()\n]*?[^()\n\d\s])\s*:\s*(?P<weight>{NUMBER})\s*\)", "words with a weight, as in the webui and ComfyUI", _weigh("webui")),
    Form(rf"{OPEN}\((?P<words>[^()\n]+)\)(?P<weight>{NUMBER})(?![\w.])", "words with a weight, as in InvokeAI and compel", _weigh("compel")),
    Form(rf"{OPEN}\(\s*{OPEN}\((?P<words>[^()\n]*)\)[^()\n]*\)", "words that the webui weighs more with each bracket", _weigh("webui")),
    Form(rf"{OPEN}\[[^\[\]\n]*:\s*{NUMBER}\s*\]", "words that change on the way, as in the webui", _but("webui", LATER)),
    Form(rf"{OPEN}\[[^\[\]|\n]+\|[^\[\]\n]+\]", "words that take turns, as in the webui", _but("webui", "Choose one of them.")),
    Form(rf"{OPEN}\{{[^{{}}|\n]+\|[^{{}}\n]+\}}", "a choice, as in dynamic prompts", _but("webui", ONE)),
    Form(r"(?<!\S)BREAK(?!\S)", "the webui's new chunk of 75 words", AFTER),
    Form(r"(?<=\S) AND (?=\S)", "the webui's and ComfyUI's sum of several prompts", _but("webui", PARTS)),
    Form(rf"(?:(?<![\w+-])(?P<words>(?!(?:[A-Za-z]|[Nn]otepad|[Ll]ib[a-z]*)\+\+)\w{{1,60}})\+\+|{OPEN}\([^()\n]{{1,60}}\)(?:\+\+|--))[+-]*(?![\w+-])",
         "words with a weight, as in InvokeAI and compel", _weigh("compel")),
    Form(rf"{OPEN}\)\.(?:and|add|blend|swap)\([^()\n]*\)", "several prompts in one, as in InvokeAI and compel", _but("compel", PARTS)),
    Form(r"(?<![^\s,(\[])\{++(?P<words>[^{}|$:\n]+)\}++", "words that NovelAI weighs more with each brace", {"webui": WEIGH["webui"]}),
    Form(r"(?<!\S)ADD(?:ROW|COL|BASE|COMM|P)(?!\S)", "a region, as in the regional prompter", dict.fromkeys(ALL, REGIONS)),
)  # fmt: skip
ANGLES = r" A backslash before the bracket says that it is meant as it stands."


def foreign_syntax(prompt: str, syntax: str = "plain", known: Collection[str] = ()) -> Iterator[str]:
    """A sentence for each kind of syntax in a prompt that others understand and this syntax does not. known: what is heard all the same
    (embeddings, as they stand in the prompt)."""
    said = set[str]()
    for form in FORMS:
        instead = form.instead.get(syntax)
        match = form.found.search(prompt) if instead else None
        if match is None or instead is None or form.what in said or match[0] in known:
            continue
        if match[0].strip().isalpha() and prompt.isupper():
            continue  # of a text in capitals AND is a word like the others
        said.add(form.what)
        groups = {k: v.strip() for k, v in match.groupdict().items() if v}
        less = "--" in match[0]
        remedy = instead.format(**{"words": match[0].strip("()+- "), "weight": "0.8" if less else "1.2", "name": "", **groups})  # fmt: skip
        if groups.get("weight", "").startswith("-") and syntax != "webui":
            remedy = "Put such words into the negative prompt."
        shown = match[0] if len(match[0]) <= 60 else f"{match[0][:57]}..."
        here = "here it is painted as words" if syntax == "plain" else f"syntax {syntax} does not know it"
        yield f"{shown.strip()!r} is {form.what}; {here}. {remedy}{ANGLES if match[0][0] in '([{' else ''}"

"""`<lora:name:0.8>` names a network that edits the base. Tags are taken out of the text before anything else reads it.

    <lora:name:text:unet:blocks:x>     strengths in the text encoders and in the network; blocks as `lbw=` says them
    <lora:name:1:te=0:lbw=MIDD:start=5:stop=15>      the same by name, in any order

Nothing stands in its place; spaces around it stay. A tag within a schedule or a sum counts for the whole picture.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab modules/extra_networks.py; hako-mikan/sd-webui-lora-block-weight@b403cb7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import MappingProxyType

from infuse.errors import RecipeError
from infuse.notices import note

BEGIN = re.compile(r"<(\w+):")
KINDS = {"lora": "lora", "lyco": "lora", "lycoris": "lora", "hypernet": "hypernet", "hypernetwork": "hypernet"}
"""Kinds of networks, by their names in prompts; the webui's own are lora, lyco and hypernet."""
STRENGTHS = ("te", "unet")
POSITIONS = (*STRENGTHS, "lbw", "x")
ALIASES = {"w": "lbw"}


@dataclass(frozen=True)
class Tag:
    """kind: "lora" or "hypernet". text, unet: its strength in the text encoders and in the network.

    options: what else is said, as text: lbw, lbwe, x, start, stop, step, dyn, and whatever other names are given.
    """

    kind: str
    name: str
    text: float = 1.0
    unet: float = 1.0
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


def networks(text: str) -> tuple[str, tuple[Tag, ...]]:
    """(the text without its tags, the tags in order).

    Of a kind that nobody knows, a tag is taken out, and noted. Raises RecipeError for a tag without a name and a strength that
    is no number.
    """
    kept: list[str] = []
    tags: list[Tag] = []
    position = 0
    while match := BEGIN.search(text, position):
        end = text.find(">", match.end())
        if end < 0:
            break
        if end == match.end():  # <a:>
            kept.append(text[position:end])
            position = end
            continue
        kept.append(text[position : match.start()])
        position = end + 1
        whole, kind = text[match.start() : position], match[1]
        if kind in KINDS:
            tags.append(_tag(KINDS[kind], whole, text[match.end() : end].split(":")))
        else:
            note(f"{_shown(whole)} names a network of the kind {kind!r}, which nobody knows. It is left out, as in the webui; known are {', '.join(KINDS)}.")  # fmt: skip
    return "".join(kept) + text[position:], tuple(tags)


def _tag(kind: str, whole: str, arguments: list[str]) -> Tag:
    given: list[str] = []
    named: dict[str, str] = {}
    for argument in arguments:
        name, _, value = argument.partition("=")
        if argument.count("=") == 1:
            named[ALIASES.get(name.strip(), name.strip())] = value.strip()
        elif "lbwe" in named:  # its rules have colons of their own
            named["lbwe"] += f":{argument}"
        else:
            given.append(argument.strip())
    if not given or not given[0]:
        raise RecipeError("", f"{_shown(whole)} names no network. Write <{kind}:name:1>, or remove it.")
    if len(given) > 1 + len(POSITIONS):
        note(f"{_shown(whole)} says more than its strengths and blocks; {_shown(':'.join(given[1 + len(POSITIONS):]))} is left out.")  # fmt: skip
    options = dict(zip(POSITIONS, given[1:], strict=False)) | named
    if "lbw" in options and "lbw" not in named and _number(options["lbw"]) is not None:
        options["dyn"] = options.pop("lbw")  # the webui's own third number
    strengths = [_strength(whole, options.pop(name)) if name in options else None for name in STRENGTHS]
    words = 1.0 if strengths[0] is None else strengths[0]
    if "dyn" in options:
        _strength(whole, options["dyn"])
    return Tag(kind, given[0], words, words if strengths[1] is None else strengths[1], MappingProxyType(options))


def _strength(whole: str, text: str) -> float:
    value = _number(text)
    if value is None or not isfinite(value):
        raise RecipeError("", f"{_shown(whole)} has {_shown(text)} where its strength should be. Write a number, such as 0.8, and "
                              "lbw= before a list or preset of blocks.")  # fmt: skip
    return value


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")

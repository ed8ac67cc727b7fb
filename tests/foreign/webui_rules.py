"""The webui's own way of reading `parameters`, written down a second time and another way round: character by character."""

from __future__ import annotations

import json
from contextlib import suppress


def pairs_of(line: str) -> list[tuple[str, str]]:
    """A word key of at least two characters, a colon, then a JSON string or anything up to a comma; until the end."""
    found, at = [], 0
    while at < len(line):
        colon, start = -1, at
        while start < len(line) and colon < 0:  # the key may begin anywhere after the last pair
            if line[start].isalnum() or line[start] == "_":
                end = start + 1
                while end < len(line) and (line[end].isalnum() or line[end] in "_ -/"):
                    end += 1
                if end < len(line) and line[end] == ":" and end - start >= 2:
                    colon = end
                else:
                    start += 1
            else:
                start += 1
        if colon < 0:
            break
        key, at = line[start:colon], colon + 1
        while at < len(line) and line[at].isspace():
            at += 1
        value, after = None, at
        if at < len(line) and line[at] == '"':
            end = at + 1
            while end < len(line) and line[end] != '"':
                end += 2 if line[end] == "\\" else 1
            if end < len(line) and (end + 1 == len(line) or line[end + 1] == ","):
                value, after = line[at : end + 1], end + 2
        if value is None:
            end = line.find(",", at)
            end = len(line) if end < 0 else end
            value, after = line[at:end], end + 1
        found.append((key, value))
        at = after
    return found


def parsed(text: str) -> dict[str, str]:
    """Prompt, Negative prompt and every pair; sizes as Size-1 and Size-2."""
    lines = text.strip().split("\n")
    last = pairs_of(lines[-1])
    if len(last) < 3:
        last = []
    else:
        lines.pop()
    out = {"Prompt": "", "Negative prompt": ""}
    where = "Prompt"
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            where, line = "Negative prompt", line[len("Negative prompt:") :].strip()
        out[where] += ("\n" if out[where] else "") + line
    for key, value in last:
        if value[:1] == '"' and value[-1:] == '"' and len(value) > 1:
            with suppress(ValueError):
                value = json.loads(value)
        sides = str(value).split("x")
        if len(sides) == 2 and all(s.isdecimal() for s in sides):
            out[f"{key}-1"], out[f"{key}-2"] = sides
        else:
            out[key] = str(value)
    return out

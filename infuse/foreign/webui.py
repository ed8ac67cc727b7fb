"""AUTOMATIC1111's webui and its kin (Forge, SD.Next, Civitai): three parts of a text, and the last line says the settings.

Prompt, `Negative prompt:`, then `Key: value` pairs; a value with a comma, a colon or a new line is a JSON string. The
same rules write our own pictures, so that every tool of that world shows them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from infuse.foreign.said import Said, shown
from infuse.words.wording import MODES

KEY, STRING, PLAIN = r"\w[\w /-]+", r'"(?:[^"\\]|\\.)*"', r"[^,]*"
PAIR = re.compile(rf"\s*({KEY}):\s*({STRING}|{PLAIN})(?:,|$)")
"""A key, a colon, then a JSON string or anything up to a comma."""
FEWEST = 3
"""Pairs of a last line that is settings and no prompt."""
NEGATIVE = "Negative prompt:"
MEANT = {"Steps": "steps", "Sampler": "sampler", "Schedule type": "schedule", "CFG scale": "guidance", "Seed": "seed",
         "Clip skip": "clip_skip", "Denoising strength": "strength", "Model": "model", "Model hash": "model_hash", "VAE": "vae"}  # fmt: skip
USUAL = {"Clip skip": "1", "Schedule type": "Automatic", "RNG": "GPU", "Mask mode": "Inpaint masked", "Masked content": "original",
         "Inpaint area": "Whole picture", "Masked area padding": "32", "Hires sampler": "Use same sampler",
         "Hires schedule type": "Use same scheduler", "Hires checkpoint": "Use same checkpoint", "Tiling": "False"}  # fmt: skip
"""What these say when they say nothing."""
UNHEARD = ("Version", "Hashes", "VAE hash")
"""Tells of the program or of files, and asks for nothing."""


def read(text: str) -> Said:
    """What a `parameters` text says."""
    prompt, negative, pairs = split(text)
    said = Said("webui", prompt, negative)
    width, _, height = pairs.pop("Size", "").partition("x")
    said.width, said.height = width or None, height or None
    hashed: list[str] = []
    for key, value in pairs.items():
        if key in MEANT:
            setattr(said, MEANT[key], value)
        elif key == "Lora hashes":
            hashed = _hashed(value)
        elif key == "TI hashes":
            said.embeddings = _hashed(value)
        elif key == "Emphasis" and value in MODES:
            said.emphasis = MODES[value]
        elif key == "Emphasis" and value == "None":
            said.syntax = "plain"
        elif key not in UNHEARD and USUAL.get(key) != value:
            said.left[key] = value
    if said.schedule == USUAL["Schedule type"]:
        said.schedule = None
    if said.strength is not None and any(
        k.startswith("Hires") for k in pairs
    ):  # of the second pass, and no start picture
        said.left["Hires denoising strength"], said.strength = said.strength, None
    tagged = set(re.findall(r"<(?:lora|lyco):([^:<>]+)", f"{prompt}\n{negative}"))  # these say their weight
    if others := [name for name in hashed if name not in tagged]:
        said.notes.append(
            f"its LoRAs {', '.join(map(shown, others))} are in none of its words, which would say their weights, and were left out"
        )
    return said


def _hashed(value: str) -> list[str]:
    """Names of "name: hash, other: hash"."""
    return list(dict.fromkeys(name for part in value.split(",") if (name := part.partition(":")[0].strip())))


def split(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, pairs of the last line) by the webui's rules."""
    lines = text.strip().split("\n")
    found = PAIR.findall(lines[-1])
    if len(found) >= FEWEST:
        del lines[-1]
    else:
        found = []
    parts: tuple[list[str], list[str]] = ([], [])
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(NEGATIVE):
            negative, line = True, line.removeprefix(NEGATIVE).strip()
        if line or parts[negative]:
            parts[negative].append(line)
    return "\n".join(parts[0]), "\n".join(parts[1]), {key: unquoted(value) for key, value in found}


def unquoted(value: str) -> str:
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


def quoted(value: Any) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",\n:") else text


def written(prompt: str, negative: str, pairs: Mapping[str, Any]) -> str:
    """The text that says this; pairs without a value are left out, and what equals its key stands alone."""
    last = ", ".join(k if k == str(v) else f"{k}: {quoted(v)}" for k, v in pairs.items() if v is not None)
    return "\n".join([prompt, *([f"{NEGATIVE} {negative}"] if negative else []), last])

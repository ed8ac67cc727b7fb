"""InvokeAI, in three ages: `invokeai_metadata` (JSON), `sd-metadata` (JSON around an image), and `Dream` (its command)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infuse.foreign.said import Network, Said, mapping

MEANT = {"positive_prompt": "prompt", "negative_prompt": "negative_prompt", "steps": "steps", "scheduler": "sampler", "seed": "seed",
         "cfg_scale": "guidance", "cfg_rescale_multiplier": "guidance_rescale", "width": "width", "height": "height",
         "clip_skip": "clip_skip"}  # fmt: skip
UNHEARD = ("generation_mode", "rand_device", "app_version", "model", "vae", "loras", "strength", "init_image", "created_by", "type", "prompt",
           "sampler", "sampler_name", "positive_style_prompt", "negative_style_prompt")  # fmt: skip
FLAGS = {
    "-s": "steps",
    "-S": "seed",
    "-W": "width",
    "-H": "height",
    "-C": "guidance",
    "-A": "sampler",
    "-f": "strength",
}
OPTION = re.compile(r"(?:^|\s)(-{1,2}[A-Za-z][\w-]*)(?:[ =]?(\"[^\"]*\"|[^\s-]\S*))?")
NEGATIVES = re.compile(r"\[([^\[\]]*)\]")


def read(data: Mapping[str, Any]) -> Said:
    """`invokeai_metadata`, and its forerunner `Core metadata`."""
    said = Said("InvokeAI", syntax="compel", vae=_name(data.get("vae")))
    for key, value in data.items():
        if key in MEANT:
            setattr(said, MEANT[key], value)
        elif key not in UNHEARD and value not in (None, False, [], {}):
            said.left[key] = _short(value)
    said.clip_skip = 1 + skip if isinstance(skip := said.clip_skip, int) and skip > 0 else None  # they count from 0
    model = data.get("model")
    said.model, said.model_hash = _name(model), mapping(model).get("hash") or mapping(model).get("model_hash")
    for one in data.get("loras") or () if isinstance(data.get("loras"), list) else ():
        if name := _name(mapping(one).get("model") or mapping(one).get("lora")):
            said.loras.append(Network(str(name), mapping(one).get("weight")))
    if data.get("init_image"):
        said.strength = data.get("strength", 0.75)
    return said


def read_old(data: Mapping[str, Any]) -> Said:
    """`sd-metadata`: the picture's facts lie in `image`, negative words in square brackets of the prompt."""
    image = mapping(data.get("image"))
    said = Said("InvokeAI", syntax="compel", steps=image.get("steps"), sampler=image.get("sampler"), guidance=image.get("cfg_scale"), seed=image.get("seed"),
                width=image.get("width"), height=image.get("height"))  # fmt: skip
    words = image.get("prompt")
    if isinstance(words, list):
        words = ", ".join(str(mapping(w).get("prompt", "")) for w in words)
    said.prompt, said.negative_prompt = parted(str(words or ""))
    said.model, said.model_hash = data.get("model_weights") or data.get("model"), data.get("model_hash")
    if image.get("type") == "img2img" or image.get("init_image_path"):
        said.strength = image.get("strength") or image.get("strength_steps") or 0.75
    known = (
        *MEANT,
        *UNHEARD,
        "threshold",
        "perlin",
        "orig_hash",
        "init_image_path",
        "strength_steps",
        "height",
        "width",
        "cfg_scale",
    )
    said.left = {k: _short(v) for k, v in image.items() if k not in known and v not in (None, False, [], {}, 0)}
    return said


def read_command(text: str) -> Said:
    """`Dream`: "a red cube [blue]" -s 50 -S 12 -W 512 -H 512 -C 7.5 -A k_lms."""
    said = Said("InvokeAI", syntax="compel")
    quoted = re.match(r'\s*"((?:[^"\\]|\\.)*)"', text)
    words = quoted[1] if quoted else re.split(r"\s-{1,2}[A-Za-z]", text)[0]
    said.prompt, said.negative_prompt = parted(words.replace('\\"', '"'))
    for flag, value in OPTION.findall(text[quoted.end() if quoted else len(words) :]):
        short = flag[:2] if flag[:2] in FLAGS and not flag.startswith("--") else flag
        value = value.strip('"') or flag[2:]
        if short in FLAGS:
            setattr(said, FLAGS[short], value)
        elif short not in ("-n", "-g"):
            said.left[flag] = value
    return said


def parted(words: str) -> tuple[str, str]:
    """(prompt, negative prompt): the words in square brackets are the negative ones."""
    return NEGATIVES.sub("", words).strip(), ", ".join(m.strip() for m in NEGATIVES.findall(words) if m.strip())


def _name(model: Any) -> Any:
    return model if isinstance(model, str) else mapping(model).get("name") or mapping(model).get("model_name")


def _short(value: Any) -> Any:
    """Lists of what is applied by the names of their models."""
    if isinstance(value, list):
        names = [
            next((n for v in mapping(one).values() if (n := _name(v)) and isinstance(v, dict)), None) for one in value
        ]
        return [n or v for n, v in zip(names, value, strict=True)]
    return _name(value) or value if isinstance(value, dict) else value

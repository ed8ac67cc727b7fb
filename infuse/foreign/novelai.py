"""NovelAI writes JSON into the chunk `Comment`, and its prompt once more into `Description`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infuse.foreign.said import Said, mapping

MEANT = {"prompt": "prompt", "uc": "negative_prompt", "steps": "steps", "sampler": "sampler", "noise_schedule": "schedule", "scale": "guidance",
         "cfg_rescale": "guidance_rescale", "seed": "seed", "width": "width", "height": "height", "strength": "strength"}  # fmt: skip
ROUND = re.compile(r"(?<!\\)[()]")
NUMBERED = re.compile(r"(-?\d+(?:\.\d+)?)::([^:()]+)::")
UNHEARD = ("signed_hash", "n_samples", "request_type", "version", "legacy", "legacy_v3_extend", "params_version", "v4_prompt",
           "v4_negative_prompt", "uncond_scale", "extra_noise_seed", "noise", "lora_unet_weights", "lora_clip_weights", "stream",
           "reference_information_extracted_multiple", "reference_strength_multiple")  # fmt: skip


def read(data: Mapping[str, Any], description: str, source: str) -> Said:
    """`description` is the prompt once more, `source` the name of the model as the file has it."""
    said = Said("NovelAI", model=source or None)
    for key, value in data.items():
        if key in MEANT:
            setattr(said, MEANT[key], value)
        elif key not in UNHEARD and value not in (None, False, 0, 1, "", [], {}, True):
            said.left[key] = value
    if said.schedule == "native":
        said.schedule = None
    if data.get("request_type") not in ("Img2ImgRequest", "NativeInfillingRequest"):
        said.strength = None
    said.prompt = said.prompt or description
    for name, key in (("prompt", "v4_prompt"), ("negative_prompt", "v4_negative_prompt")):
        caption = mapping(mapping(data.get(key)).get("caption"))
        if not getattr(said, name):
            setattr(said, name, caption.get("base_caption"))
        if others := caption.get("char_captions"):
            said.left[f"{key}: words for single characters"] = others
    said.prompt, said.negative_prompt = weighed(said.prompt), weighed(said.negative_prompt)
    return said


def weighed(words: Any) -> Any:
    """Its weights in the webui's syntax: {a} is 1.05, [a] 1/1.05, 1.3::a:: is 1.3, and round brackets are words."""
    if not isinstance(words, str):
        return words
    words = ROUND.sub(r"\\\g<0>", words)
    words = words.replace("{", "(").replace("}", ":1.05)").replace("[", "(").replace("]", ":0.952)")
    return NUMBERED.sub(r"(\g<2>:\g<1>)", words)

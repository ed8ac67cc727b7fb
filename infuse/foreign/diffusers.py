"""Scripts around diffusers have no form of their own: some write its pipelines' argument names, one chunk each or together
as JSON. Read them by these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infuse.foreign.said import Said, mapping, whole

NAMES = {
    "prompt": ("prompt", "Prompt", "positive_prompt"),
    "negative_prompt": ("negative_prompt", "Negative prompt", "negativePrompt", "uncond_prompt"),
    "steps": ("num_inference_steps", "steps", "Steps"),
    "sampler": ("scheduler", "sampler", "sampler_name", "Sampler"),
    "guidance": ("guidance_scale", "cfg_scale", "cfg", "guidance"),
    "guidance_rescale": ("guidance_rescale",),
    "seed": ("seed", "Seed", "generator_seed"),
    "width": ("width", "Width"),
    "height": ("height", "Height"),
    "clip_skip": ("clip_skip",),
    "strength": ("strength",),
    "model": ("model", "model_id", "model_name", "pretrained_model_name_or_path", "base_model", "Model name"),
    "model_hash": ("model_hash", "base_model_hash"),
}
OWN = ("num_inference_steps", "guidance_scale", "negative_prompt", "seed", "steps", "prompt")
"""Two of these together are taken for a description of a picture."""
UNHEARD = ("Software", "software", "version", "dpi", "date", "Date", "Title", "Author", "Creation Time", "output_type", "return_dict",
           "generator", "ImageDescription", "Make", "Model", "XML:com.adobe.xmp", "comment", "Comment", "Description")  # fmt: skip


def is_theirs(data: Mapping[str, Any]) -> bool:
    return sum(name in data for name in OWN) >= 2


def read(data: Mapping[str, Any]) -> Said:
    said = Said("diffusers", syntax="plain")
    used: set[str] = set()
    for name, theirs in NAMES.items():
        for key in theirs:
            if data.get(key) not in (None, ""):
                setattr(said, name, data[key])
                used.add(key)
                break
    if isinstance(said.sampler, dict):
        said.sampler = mapping(said.sampler).get("_class_name")
    skipped = {k for names in NAMES.values() for k in names} | used
    said.left = {k: v for k, v in data.items() if k not in skipped and k not in UNHEARD and v not in (None, False, "")}
    if (
        skip := whole(said.clip_skip)
    ) is not None:  # diffusers counts the layers that are left out, of SDXL from the last but one
        said.clip_skip = skip + (2 if "xl" in str(said.model).lower() else 1) if skip > 0 else None
    return said

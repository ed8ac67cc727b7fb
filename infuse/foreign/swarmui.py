"""SwarmUI writes its parameters as JSON, under `sui_image_params`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infuse.foreign.said import Network, Said, mapping, real

MEANT = {"prompt": "prompt", "negativeprompt": "negative_prompt", "steps": "steps", "sampler": "sampler", "scheduler": "schedule",
         "cfgscale": "guidance", "seed": "seed", "width": "width", "height": "height", "model": "model", "vae": "vae"}  # fmt: skip
UNHEARD = ("swarm_version", "date", "generation_time", "aspectratio", "imageformat", "nopreviews", "loras", "loraweights", "original_prompt",
           "initimagecreativity", "initimage", "clipstopatlayer", "wildcardseed", "images", "personalnote", "donotsave")  # fmt: skip


def read(data: Mapping[str, Any]) -> Said:
    params = mapping(data.get("sui_image_params"))
    said = Said("SwarmUI")
    for key, value in params.items():
        if key in MEANT:
            setattr(said, MEANT[key], value)
        elif key not in UNHEARD and value not in (None, False, "", [], {}, -1):
            said.left[key] = value
    names, weights = _listed(params.get("loras")), _listed(params.get("loraweights"))
    said.loras = [Network(n, weights[i] if i < len(weights) else None) for i, n in enumerate(names)]
    layer = real(params.get("clipstopatlayer"))
    said.clip_skip = -layer if layer else None
    if params.get("initimage"):
        said.strength = params.get("initimagecreativity", 0.6)
    return said


def _listed(value: Any) -> list[str]:
    return [
        str(v).strip() for v in (value if isinstance(value, list) else str(value or "").split(",")) if str(v).strip()
    ]

"""What an IP-Adapter's file wants to be shown: a picture's embedding, its states, a face, or both. Its tensors say so.

Names and shapes only; imports no torch. Two things no tensor tells: whether a FaceID-plus was trained with the shortcut
(v2), and whether a projection of raw faces is InstantID's or a portrait's. Source: tencent-ailab/IP-Adapter@62e4af9.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from infuse.errors import WeightsError

Kind = Literal["plain", "full", "plus", "faceid", "faceid_plus", "instantid"]
EYES: Mapping[Kind, str] = {
    "plain": "image_proj.proj.weight", "full": "image_proj.proj.0.weight", "plus": "image_proj.proj_in.weight",
    "faceid_plus": "image_proj.perceiver_resampler.proj_in.weight",
}  # fmt: skip
"""Projections that see a picture -> the matrix that reads what the image encoder says."""
FACES: Mapping[Kind, str] = {
    "faceid": "image_proj.proj.0.weight", "faceid_plus": "image_proj.proj.0.weight", "instantid": "image_proj.proj_in.weight",
}  # fmt: skip
"""Projections that read a face -> the matrix that does."""
FACE = 512
"""Numbers of a face, as insightface's recognition networks (ArcFace) give it."""
LOWRANK = re.compile(r"ip_adapter\.(\d+)\.(to_(?:q|k|v|out))_lora\.(down|up)\.weight")
LONE_LORA = re.compile(r"(attn[12]|^\d+)[._](?:.*[._])?to_(q|k|v|out)")


@dataclass(frozen=True)
class Reads:
    """What a file's projection reads."""

    kind: Kind
    eye: int | None
    """Width of what the image encoder says; None: it sees no picture."""
    face: int | None
    """Numbers of a face; None: it reads none."""
    tokens: int
    """Made of each picture or face; 0: as many as the image encoder has states."""
    lowrank: int
    """Attentions whose projections the file changes, too (FaceID)."""

    @property
    def pooled(self) -> bool:
        """Does it see the pooled embedding instead of the states?"""
        return self.kind == "plain"

    @property
    def raw(self) -> bool:
        """Does it read faces as the recognition network gives them, instead of on the unit sphere?"""
        return self.kind == "instantid"


def variant(shapes: Mapping[str, Any], model: str) -> Kind:
    """Which projection a file holds. Raises WeightsError if it is none that is known here."""
    if EYES["faceid_plus"] in shapes:
        return "faceid_plus"
    if "image_proj.proj.3.weight" in shapes:
        return "full"
    if EYES["plain"] in shapes:
        return "plain"
    if "image_proj.proj.2.weight" in shapes and "image_proj.norm.weight" in shapes:
        return "faceid"
    if EYES["plus"] in shapes:
        return "instantid" if tuple(shapes[EYES["plus"]])[1] == FACE else "plus"
    raise WeightsError("model", f"{model!r} has no image projection that is known here. Is it an IP-Adapter?")


def reads(shapes: Mapping[str, tuple[int, ...]], model: str) -> Reads:
    """What a file's projection reads. Raises WeightsError if it is none that is known here."""
    kind = variant(shapes, model)
    context = next((s[1] for k, s in shapes.items() if k.endswith("to_k_ip.weight")), 1)
    match kind:
        case "plain":
            tokens = shapes["image_proj.proj.weight"][0] // context
        case "full":
            tokens = 0
        case "faceid" | "faceid_plus":
            tokens = shapes["image_proj.proj.2.weight"][0] // context
        case _:
            tokens = shapes["image_proj.latents"][1]
    changed = {m[1] for k in shapes if (m := LOWRANK.fullmatch(k))}
    eye, face = (int(shapes[at[kind]][1]) if kind in at else None for at in (EYES, FACES))
    return Reads(kind, eye, face, int(tokens), len(changed))


def is_faces_lora(shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Is this LoRA the low-rank part of a FaceID on its own: nothing but attentions' projections, all of one rank above 64?"""
    down = {k: s for k, s in shapes.items() if re.search(r"(lora_down|lora\.down|lora_A|_lora\.down|\.down)", k)}
    ranks = {min(s) for s in down.values() if len(s) > 1}
    return len(down) >= 128 and len(ranks) == 1 and max(ranks) > 64 and all(LONE_LORA.search(k) for k in down)


def v2(model: str, family: str) -> bool:
    """Is a FaceID-plus of that name meant as version 2? Tensors don't tell: its name says so, and SDXL's is one."""
    return family == "sdxl" or "v2" in model.lower()

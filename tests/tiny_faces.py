"""Tiny random IP-Adapters of every kind of file, those that read faces among them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tiny
from infuse.encoders.ip_adapter import Adapter, Face, FacePlus, Full, LowRank, Plain, Resampler
from infuse.network.spec import NetworkSpec

KINDS = ("plain", "full", "plus", "faceid", "portrait", "faceid_plus", "instantid")
"""Of files; a portrait is a FaceID of 16 tokens that changes no attentions."""
WIDTH, STATES, POOLED = 512, 48, 24
"""Numbers of a face, and of what the tiny image encoder says."""
INNER = 2 * WIDTH
"""Of the projections of faces: as wide, and of FaceID-plus as deep, as released ones, which is all that diffusers reads."""


def adapter(family: str, kind: str, seed: int = 60, spec: NetworkSpec | None = None) -> Adapter:
    """For the tiny base of a family, or for any network."""
    torch.manual_seed(seed)
    spec = spec or NetworkSpec.from_unet_config("tiny", tiny.unet(family).config)
    context, widths = spec.context_width, [w for _, w in spec.cross_layers]
    project: Any = {
        "plain": lambda: Plain(POOLED, 4, context),
        "full": lambda: Full(STATES, 40, context),
        "plus": lambda: Resampler(STATES, 64, 6, 4, context),
        "faceid": lambda: Face(WIDTH, INNER, 4, context),
        "portrait": lambda: Face(WIDTH, INNER, 16, context),
        "faceid_plus": lambda: FacePlus(
            WIDTH, INNER, 4, context, Resampler(STATES, context, None, 4, context, heads=1)
        ),
        "instantid": lambda: Resampler(WIDTH, 64, 6, 2, context),
    }[kind]()
    changes = kind in ("faceid", "faceid_plus")
    name = "faceid" if kind == "portrait" else kind
    out = (LowRank if changes else Adapter)(name, project, len(widths), widths, context)
    if isinstance(out, LowRank):
        for i, width in enumerate(widths):
            for number, source in ((2 * i, width), (2 * i + 1, context)):
                for part in ("to_q", "to_k", "to_v", "to_out"):
                    out.change(number, part, (source if part in ("to_k", "to_v") else width, 4), (4, width))
    return tiny.randomized(out, seed)  # type: ignore[return-value]


def face(seed: int = 0, width: int = WIDTH, length: float = 1.0) -> list[float]:
    """Numbers of a face of this length."""
    numbers = np.random.default_rng(seed).normal(size=width)
    return (numbers / np.linalg.norm(numbers) * length).tolist()


def shown(kind: str, picture: Any) -> dict[str, Any]:
    """Fields that show an adapter of this kind something."""
    face_first = {"face": [face(length=20.0 if kind == "instantid" else 1.0)]}
    if kind == "faceid_plus":
        return {**face_first, "image": picture, "shortcut": True}
    return face_first if kind in ("faceid", "portrait", "instantid") else {"image": picture}

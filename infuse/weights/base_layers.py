"""The modules of a base that have weights, by path and shape: of its files' headers, or of the loaded networks.

Imports no torch. Paths are those of diffusers' UNets and of transformers' CLIP text models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from infuse.weights.identify import identify
from infuse.weights.layouts import ldm_keys, video_keys
from infuse.weights.layouts.lora_names import PARTS, Shape
from infuse.weights.outline import must_be_base, plan_unet
from infuse.weights.source import Source

WEIGHT = ".weight"
TABLES = ("token_embedding", "position_embedding")
"""Rows that are looked up: no layers that anything is added to."""
CLIP = ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer.")
OPEN_CLIP = ("cond_stage_model.model.", "conditioner.embedders.0.model.", "conditioner.embedders.1.model.")
"""Where checkpoints have their text encoders, in the order in which a base has them."""

Shapes = Mapping[str, Shape]


def base_layers(source: Source) -> dict[str, dict[str, Shape]]:
    """Part (`unet`, `text_encoder`, `text_encoder_2`) -> module path -> shape of its weight, from the headers of a base.

    Of a folder, an original checkpoint, or a video release. Text encoders' paths have `text_model.` in front, which the
    loaded model may lack. Raises WeightsError for what is no base.
    """
    if source.release:
        return _of_release(source)
    if source.is_folder and source.component("unet"):
        shapes = source.header.shapes()
        own = {p: {k.removeprefix(f"{p}/"): s for k, s in shapes.items() if k.startswith(f"{p}/")} for p in PARTS}
        return {part: _layers(found) for part, found in own.items() if found}
    identity = identify(source.header)
    must_be_base(source, identity)
    plan = plan_unet(source.header, identity, source.field)
    stored = source.header.shapes(plan.prefix)
    found = {"unet": _layers({new: stored[old] for old, new in plan.names.items()})}
    texts = [_clip(s) for p in CLIP if (s := source.header.shapes(p))]
    texts += [_open_clip(s, "embedders.1." in p) for p in OPEN_CLIP if (s := source.header.shapes(p))]
    return found | dict(zip(PARTS[1:], texts, strict=False))


def layers_of(unet: Any, text_encoders: Sequence[Any]) -> dict[str, dict[str, Shape]]:
    """The same of loaded networks; paths are theirs."""
    found: dict[str, dict[str, Shape]] = {}
    for part, module in zip(PARTS, (unet, *text_encoders), strict=False):
        weights = ((path, getattr(m, "weight", None)) for path, m in module.named_modules())
        found[part] = _layers({f"{path}{WEIGHT}": tuple(w.shape) for path, w in weights if w is not None})
    return found


def _layers(shapes: Shapes) -> dict[str, Shape]:
    paths = {k.removesuffix(WEIGHT): s for k, s in shapes.items() if k.endswith(WEIGHT)}
    return {path: s for path, s in paths.items() if s and not any(t in path for t in TABLES)}


def _clip(shapes: Shapes) -> dict[str, Shape]:
    return _layers({new: shapes[old] for old, new in ldm_keys.clip(shapes).items()})


def _open_clip(shapes: Shapes, whole: bool) -> dict[str, Shape]:
    names = ldm_keys.open_clip(shapes, ldm_keys.open_clip_layers(shapes)) if whole else ldm_keys.open_clip_heard(shapes)
    found: dict[str, Shape] = {}
    for old, new in names.items():
        shape = shapes[old]
        if "{q,k,v}" in new:
            found |= {new.replace("{q,k,v}", p): (shape[0] // 3, *shape[1:]) for p in "qkv"}
        else:
            found[new] = shape[::-1] if old == "text_projection" else shape
    return _layers(found)


def _of_release(source: Source) -> dict[str, dict[str, Shape]]:
    stored = source.header.shapes(source.identity.prefix)
    found = {"unet": _layers({new: stored[old] for old, new in video_keys.names(stored).items()})}
    own = source.release.table("text_encoder") if source.release else {}
    if own:
        found["text_encoder"] = _open_clip({k: e.shape for k, e in own.items()}, whole=False)
    elif source.fallback:
        lent = {k.removeprefix("text_encoder/"): s for k, s in source.fallback.header.shapes().items()
                if k.startswith("text_encoder/")}  # fmt: skip
        found["text_encoder"] = _layers(lent)
    return found

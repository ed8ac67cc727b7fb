"""The modules of a base that have weights, by path and shape: of its files' headers, or of the loaded networks.

Imports no torch. Paths are those of diffusers' UNets and of transformers' CLIP text models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
TURNED = "text_projection"
"""OpenCLIP's, (width, projection)."""

Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Slot:
    """Where a tensor of a module lies in a base's files."""

    key: str
    """Of the base's header."""
    shape: Shape
    """As the module has it."""
    third: int | None = None
    """Which third of the stored rows it is, where queries, keys and values are one tensor."""
    turned: bool = False
    """Is it stored the other way round?"""


def slots(source: Source) -> dict[str, dict[str, Slot]]:
    """Part (`unet`, `text_encoder`, `text_encoder_2`) -> name of a tensor in the loaded network -> where it lies.

    Of a folder, an original checkpoint, or a video release. Text encoders' names have `text_model.` in front, which the
    loaded model may lack. Raises WeightsError for what is no base.
    """
    shapes = source.header.shapes()
    if source.release:
        return _of_release(source)
    if source.is_folder and source.component("unet"):
        found = {
            p: {k.removeprefix(f"{p}/"): Slot(k, s) for k, s in shapes.items() if k.startswith(f"{p}/")} for p in PARTS
        }
        return {part: own for part, own in found.items() if own}
    identity = identify(source.header)
    must_be_base(source, identity)
    plan = plan_unet(source.header, identity, source.field)
    found = {"unet": {new: Slot(plan.prefix + old, shapes[plan.prefix + old]) for old, new in plan.names.items()}}
    texts = [
        {new: Slot(p + old, s[old]) for old, new in ldm_keys.clip(s).items()}
        for p in CLIP
        if (s := source.header.shapes(p))
    ]
    texts += [_open_clip(s, p, "embedders.1." in p) for p in OPEN_CLIP if (s := source.header.shapes(p))]
    return found | dict(zip(PARTS[1:], texts, strict=False))


def base_layers(source: Source) -> dict[str, dict[str, Shape]]:
    """Part -> module path -> shape of its weight, from the headers of a base; as `slots` has them."""
    return {part: _layers({name: slot.shape for name, slot in own.items()}) for part, own in slots(source).items()}


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


def _open_clip(shapes: Shapes, prefix: str, whole: bool) -> dict[str, Slot]:
    names = ldm_keys.open_clip(shapes, ldm_keys.open_clip_layers(shapes)) if whole else ldm_keys.open_clip_heard(shapes)
    found: dict[str, Slot] = {}
    for old, new in names.items():
        shape = shapes[old]
        if "{q,k,v}" in new:
            third = (shape[0] // 3, *shape[1:])
            found |= {new.replace("{q,k,v}", p): Slot(prefix + old, third, n) for n, p in enumerate("qkv")}
        else:
            turned = old == TURNED
            found[new] = Slot(prefix + old, shape[::-1] if turned else shape, turned=turned)
    return found


def _of_release(source: Source) -> dict[str, dict[str, Slot]]:
    prefix = source.identity.prefix
    stored = source.header.shapes(prefix)
    found = {"unet": {new: Slot(prefix + old, stored[old]) for old, new in video_keys.names(stored).items()}}
    if own := source.release.table("text_encoder") if source.release else {}:
        found["text_encoder"] = _open_clip({k: e.shape for k, e in own.items()}, "text_encoder/", whole=False)
    elif source.fallback:
        at = "text_encoder/"
        lent = {k.removeprefix(at): s for k, s in source.fallback.header.shapes().items() if k.startswith(at)}
        found["text_encoder"] = {k: Slot(at + k, s) for k, s in lent.items()}
    return found

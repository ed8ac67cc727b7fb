"""A base model in numbers, from headers and config files alone: what a check needs before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import WeightsError
from ..network.spec import NetworkSpec
from . import ldm_configs, ldm_keys
from .checkpoint import must_be_base
from .identify import UNET, Identity, wrong_kind
from .parts import Loading
from .source import Source, read_json


@dataclass(frozen=True)
class Outline:
    """Spec, schedule and image encoder of a base model that is not loaded."""

    spec: NetworkSpec
    scheduler_config: Mapping[str, Any]
    vision_config: Mapping[str, Any] | None
    """config.json of the image encoder that comes with the model, if any."""


def outline(source: Source) -> Outline:
    """Read what a base model will be. Raises WeightsError if it is no base model, or a part of it is missing."""
    identity = source.identity
    if identity.kind != "base" or identity.variant == "refiner":
        raise wrong_kind(source.field, identity, "base", name=source.name)
    if source.is_folder:
        return _folder(source)
    must_be_base(Loading(source, torch.float32, "cpu"), identity)
    return _checkpoint(source, identity)


def _folder(source: Source) -> Outline:
    unet, vae, schedule = (source.component(p) for p in ("unet", "vae", "scheduler"))
    if unet is None or vae is None:
        raise WeightsError(source.field, f'"{source.name}" has no {"unet" if unet is None else "vae"}/ folder. Download the whole model again.')
    config = read_json(unet / "config.json", source.field)
    said = read_json(schedule / "scheduler_config.json", source.field) if schedule else {}
    said = said or ldm_configs.scheduler("sd2" if config.get("use_linear_projection") else "sd1", "epsilon")
    levels = len(read_json(vae / "config.json", source.field).get("block_out_channels", (0,) * 4))
    image = source.component("image_encoder")
    parameters = sum(e.numel for k, e in source.header.items() if k.startswith("unet/"))
    spec = NetworkSpec.from_unet_config(
        source.name, config, vae_factor=2 ** (levels - 1), prediction=said.get("prediction_type", "epsilon"),
        family=source.index.get("infuse_family"), parameters=parameters,
    )  # fmt: skip
    return Outline(spec, said, read_json(image / "config.json", source.field) if image else None)


def _checkpoint(source: Source, identity: Identity) -> Outline:
    prefix = UNET if any(k.startswith(UNET) for k in source.header) else identity.prefix
    stored = source.header.shapes(prefix)
    names = ldm_keys.trunk(stored, "class_embedding" if identity.context_width == 1024 else "add_embedding")
    shapes = {names[k]: s for k, s in stored.items() if k in names}
    size = 96 if identity.family == "sd2" and identity.prediction == "v_prediction" else None
    pooled = next((s[1] for k, s in source.header.shapes().items() if k.endswith("embedders.1.model.text_projection")), None)
    config = ldm_configs.unet(shapes, pooled=pooled, sample_size=size)
    spec = NetworkSpec.from_unet_config(
        source.name, config, prediction=identity.prediction or "epsilon", parameters=sum(math.prod(s) for s in shapes.values())
    )
    return Outline(spec, ldm_configs.scheduler(identity.family, identity.prediction or "epsilon"), None)

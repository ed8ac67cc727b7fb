"""A base whose network has LoRAs in its weights: the same answers as adding them row by row, to rounding, without their cost."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace

import torch
from torch import nn

from infuse.encoders.kit import Base
from infuse.network.blocks import slot, temporal
from infuse.network.edits import Unmerged
from infuse.network.lora import LoraNetwork

Merge = tuple[LoraNetwork, float, tuple[float, ...] | None]
"""A network, its strength, its factors of blocks."""


@torch.no_grad()
def merged(base: Base, loras: Sequence[Merge]) -> Base:
    """A copy of the base with another network; everything else is the base's own. Each change is made of the base's own weights,
    in float32 or more."""
    unet = deepcopy(base.network.unet)
    for path, layer in base.network.unet.named_modules():
        if temporal(path):  # as where they are heard row by row
            continue
        said = []
        for network, strength, factors in loras:
            place = slot(path) if factors else None
            s = strength * (factors[place] if factors and place is not None else 1.0)
            if s and (change := network.change("unet", path)) is not None:
                said.append((change, s))
        if not said:
            continue
        mine, weight = unet.get_submodule(path), layer.weight
        mine.unmerged = Unmerged(layer)  # type: ignore[assignment]  # for those that are added row by row beside these
        exact = torch.promote_types(weight.dtype, torch.float32)  # type: ignore[arg-type]
        deltas = (change.delta(layer, s).to(exact) for change, s in said)
        mine.weight = nn.Parameter(sum(deltas, start=weight.to(exact)).to(weight), requires_grad=False)  # type: ignore[operator,union-attr,call-overload]
        biases = [s * change.bias.to(weight) for change, s in said if change.bias is not None]  # type: ignore[arg-type]
        if biases:
            own = torch.zeros_like(biases[0]) if layer.bias is None else layer.bias
            mine.bias = nn.Parameter(sum(biases, start=own), requires_grad=False)  # type: ignore[arg-type,call-overload]
    return replace(base, network=type(base.network)(unet, base.spec))

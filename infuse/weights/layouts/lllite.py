"""A ControlNet-LLLite from its one flat file, for a base whose projections its terms are named after."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from infuse.conditions.lllite import FRONT, depth_of, places, terms
from infuse.errors import WeightsError
from infuse.network.lllite import LLLite, Term
from infuse.network.spec import NetworkSpec
from infuse.weights.build import assemble
from infuse.weights.formats import read_keys
from infuse.weights.kinds import wrong_kind
from infuse.weights.source import Source


def load_lllite(
    source: Source | str | Path,
    base: Any,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LLLite:
    """`base`: the UNet that it will steer.

    Raises WeightsError for another kind of file, for a term that this base has no projection for, and for what is
    missing or misshapen.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source), field="conditions.0.model")
    if source.identity.kind != "lllite":
        raise wrong_kind(source.field, source.identity, "lllite", name=source.name)
    keys = {k: k[k.find(FRONT) :] for k in source.header if FRONT in k}
    stored = {keys[k]: t for k, t in read_keys(source.header, keys).items()}
    own = terms({k: tuple(t.shape) for k, t in stored.items()})
    where = places(own, NetworkSpec.from_unet_config(source.name, dict(base.config)))
    lost = next((name for name, place in where.items() if place is None), None)
    if lost is not None:
        raise WeightsError(source.field, f'"{source.name}" has a term for {lost.removeprefix(FRONT)}, and this base has no such projection. Choose '
                                         "a LLLite of the base's family.")  # fmt: skip

    def make() -> LLLite:
        at = {(place.attention, place.name): name for name, place in where.items() if place is not None}
        return LLLite({name: term(shapes) for name, shapes in own.items()}, at)

    return assemble(make, stored, dtype, device, f'the LLLite "{source.name}"', source.field)


def term(shapes: Mapping[str, tuple[int, ...]]) -> Term:
    """An empty term of these shapes."""
    inner, width = shapes["down.0.weight"][:2]
    return Term(width, 2 * shapes["conditioning1.0.weight"][0], inner, depth_of(shapes))

"""The tensors of a file or of a component's folder, under the names that a module has for them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from infuse.weights.formats import read_tensors
from infuse.weights.layouts.ldm_checkpoint import take
from infuse.weights.layouts.wrapped import unwrapped
from infuse.weights.source import Source, weights_of


def stored(source: Source, names: Mapping[str, str]) -> dict[str, Tensor]:
    """names: stored key, without what stands before all of them -> the module's."""
    prefix = source.identity.prefix
    if not source.is_folder:
        return take(source.header, prefix, names, set())
    found = {unwrapped(k): t for p in weights_of(source.path, source.field) for k, t in read_tensors(p).items()}
    return {name: found[prefix + key] for key, name in names.items()}

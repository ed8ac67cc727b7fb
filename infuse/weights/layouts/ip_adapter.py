"""Adapter files as flat tensors under one spelling; the condition that uses them builds its own modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infuse.errors import WeightsError
from infuse.weights.formats import read_keys
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.source import Source

if TYPE_CHECKING:
    from torch import Tensor


def read_ip_adapter(source: Source | str | Path, *, base: int | None = None) -> tuple[dict[str, Tensor], Identity]:
    """Flat tensors `image_proj.*` and `ip_adapter.<N>.to_{k,v}_ip.weight`, as stored (see `ip_names`); and what the file is.

    `base` is the context width of the base. Raises WeightsError for another kind of file, RecipeError for another family.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source), field="conditions.0.model")
    found = source.identity
    if found.kind != "ip_adapter" or (base is not None and found.context_width != base):
        raise wrong_kind(source.field, found, "ip_adapter", name=source.name, base=base)
    if source.is_folder:
        raise WeightsError(source.field, f'"{source.name}" is a folder; name the adapter\'s file in it.')
    return read_keys(source.header, [k for k in source.header if k.startswith(("image_proj.", "ip_adapter."))]), found

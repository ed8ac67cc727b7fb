"""What a model store says of a name: what it stands for now, and the sha256 of what was loaded under it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from infuse.conditions.base import Condition
from infuse.engine.digests import joined, models_of, named_by
from infuse.engine.dressing import PARTS
from infuse.engine.kept import Kept
from infuse.engine.places import BRUSHES, Place
from infuse.recipe import Recipe

if TYPE_CHECKING:
    from torch import nn

    from infuse.encoders.kit import Base


class Versions:
    """The part of a `ModelStore` that is asked what lies at a name."""

    lent: Callable[[str, str], nn.Module | None]
    _bases: dict[str, Base]
    _own: dict[str, nn.Module]
    _kept: Kept
    _place: Callable[..., Place]

    def version(self, name: str, kind: str = "") -> Hashable:
        """What a name stands for now: the object that was added, or path, times and sizes of the files that are read.

        kind: of the condition that names it ("powerpaint", "ip_adapter"...), "vision" for an image encoder, "" for a base.
        Raises WeightsError if there is nothing of this name.
        """
        own = self.lent(name, kind) if kind in PARTS else self._own.get(name) if kind else self._bases.get(name)
        return own if own is not None else self._place(name, kind).version

    def versions(self, condition: Condition) -> tuple[Hashable, ...]:
        """The same of every model that a condition names."""
        named = named_by(condition)
        return tuple(self.version(n, "vision" if f == "image_encoder" else condition.kind) for f, n in named)

    def digests(self, recipe: Recipe, besides: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
        """sha256 of every weights file that a recipe names: as it was when loaded, or as it lies there if it is not.

        besides: (model, kind) of what its words name.
        """
        named = models_of(recipe) | set(besides)
        return joined((name, self._digest(name, kind)) for name, kind in sorted(named))

    def _digest(self, name: str, kind: str) -> str:
        if kind == "" and name in self._bases:
            return self._bases[name].digest
        if name in self._own or (kind in PARTS and name in self._bases):
            return ""
        whats = ("base",) if kind == "" else ("brushnet", "tasks") if kind in BRUSHES else ()
        for e in reversed(self._kept.entries):
            if kind in PARTS and not (isinstance(e.key.what, tuple) and e.key.what[:1] == (kind,)):
                continue
            if name in e.names and (e.key.what in whats if whats else e.key.what not in ("base", "brushnet", "tasks")):
                return e.digest
        return self._place(name, kind).digest

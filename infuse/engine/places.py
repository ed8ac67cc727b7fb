"""Where a name leads, and what lies there now: the files that are read, and when they were last written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os.path import normpath
from pathlib import Path
from typing import Any, NamedTuple

from infuse.conditions.base import Condition
from infuse.errors import WeightsError
from infuse.recipe import Recipe
from infuse.weights.overrides import part_of
from infuse.weights.source import Source

BRUSHES = ("brushnet", "powerpaint")
"""Kinds whose name stands for a BrushNet, also where a base lies beside it."""
BESIDE = ("scheduler", "tokenizer", "tokenizer_2", "feature_extractor")
"""Folders of a pipeline that have no weights."""


class Stamp(NamedTuple):
    """A file as it was: nanoseconds of its last change, and bytes."""

    path: str
    changed: int
    size: int


@dataclass(frozen=True)
class Version:
    """What lies at a place: equal as long as none of the files that are read was written again."""

    path: str
    stamps: tuple[Stamp, ...]


@dataclass(frozen=True)
class Place:
    """A model on the disk. `what` is a Source, or a Brush with the task encoder beside it; `whole`, what that is a part of."""

    what: Any
    field: str
    whole: Source | None = None

    @property
    def source(self) -> Source:
        return getattr(self.what, "source", self.what)

    @property
    def version(self) -> Version:
        """Raises WeightsError if a file is missing."""
        try:
            found = {str(p): p.stat() for p in _files(self.source)}
            if encoder := getattr(self.what, "encoder", None):
                found[str(encoder)] = encoder.stat()
        except OSError as e:
            raise WeightsError(
                self.field, f"{e.filename} cannot be read ({e.strerror}). Was it moved while infuse looked?"
            ) from e
        return Version(
            str(self.source.path), tuple(Stamp(p, s.st_mtime_ns, s.st_size) for p, s in sorted(found.items()))
        )

    @property
    def digest(self) -> str:
        """sha256 over what the name stands for."""
        return (self.whole or self.what).digest

    def size(self, dtype: str) -> int:
        """Bytes once loaded, from the headers."""
        from infuse.weights.estimate import estimate
        from infuse.weights.formats import read_header

        if encoder := getattr(self.what, "encoder", None):
            return estimate(self.source.header, dtype) + estimate(read_header(encoder, self.field), dtype)
        header = self.source.header
        return estimate(header, dtype, None if self.source.is_folder else self.source.identity)


def place_of(library: Any, model: str, kind: str = "", field: str = "model") -> Place:
    """Where a name leads, for a condition of this kind ("": a base; "vision": an image encoder, a pipeline's or a folder).

    Raises WeightsError if nothing of the kind is there.
    """
    if kind not in BRUSHES:
        source = library.find(model, field)
        if kind in ("vae", "text_encoder"):
            return Place(part_of(source, kind), field)
        eye = source.path / "image_encoder"
        if kind == "vision" and eye.is_dir():
            return Place(Source(source.name, eye, field=field), field, source)
        return Place(source, field)
    from infuse.weights.layouts.powerpaint import FOLDERS, brush_in

    return Place(brush_in(library.part(model, FOLDERS, field)), field)


EYES = ("image_encoder", "../image_encoder", "../models/image_encoder", "../sdxl_models/image_encoder")
"""Seen from an IP-Adapter's file: h94/IP-Adapter has one for each family, and SDXL adapters that want the other's."""


def eyes_beside(library: Any, model: str) -> tuple[str, ...]:
    """Folders of image encoders where releases put them. Raises WeightsError if there is no such adapter."""
    path = library.find(model, "model").path
    folder = path if path.is_dir() else path.parent
    places = dict.fromkeys(normpath(folder / eye) for eye in EYES)
    return tuple(p for p in places if (Path(p) / "config.json").is_file())


def _files(source: Source) -> Iterator[Path]:
    """Weights, and the small files that say how they are built and used."""
    weights = [p for paths in source.weights.values() for p in paths]
    beside = {f for part in BESIDE if source.is_folder and (f := source.component(part))}
    lenders = {source.fallback.path} if source.fallback else set()
    names = ("config.json", "model_index.json", "card.json", f"{source.path.stem}.card.json")
    small = [f / n for f in {source.path, *lenders, *(p.parent for p in weights)} for n in names]
    small += [p for folder in beside for p in folder.iterdir()]
    yield from (*weights, *(p for p in small if p.is_file()))


def admitted(store: Any, recipe: Recipe) -> Recipe:
    """The recipe with each model's name as `store` finds it from anywhere. Raises WeightsError for what it may not use."""
    from infuse.weights.admission import admitted

    def place(name: str, field: str) -> str:
        return name if store.is_added(name) else admitted(store.library, name, recipe.reading, field)

    return recipe.with_models(place)


def admitted_names(store: Any, recipe: Recipe, named: Mapping[str, Condition]) -> dict[str, Condition]:
    """Conditions that stand in a recipe's words, by where: those of a stranger's may use what his fields may, and nothing else.

    A name alone is found wherever below the user's folders its file lies, as the webui finds it. Raises WeightsError as `admitted`
    does, and for a name of several files.
    """
    from infuse.weights.admission import admitted

    def place(where: str, name: str) -> str:
        if store.is_added(name):
            return name
        name = anywhere(store.library, name, where)
        return name if recipe.reading.trusting else admitted(store.library, name, recipe.reading, f"{where}.model")

    return {
        where: c.model_copy(update={"model": place(where, str(model))}) if (model := getattr(c, "model", None)) else c
        for where, c in named.items()
    }


def anywhere(library: Any, name: str, where: str) -> str:
    """The name under which a library finds the file of this name, in whatever folder it is; else the name itself."""
    if "/" in name or "\\" in name or name in library.embedded or library.in_roots(name, f"{where}.model"):
        return name
    near = [e for e in library.stock if e.path.stem.lower() == name.lower()]
    found = [e for e in near if e.path.stem == name] or near
    if len(found) > 1:
        listed = ", ".join(e.name for e in found)
        raise WeightsError(
            f"{where}.model", f"{name!r} is the name of {len(found)} files: {listed}. Write the folder, too."
        )
    return found[0].name if found else name

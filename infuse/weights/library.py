"""A name becomes a place: embedded models by their short names, then paths, then your folders, then the Hub.

The order is the promise: `edges` always is the embedded ControlNet, `./edges` always the folder beside you. Nothing is
loaded here; what is found is a `Source`, and what it holds is asked of its header.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property
from importlib.resources import files
from os.path import isdir, normpath
from pathlib import Path

from infuse.errors import WeightsError
from infuse.media.reading import at_home, shown
from infuse.weights import hub, shelves
from infuse.weights.formats import SUFFIXES, Header
from infuse.weights.kinds import Identity
from infuse.weights.layouts.difference import Difference, base_named, unfound, unnamed
from infuse.weights.layouts.powerpaint import FOLDERS, UNDER, is_v1, is_v2, tasks_of
from infuse.weights.layouts.video_release import is_loose, release_at
from infuse.weights.source import COMPONENTS, Source, read_json

ALIASES = {
    "base": "tabletop", "inpaint": "tabletop-inpaint", "video": "tabletop-video", "depth": "tabletop-depth", "edit": "tabletop-edit",
    "judge": "tabletop-judge",
}  # fmt: skip
"""Embedded files and folders whose public name differs from their own; the others (`edges`, `depths`) keep theirs."""


def embedded_root() -> Path:
    """The folder of the weights that come with infuse."""
    return Path(str(files("infuse"))) / "tabletop" / "weights"


class Library:
    """Where models are looked for. `roots` default to INFUSE_MODELS (folders, separated as in PATH).

    `offline` None asks HF_HUB_OFFLINE. `paths=False` refuses paths outside of the roots: for a server whose recipes come
    from strangers.
    """

    def __init__(self, roots: Iterable[str | Path] | None = None, *, offline: bool | None = None, paths: bool = True,
                 embedded: Path | None = None) -> None:  # fmt: skip
        given = os.environ.get("INFUSE_MODELS", "").split(os.pathsep) if roots is None else roots
        self.roots = tuple(Path(r).expanduser() for r in given if str(r))
        self.offline, self.paths, self._embedded = offline, paths, embedded

    def find(self, model: str, field: str = "model", *, above: tuple[Path, ...] = ()) -> Source:
        """The place of a model by name, path or Hub id (`owner/name`, `owner/name/sub/file.safetensors`, `owner/name@revision`).

        May download, when the cache has no copy and the library is not offline. Raises WeightsError that lists the
        places looked at, close matches and what to do.
        """
        name = str(model).strip()
        if not name:
            raise WeightsError(
                field, "no model is named. Give a name, a path or a Hub id; `tabletop` comes with infuse."
            )
        if name in self.embedded:
            return replace(self.embedded[name], field=field)
        place = self._path(name) or self.in_roots(name, field)
        if place is None and hub.is_id(name) and not self._folder(name):
            place = self._on_hub(name, field)
        if place is None:
            raise WeightsError(field, self._not_found(name))
        place = _only_file(place) or _only_pipeline(place) or place
        if (base := base_named(place, field)) is not None:
            return self._difference(name, place, base, field, above)
        return Source(name, place, fallback=self._fallback(place, field), field=field)

    def header(self, model: str, field: str = "model") -> tuple[Header, Identity]:
        """The table of tensors and what it tells, without reading a tensor."""
        source = self.find(model, field)
        return source.header, source.identity

    def names(self) -> dict[str, str]:
        """Every name that needs no path: embedded models and the entries of the roots, with a line on each."""
        found = {name: str(source.card.get("description", "")) for name, source in self.embedded.items()}
        for entry in self.stock:
            second = any((entry.path / folder).is_dir() for folder in FOLDERS)
            where = f"in {entry.shelf}" + ", with a BrushNet beside it" * second
            try:
                said = str(Source(entry.name, entry.path).card.get("description", where))
            except WeightsError:  # `find` says what is wrong with it
                said = where
            found.setdefault(entry.name, said)
        return found

    @property
    def stock(self) -> list[shelves.Entry]:
        """What lies in the roots now: models in them, and on the shelves of the programs whose folders they are."""
        return [e for root in self.roots if root.is_dir() for e in shelves.entries(root, _is_there, _is_whole)]

    @cached_property
    def embedded(self) -> Mapping[str, Source]:
        """What comes with infuse, by public name."""
        root = self._embedded or embedded_root()
        entries = [e for e in sorted(root.iterdir()) if e.suffix in SUFFIXES or _is_model(e)] if root.is_dir() else []
        found: dict[str, Source] = {}
        for entry in sorted(entries, key=lambda e: e.stem != "base"):
            own = entry.name if entry.is_dir() else entry.stem
            under = found.get(str(read_json(entry / "model_index.json").get("infuse_base"))) if entry.is_dir() else None
            name = ALIASES.get(own, own)
            base = base_named(entry)
            if base is None:
                found[name] = Source(name, entry, embedded=True, fallback=under)
            elif base in found:
                found[name] = Difference(name, entry, embedded=True, fallback=found[base])
        return found

    def part(self, model: str, parts: Iterable[str], field: str = "model") -> Source:
        """Like `find`, but the first of these subfolders, if the model has one (a release of several models)."""
        name, parts = str(model).strip().rstrip("/"), tuple(parts)
        if found := self._inside(name, parts, field):
            return found
        whole = self.find(model, field)  # which may have downloaded it
        return self._inside(name, parts, field) or whole

    def _difference(self, name: str, place: Path, base: str, field: str, above: tuple[Path, ...]) -> Difference:
        """A file that is added to a base, with the base; `above`: the files that are added to this one."""
        if not base:
            raise unnamed(place, field)
        if place in above:
            raise unfound(
                place, base, field, f"it is added to {place.name} itself. Name the base that it was made for."
            )
        try:
            found = self.find(str(self._path(str(place.parent / base)) or base), field, above=(*above, place))
        except WeightsError as e:
            raise unfound(place, base, field, e.message) from e
        return Difference(name, place, fallback=found, field=field)

    def _inside(self, name: str, parts: tuple[str, ...], field: str) -> Source | None:
        for inside in (f"{name}/{part}" for part in parts if name not in self.embedded):
            place = self._path(inside) or self.in_roots(inside)
            if place is None and hub.is_id(name) and hub.is_id(inside):
                place = hub.cached(*hub.split_id(inside))
            if place is not None:
                return Source(name, place, field=field)
        return None

    def _fallback(self, place: Path, field: str) -> Source | None:
        """The model that lends what this folder leaves out, named by its path seen from here, or by any name."""
        folder = place if place.is_dir() else place.parent  # of a video release's loose UNet
        index = read_json(folder / "model_index.json", field) if place.is_dir() or is_loose(place) else {}
        if base := index.get("infuse_base"):
            return self.find(str(self._path(str(folder / base)) or base), field)
        if not is_v1(place) or not tasks_of(Source(place.name, place, field=field)):
            return None
        for name in UNDER:
            try:
                return self.find(name, field)
            except WeightsError:
                continue
        raise WeightsError(field, f"{place} is a PowerPaint 1, which was released without VAE, tokenizer and configs: they are those of "
                                  f"{UNDER[0]}, which was not found. Download that too (or {UNDER[1]}), or write a model_index.json "
                                  'beside unet/ that names another: {"infuse_base": "path of an SD 1.5 inpainting folder"}.')  # fmt: skip

    def _path(self, name: str) -> Path | None:
        path = at_home(name)
        if not _is_there(path):
            return None
        inside = any(path.resolve().is_relative_to(r.resolve()) for r in self.roots)
        return path if self.paths or inside else None

    def in_roots(self, name: str, field: str = "model") -> Path | None:
        """Its place in one of the roots, or on one of their shelves, if it is there.

        Raises WeightsError if several shelves have one of this name.
        """
        for root in self.roots:
            for candidate in (root / name, *(root / f"{name}{s}" for s in SUFFIXES)):
                inside = Path(normpath(candidate)).is_relative_to(
                    normpath(root)
                )  # links in a root are its owner's choice
                if inside and _is_there(candidate):
                    return candidate
        for root in self.roots:
            found = shelves.places(root, name, _is_there)
            if len(found) > 1:
                listed = ", ".join(str(p) for p in found)
                raise WeightsError(
                    field,
                    f'"{shown(name)}" is the name of {len(found)} models: {listed}. Give the path of the one you mean.',
                )
            if found:
                return found[0]
        return None

    def _folder(self, name: str) -> Path | None:
        """A folder of this name which is no model: whoever has one does not mean the Hub."""
        here = [at_home(name)] * self.paths + [r / name for r in self.roots if ".." not in Path(name).parts]
        return next((p for p in here if isdir(p)), None)

    def _on_hub(self, name: str, field: str) -> Path | None:
        repo, sub = hub.split_id(name)
        found = hub.cached(repo, sub)
        return found if found or hub.is_offline(self.offline) else hub.download(repo, sub, field)

    def _not_found(self, name: str) -> str:
        looked = ["the embedded models", *([] if not self.paths else ["the path itself"])]
        looked += [str(r) for r in self.roots]
        folder = self._folder(name)
        on_hub = hub.is_id(name) and not folder
        if on_hub:
            looked.append("the local Hub cache")
        near = get_close_matches(name[:200], list(self.names()), n=3, cutoff=0.5)
        lines = [f'"{shown(name)}" was not found. Looked at: {", ".join(looked)}.']
        if near:
            lines.append(f"Close names: {', '.join(near)}.")
        if folder:
            return f'the folder "{name}" is there, but no model: neither model_index.json nor config.json is in it. {_inside(folder)}'
        if on_hub and hub.is_offline(self.offline):
            repo, _ = hub.split_id(name)
            lines.append(f"infuse is offline (HF_HUB_OFFLINE): run `{hub.command(repo)}` where there is a network, and copy the "
                         "cache or give the path of the folder.")  # fmt: skip
        elif not near:
            lines.append("Give a path, a Hub id (owner/name), or put the file into a folder of INFUSE_MODELS.")
        return " ".join(lines)


def _inside(folder: Path) -> str:
    """What a folder that is no model holds instead, and what to do."""
    entries = sorted(folder.iterdir())
    files = [p.name for p in entries if p.suffix in SUFFIXES and not p.name.startswith(STATE)]
    models = [p.name for p in entries if p.is_dir() and _is_there(p)]
    parts = [p.name for p in entries if p.is_dir() and p.name in (*COMPONENTS, "tokenizer", "scheduler")]
    listed = ", ".join([*models, *files][:5]) + ", ..." * (len(models + files) > 5)
    if parts and "unet" not in parts:
        return f"It has {', '.join(parts)}, but no unet. Download the whole model again."
    if files or models:
        return f"It holds {len(files + models)} model{'s' * (len(files + models) > 1)} ({listed}). Name the one that you mean."
    return "It holds no weights. Download the model again, or name another place."


def _is_there(path: Path) -> bool:
    try:
        return path.is_file() or _is_model(path) or _only_file(path) is not None or _only_pipeline(path) is not None
    except OSError:  # a name that is too long for a file, or a folder that others may not look into
        return False


def _is_whole(folder: Path) -> bool:
    """A folder that is one model by itself, rather than one in which a single file lies."""
    return _is_model(folder) or _only_pipeline(folder) is not None


def _only_file(folder: Path) -> Path | None:
    """The one weights file of a folder that has no config: a Hub repository made for one checkpoint."""
    if not folder.is_dir() or _is_model(folder):
        return None
    found = [p for p in folder.iterdir() if p.suffix in SUFFIXES and not p.name.startswith(STATE)]
    return found[0] if len(found) == 1 else None


STATE = ("optimizer", "scheduler", "scaler", "sampler", "random_states")
"""How accelerate begins the names of what training goes on with, beside the weights of its checkpoints."""


def _only_pipeline(folder: Path) -> Path | None:
    """The one pipeline in a release of several models (PowerPaint 2 brings its base along)."""
    if not folder.is_dir() or _is_model(folder):
        return None
    found = [p for p in folder.iterdir() if p.is_dir() and (p / "model_index.json").is_file()]
    return found[0] if len(found) == 1 else None


SIGNS = ("model_index.json", "config.json", "unet/config.json")


def _is_model(path: Path) -> bool:
    """A folder in diffusers layout: a pipeline, or one component; or a release without configs (PowerPaint, VideoComposer)."""
    if not path.is_dir():
        return False
    return is_v1(path) or is_v2(path) or any((path / n).is_file() for n in SIGNS) or release_at(path) is not None

"""LoRAs become part of a base: its files are written again with W + sum of s D for W, in their own layout and precision.

Sums are made in float32 and rounded once. Of several LoRAs each is made for the base's own weights, so that their order does
not matter, as it does not matter in a recipe.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from infuse.errors import RecipeError, WeightsError
from infuse.network.lora import LoraNetwork
from infuse.notices import note
from infuse.weights.base_layers import Slot, slots
from infuse.weights.formats import PICKLES, SUFFIXES, read_header, read_tensors
from infuse.weights.layouts.difference import Difference
from infuse.weights.layouts.lora import read
from infuse.weights.library import Library
from infuse.weights.lora_outline import base_layers
from infuse.weights.outline import outline
from infuse.weights.source import Source

SAID = "infuse_merged"
"""In the metadata of what is written: a list of the names, weights and digests of what was merged, as JSON."""
STALE = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata about the numbers of a file, which are others now."""
SAFE = ".safetensors"

Watch = Callable[[int, int], None]
"""Told how many tensors are changed, of how many."""


@dataclass(frozen=True)
class Share:
    """A LoRA that was read for the base, and how strongly it is merged."""

    network: LoraNetwork
    weight: float


@dataclass(frozen=True)
class Place:
    """What a stored tensor is in the loaded base, or a third of it."""

    slot: Slot
    part: str
    path: str
    leaf: str
    """weight or bias."""


Changes = Mapping[str, Sequence[Place]]
"""By key of the base's header."""


def merge(
    base: Source | str | Path,
    loras: Sequence[tuple[Source | str | Path, float]],
    out: str | Path,
    watch: Watch = lambda done, of: None,
) -> int:
    """Write a base with LoRAs in its weights; returns how many of its tensors are changed.

    base: a checkpoint or a diffusers folder, by name, path or as a Source. loras: each with its weight, any finite number. out: a
    .safetensors file for a checkpoint, a folder for a folder. Raises RecipeError or WeightsError, before anything is written, for
    what `lora_outline` refuses, for an `out` that is there, and for bases that are stored as a difference or a video release.
    """
    library, out = Library(), Path(out).expanduser()
    source = base if isinstance(base, Source) else library.find(str(base), "base")
    _must_be_mergeable(source, loras, out)
    where = slots(source)
    layers, net = base_layers(source), outline(source).spec
    shares, said = list[Share](), list[dict[str, Any]]()
    for n, (lora, weight) in enumerate(loras):
        one = lora if isinstance(lora, Source) else library.find(str(lora), f"loras.{n}")
        network = read(one, layers, net, torch.float32)
        if network.words:
            note(
                f'"{one.name}": words that are bundled with it ({", ".join(network.words)}) cannot be merged. Keep the file for them.'
            )
        shares.append(Share(network, weight))
        said.append({"name": one.path.name, "weight": weight, "sha256": one.digest})
    job = _Job(source, shares, _changes(where, shares, source), {SAID: json.dumps(said)}, watch)
    part = out.with_name(f".{out.name}.part")
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        job.folder(part) if source.is_folder else job.file(source.path, part)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True) if part.is_dir() else part.unlink(missing_ok=True)
    return job.done


@dataclass
class _Job:
    """What is to be written."""

    source: Source
    shares: Sequence[Share]
    changes: Changes
    said: Mapping[str, str]
    watch: Watch
    done: int = 0

    def file(self, path: Path, out: Path, under: str = "") -> None:
        """One file of the base, under its own names. `under`: what the base's header has in front of its keys."""
        tensors = read_tensors(path)
        if path.suffix in PICKLES:  # names may share memory there
            tensors = {k: t.contiguous().clone() for k, t in tensors.items()}
        for key, places in self.changes.items():
            name = self.source.header.stored.get(key, key)
            if not name.startswith(under) or (name := name.removeprefix(under)) not in tensors:
                continue
            tensors[name] = merged(tensors[name], places, self.shares)
            self.done += 1
            self.watch(self.done, len(self.changes))
        from safetensors.torch import save_file

        own = {k: v for k, v in read_header(path).metadata.items() if k not in STALE}
        before = json.loads(own.get(SAID, "[]"))
        said = {SAID: json.dumps([*before, *json.loads(self.said[SAID])])}
        save_file(tensors, out, metadata={"format": "pt", **own, **said})

    def folder(self, out: Path) -> None:
        """A pipeline's folder: the files of changed networks are written, all others copied."""
        source, changed = self.source, {key.partition("/")[0] for key in self.changes}
        out.mkdir()
        for entry in source.path.iterdir():
            if entry.name not in changed:
                shutil.copytree(entry, out / entry.name) if entry.is_dir() else shutil.copy2(entry, out / entry.name)
        for part in sorted(changed):
            files, own = source.weights[part], source.component(part)
            assert own is not None, part
            (out / part).mkdir()
            for entry in own.iterdir():  # weights of other precisions would be the unmerged ones
                index = ".index" in entry.name
                if entry.is_file() and (entry.suffix not in SUFFIXES and not index or index and len(files) > 1):
                    shutil.copy2(entry, out / part / entry.name)
            for path in files:
                self.file(path, out / part / _named(path, part), f"{part}/")


def _named(path: Path, part: str) -> str:
    """What a network's file is called in safetensors."""
    stem = path.stem.replace("pytorch_model", "model") if part.startswith("text_encoder") else path.stem
    return f"{stem}{SAFE}" if path.suffix in PICKLES else path.name


def _must_be_mergeable(source: Source, loras: Sequence[Any], out: Path) -> None:
    if not loras:
        raise RecipeError("loras", "no LoRA is named. Give one or more, each with its weight: style.safetensors@0.8.")
    bad = next((i for i, (_, weight) in enumerate(loras) if not isfinite(weight)), None)
    if bad is not None:
        raise RecipeError(
            f"loras.{bad}",
            f"the weight {loras[bad][1]} is no number that weights can be multiplied by. Write one like 0.8.",
        )
    if isinstance(source, Difference) or source.release:
        what = (
            "only what is added to another base"
            if isinstance(source, Difference)
            else "a video release of several files"
        )
        raise WeightsError("base", f'"{source.name}" is {what}, which is not written again. Merge into a checkpoint or a diffusers folder, '
                                   "or use the LoRA in a recipe.")  # fmt: skip
    if out.exists():
        raise RecipeError(
            "out", f"{out} is there already, and nothing is overwritten. Name another place, or remove it."
        )
    if source.is_folder and out.suffix in SUFFIXES:
        raise RecipeError(
            "out", f'"{source.name}" is a folder, and is written as one. Name a folder instead of {out.name}.'
        )
    if not source.is_folder and out.suffix != SAFE:
        raise RecipeError("out", f"{out} is no name of a safetensors file. Let it end with {SAFE}.")
    if source.is_folder and any(len(files) > 1 and files[0].suffix in PICKLES for files in source.weights.values()):
        raise WeightsError("base", f'"{source.name}" lies in several pickles. Convert it first: infuse convert.')
    if source.is_folder and source.lent:
        raise WeightsError(
            "base",
            f'"{source.name}" holds only what is added to another UNet, and is not written again. Merge into that one.',
        )


def _changes(
    where: Mapping[str, Mapping[str, Slot]], shares: Sequence[Share], source: Source
) -> dict[str, list[Place]]:
    """Which tensors of the base are changed. Raises WeightsError for a bias where the base has none."""
    found: dict[str, list[Place]] = {}
    for part, own in where.items():
        for path in sorted({path for s in shares for path in s.network.paths(part)}):
            biased = any((c := s.network.change(part, path)) is not None and c.bias is not None for s in shares)
            for leaf in ("weight", "bias") if biased else ("weight",):
                slot = own.get(f"{path}.{leaf}")
                if slot is None:
                    raise WeightsError("loras", f'a LoRA adds a bias to {path} of the {part}, and "{source.name}" has none there that it could be '
                                                "merged into. Use it in a recipe, where it needs none.")  # fmt: skip
                found.setdefault(slot.key, []).append(Place(slot, part, path, leaf))
    return found


def merged(stored: Tensor, places: Sequence[Place], shares: Sequence[Share]) -> Tensor:
    """One stored tensor with all that is added to it, in its own dtype; one of three projections is changed by thirds."""
    whole = stored.detach().float().clone()
    for place in places:
        own = whole if place.slot.third is None else whole.chunk(3)[place.slot.third]
        own = own.T if place.slot.turned else own
        layer = nn.Module()
        layer.weight = nn.Parameter(own.clone(), requires_grad=False)  # the base's own, whoever else is merged
        for share in shares:
            change = share.network.change(place.part, place.path)
            if change is None:
                continue
            if place.leaf == "weight":
                own += change.delta(layer, share.weight).reshape(own.shape)
            elif change.bias is not None:
                own += share.weight * change.bias.float()
    return whole.to(stored.dtype)

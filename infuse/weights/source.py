"""A source is where a model lies: one file, or a folder of components, each with its config and its weights.

What is in a diffusers folder (`unet/config.json`, `unet/diffusion_pytorch_model.safetensors`, variants, shards) is known
here and nowhere else. Reads names and headers only; imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from infuse.errors import WeightsError
from infuse.weights.formats import PICKLES, SUFFIXES, Entry, Header, digest, read_header
from infuse.weights.identify import identify
from infuse.weights.kinds import Identity
from infuse.weights.layouts.video_release import VideoRelease, release_at
from infuse.weights.layouts.wrapped import plain

COMPONENTS = ("unet", "vae", "text_encoder", "text_encoder_2", "image_encoder", "image_normalizer", "composer")
"""Components with weights that infuse loads; safety checkers and the like are left on the disk."""
STEMS = ("diffusion_pytorch_model", "model", "pytorch_model", "open_clip_pytorch_model")


@dataclass(frozen=True)
class Source:
    """A found model. `name` is what the user wrote; `fallback` answers for components that this folder leaves out."""

    name: str
    path: Path
    embedded: bool = False
    fallback: Source | None = None
    field: str = "model"

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    def component(self, part: str) -> Path | None:
        """Folder of one component (`unet`, `tokenizer`, `scheduler`), here or in the fallback.

        `composer` is never lent without the UNet that it belongs to.
        """
        here = self.path / part
        if part == "composer" and (self.path / "unet").is_dir() and not here.is_dir():
            return None
        if here.is_dir() and any(here.iterdir()):
            return here
        return self.fallback.component(part) if self.fallback else None

    def config(self, part: str) -> Mapping[str, Any]:
        """A component's config.json: its own, or the fallback's (PowerPaint 1 was released without)."""
        own = read_json(self.path / part / "config.json", self.field)
        return own or (self.fallback.config(part) if self.fallback else {})

    @cached_property
    def index(self) -> Mapping[str, Any]:
        """model_index.json, over the fallback's."""
        under = self.fallback.index if self.fallback else {}
        return {**under, **read_json(self.path / "model_index.json", self.field)}

    @cached_property
    def card(self) -> Mapping[str, Any]:
        """What is said about the model: card.json in its folder, or `<stem>.card.json` beside its file."""
        return read_json(
            self.path / "card.json" if self.is_folder else self.path.with_name(f"{self.path.stem}.card.json"),
            self.field,
        )

    @cached_property
    def release(self) -> VideoRelease | None:
        """The files of a VideoComposer or ModelScope release, or around its UNet's file."""
        return release_at(self.path, self.field)

    @cached_property
    def weights(self) -> Mapping[str, list[Path]]:
        """Component -> its weights files ("" for a single file or a component folder)."""
        if self.release:
            parts = ("unet", "vae", "text_encoder", "image_encoder")
            own = {p: [place[0].path] for p in parts if (place := self.release.find(p))}
            lent = self.fallback.weights if self.fallback else {}
            return {**{p: lent[p] for p in parts if p in lent}, **own}
        if not self.is_folder:
            return {"": [self.path]}
        if not (self.path / "model_index.json").is_file() and not self.component("unet"):
            return {"": weights_of(self.path, self.field)}
        parts = ((p, self.component(p)) for p in COMPONENTS)
        found = {p: weights_of(folder, self.field) for p, folder in parts if folder}
        return {**found, "unet": [*self.lent, *found["unet"]]} if self.lent else found

    @cached_property
    def lent(self) -> list[Path]:
        """The weights of the UNet that this folder's own UNet adds to: what is not in its file is in these.

        `"infuse_adds": ["unet"]` in model_index.json says so. Raises WeightsError if there is nobody to lend.
        """
        if "unet" not in read_json(self.path / "model_index.json", self.field).get("infuse_adds", ()):
            return []
        if self.fallback is None or "unet" not in self.fallback.weights:
            raise WeightsError(self.field, f"{self.path}/unet holds only what is added to another UNet, and its model_index.json does not "
                                           'name whose. Write it there: {"infuse_base": "name or path of that model"}.')  # fmt: skip
        return self.fallback.weights["unet"]

    @cached_property
    def header(self) -> Header:
        """The merged table of all files, keys of a pipeline folder as `unet/conv_in.weight`. Reads no tensor.

        What training wraps around names is taken off (`layouts.wrapped`).
        """
        tensors: dict[str, Entry] = {}
        metadata: dict[str, str] = {}
        size = 0
        for part, paths in self.weights.items():
            for path in paths:
                one = read_header(path, self.field)
                if self.release and (own := self.release.table(part)):
                    tensors |= {f"{part}/{k}": e for k, e in own.items()}
                    continue
                tensors |= {f"{part}/{k}" if part else k: e for k, e in one.items()}
                metadata |= one.metadata
                size += one.size
        scheduler = self.component("scheduler")
        if scheduler and not self.release:
            said = read_json(scheduler / "scheduler_config.json", self.field).get("prediction_type", "epsilon")
            metadata["prediction_type"] = said
        return plain(Header(self.path, tensors, metadata, size))

    @cached_property
    def identity(self) -> Identity:
        return identify(self.header)

    @cached_property
    def digest(self) -> str:
        """sha256 over the content of all weights and configs: the same model has the same digest on every machine."""
        if not self.is_folder and not self.release:
            return digest(self.path)
        state = sha256()
        for part, paths in sorted(self.weights.items()):
            configs = [p for folder in {p.parent: None for p in paths} for p in folder.glob("config.json")]
            for path in sorted([*paths, *configs], key=lambda p: p.name):
                state.update(f"{part}/{path.name}:{digest(path)}\n".encode())
        return state.hexdigest()


def weights_of(folder: Path, field: str = "model") -> list[Path]:
    """The weights files of one component folder: safetensors before pickles, full before half precision, shards in order.

    Raises WeightsError when there are none, or when a shard named by the index is missing.
    """
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    indices = sorted(folder.glob("*.index*.json"), key=lambda p: (".safetensors" not in p.name, len(p.name)))
    shards = [p for p in found if "-of-" in p.name]
    for stem in STEMS:
        for suffix in (".safetensors", *PICKLES):
            whole = [p for p in found if p.suffix == suffix and p.name.split(".")[0] == stem and p not in shards]
            if whole:
                return [min(whole, key=lambda p: (p.name != stem + suffix, len(p.name), p.name))]
        if indices and indices[0].name.startswith(stem):
            names = sorted(set(read_json(indices[0], field).get("weight_map", {}).values()))
            absent = [n for n in names if not (folder / n).is_file()]
            if absent:
                raise WeightsError(field, f"{folder} is incomplete: {absent[0]} is named by {indices[0].name} but not there "
                                          f"({len(absent)} of {len(names)} shards missing). Download the folder again.")  # fmt: skip
            return [folder / n for n in names]
    if len(found) == 1:
        return found
    what = f"{len(found)} weights files of unknown names" if found else "no weights"
    raise WeightsError(field, f"{folder} holds {what}. A component folder has config.json and diffusion_pytorch_model"
                              ".safetensors (or model.safetensors); download it again, or name the file itself.")  # fmt: skip


def variant_of(path: Path) -> str | None:
    """`fp16` of `model.fp16.safetensors` or `model.fp16-00001-of-00002.safetensors`; None for the plain file."""
    middle = path.stem.partition(".")[2].partition("-0")[0]
    return middle or None


def read_json(path: Path, field: str = "model") -> dict[str, Any]:
    """A JSON object from a file, {} when the file is not there. Raises WeightsError for broken JSON."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as e:
        raise WeightsError(field, f"{path} is not readable JSON ({e}). Download it again.") from e
    return found if isinstance(found, dict) else {}

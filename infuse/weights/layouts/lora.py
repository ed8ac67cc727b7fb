"""A LoRA from its file or folder, for one base: each module's parameters in the names of kohya and LyCORIS, with its own alpha.

What a file's metadata or a peft folder's adapter_config.json says of scales becomes an alpha of each module, so that what is
built asks one rule: alpha / rank. Per module, since files have several (diffusers gives all attentions the commonest one).

Source: huggingface/peft @ 5d602fd (tuners/lora/layer.py, utils/other.py), huggingface/diffusers @ 58eb52c (loaders/lora_base.py).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infuse.errors import WeightsError
from infuse.network.lora import Change, LoraNetwork, change
from infuse.network.spec import NetworkSpec
from infuse.notices import note
from infuse.weights.base_layers import layers_of
from infuse.weights.formats import read_keys, read_tensors
from infuse.weights.layouts.lora_names import Layers
from infuse.weights.lora_outline import LoraOutline, outline
from infuse.weights.source import Source, read_json

METADATA, CONFIG, PEFT_FILE = "lora_adapter_metadata", "adapter_config.json", "adapter_model"


def build(source: Source | str | Path, unet: Any, text_encoders: Sequence[Any], dtype: torch.dtype) -> LoraNetwork:
    """The changes of a LoRA, for the loaded networks of a base, on the UNet's device.

    Factors are kept in `dtype`. Raises what `lora_outline.outline` does, and WeightsError, with a module's name, for numbers
    that are none. Modules that the base has not are noted.
    """
    source = source if isinstance(source, Source) else Source(str(source), Path(source))
    net = NetworkSpec.from_unet_config("this base", dict(unet.config))
    return read(source, layers_of(unet, text_encoders), net, dtype).to(unet.device)


def read(source: Source, layers: Layers, net: NetworkSpec, dtype: torch.dtype) -> LoraNetwork:
    """The same for a base of which only the layers are known."""
    told = outline(source.header, layers, net, name=source.name, field=source.field)
    for text in told.warnings:
        note(text)
    wanted = [k for paths in told.keys.values() for keys in paths.values() for k in keys.values()]
    stored = _tensors(source, [*wanted, *(k for keys in told.words.values() for k in keys)])
    scales = Scales(source)
    changes: dict[str, dict[str, Change]] = {}
    silent: list[str] = []
    for part, paths in told.keys.items():
        for path, keys in paths.items():
            own = {leaf: stored[key] for leaf, key in keys.items()}
            name, shape = told.named[part][path], layers[part][path]
            if "alpha" not in own and (alpha := scales.alpha(part, path, own)) is not None:
                own["alpha"] = torch.tensor(alpha)
            if "alpha" in own and "oft_blocks" not in own and not own["alpha"].any():
                silent.append(name)
            try:
                changes.setdefault(part, {})[path] = change(name, own, shape, dtype)
            except WeightsError as e:
                raise WeightsError(source.field, f'"{source.name}" cannot be used: {e.message} Download it again, or choose another file.') from e  # fmt: skip
    if silent:
        note(f'"{source.name}": alpha is 0 in {len(silent)} of its modules, which change nothing (first: {silent[0]})')
    return LoraNetwork(changes, _words(told, stored, source), source.name)


class Scales:
    """What is said of alphas elsewhere than beside the tensors: in a file's metadata, or in a peft folder's config."""

    def __init__(self, source: Source) -> None:
        self.of: dict[str, Mapping[str, Any]] = {}
        for part in ("unet", "text_encoder", "text_encoder_2"):
            said = read_json(source.path / part / CONFIG, source.field) if source.is_folder else {}
            self.of[part] = said or _metadata(source, part) or _beside(source)
            _must_be_alphas(self.of[part], source)

    def alpha(self, part: str, path: str, own: Mapping[str, Tensor]) -> float | None:
        """The alpha whose alpha / rank is this module's scale; None if nothing is said. peft's rule, with its own patterns."""
        said, down = self.of.get(part, {}), own.get("lora_down.weight")
        if down is None or "lora_alpha" not in said:
            return None
        patterns = said.get("alpha_pattern") or {}
        alpha = next((a for pattern, a in patterns.items() if _is_at(pattern, path)), said["lora_alpha"])
        return float(alpha) * (len(down) ** 0.5 if said.get("use_rslora") else 1)


def _must_be_alphas(said: Mapping[str, Any], source: Source) -> None:
    patterns = said.get("alpha_pattern") or {}
    alphas = [said.get("lora_alpha", 1), *(patterns.values() if isinstance(patterns, dict) else (None,))]
    bad = next((a for a in alphas if not isinstance(a, int | float) or not isfinite(a)), 0)
    if bad != 0:
        raise WeightsError(source.field, f'what is said beside the tensors of "{source.name}" is broken: {bad!r} is no alpha. Download its '
                                         f"{CONFIG} again, or choose another file.")  # fmt: skip


def _is_at(pattern: str, path: str) -> bool:
    try:
        return any(re.match(rf"(.*\.)?({pattern})$", p) for p in (path, f"text_model.{path}"))
    except re.error:
        return False


def _metadata(source: Source, part: str) -> Mapping[str, Any]:
    """diffusers': one JSON object, in which each name has its part in front."""
    try:
        said = json.loads(source.header.metadata.get(METADATA, "{}"))
    except ValueError as e:
        raise WeightsError(source.field, f'the metadata "{METADATA}" of "{source.name}" is no JSON ({e}). Download it again.') from e  # fmt: skip
    found = said if isinstance(said, dict) else {}
    return {k.removeprefix(f"{part}."): v for k, v in found.items() if k.startswith(f"{part}.")}


def _beside(source: Source) -> Mapping[str, Any]:
    """peft's config: in the folder, or beside its file when that is named by itself."""
    if source.is_folder:
        return read_json(source.path / CONFIG, source.field)
    return read_json(source.path.with_name(CONFIG), source.field) if source.path.stem == PEFT_FILE else {}


def _tensors(source: Source, keys: Iterable[str]) -> dict[str, Tensor]:
    """By the keys of its header, as stored."""
    if not source.is_folder:
        return read_keys(source.header, keys)
    found: dict[str, Tensor] = {}
    for part, files in source.weights.items():
        for path in files:
            found |= {f"{part}/{k}" if part else k: t for k, t in read_tensors(path).items()}
    return {k: found[source.header.stored.get(k, k)] for k in keys}


def _words(told: LoraOutline, stored: Mapping[str, Tensor], source: Source) -> dict[str, tuple[Tensor, ...]]:
    """Vectors of bundled words, (n d) for each text encoder."""
    found: dict[str, tuple[Tensor, ...]] = {}
    for word, keys in told.words.items():
        vectors = tuple(stored[k].float().reshape(-1, stored[k].shape[-1]) for k in keys)
        if not all(v.isfinite().all() for v in vectors):
            raise WeightsError(source.field, f'"{source.name}" is broken: its word "{word}" holds NaN or infinite numbers. Download it again.')  # fmt: skip
        found[word] = vectors
    return found

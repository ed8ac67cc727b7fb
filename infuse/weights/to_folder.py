"""One original checkpoint becomes a folder that diffusers' `from_pretrained` reads: every part with its config, bit for bit.

Parts keep the dtype that they are stored in, unless another one is asked for.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from safetensors.torch import save_file
from torch import nn

from infuse.errors import WeightsError
from infuse.weights.formats import Header
from infuse.weights.layouts.ldm_checkpoint import from_checkpoint
from infuse.weights.looks.bases import PARTS
from infuse.weights.outline import must_be_base
from infuse.weights.parts import BaseParts, Loading
from infuse.weights.source import Source
from infuse.weights.tokenizer import vocabulary

Tell = Callable[[str], None]
PIPELINES: Mapping[tuple[str, bool], str] = {
    ("", False): "StableDiffusionPipeline", ("", True): "StableDiffusionXLPipeline",
    ("inpaint", False): "StableDiffusionInpaintPipeline", ("inpaint", True): "StableDiffusionXLInpaintPipeline",
    ("pix2pix", False): "StableDiffusionInstructPix2PixPipeline", ("pix2pix", True): "StableDiffusionXLInstructPix2PixPipeline",
    ("lcm", False): "LatentConsistencyModelPipeline", ("lcm", True): "StableDiffusionXLPipeline",
}  # fmt: skip
"""(variant, SDXL?) -> the pipeline that runs it."""
STORED: Mapping[str, torch.dtype] = {
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "F8_E4M3": torch.float16,
    "F8_E5M2": torch.float16,
}  # fmt: skip
"""A header's dtype -> that of the folder: 8 bits, which few read, become 16, which hold them exactly."""


def to_folder(source: Source, out: Path, dtype: torch.dtype | None = None, tell: Tell = lambda _: None) -> int:
    """Write a base's checkpoint into a new folder; returns the number of tensors.

    dtype: of all floats; None keeps each part's own. Raises WeightsError for what is no base of SD 1.x, 2.x or SDXL, and for
    variants that diffusers has in other shapes.
    """
    identity, header = source.identity, source.header
    must_be_base(source, identity)
    pipeline = PIPELINES.get((identity.variant, "text_encoder_2" in identity.parts))
    if pipeline is None or identity.prediction == "edm":
        what = "is trained with EDM preconditioning" if pipeline else f"is {identity.described}"
        raise WeightsError(source.field, f'"{source.name}" {what}, which is not converted: text-to-image, inpainting and InstructPix2Pix models '
                                         "are. It runs as it is.")  # fmt: skip
    own = {part: _stored(header, part) for part in identity.parts}
    kinds = set(own.values())
    wide = kinds.pop() if len(kinds) == 1 else torch.float64 if torch.float64 in own.values() else torch.float32
    tell(f"reading {source.path.name}")
    parts = from_checkpoint(Loading(source, wide, "cpu"), identity)
    return write(parts, out, {p: dtype or d for p, d in own.items()}, pipeline, tell)


def _stored(header: Header, part: str) -> torch.dtype:
    """The dtype of most of a part's numbers."""
    counted: Counter[str] = Counter()
    for key, entry in header.items():
        if key.startswith(PARTS[part]) and entry.dtype in STORED:
            counted[entry.dtype] += entry.numel
    return STORED[counted.most_common(1)[0][0]] if counted else torch.float32


def write(parts: BaseParts, out: Path, dtypes: Mapping[str, torch.dtype], pipeline: str, tell: Tell) -> int:
    """All components, their configs, tokenizers and schedule, and the index."""
    index: dict[str, Any] = {"_class_name": pipeline, "_diffusers_version": diffusers.__version__}
    count = 0
    modules = {"unet": parts.unet, "vae": parts.vae}
    for name, module in modules.items():
        count += _component(module, out / name, "diffusion_pytorch_model", dtypes[name])
        config: Any = module
        config.save_config(out / name)
        index[name] = ["diffusers", type(module).__name__]
        tell(f"{name}: {len(module.state_dict())} tensors, {_short(dtypes[name])}")
    for i, (model, tokenizer) in enumerate(zip(parts.text_encoders, parts.tokenizers, strict=True)):
        end = f"_{i + 1}" if i else ""
        dtype = dtypes.get(f"text_encoder{end}", dtypes["text_encoder"])
        count += _component(model, out / f"text_encoder{end}", "model", dtype)
        model.config.architectures, model.config.dtype = [type(model).__name__], dtype
        model.config.save_pretrained(out / f"text_encoder{end}")
        _tokenizer(tokenizer, out / f"tokenizer{end}")
        index[f"text_encoder{end}"] = ["transformers", type(model).__name__]
        index[f"tokenizer{end}"] = ["transformers", "CLIPTokenizer"]
        tell(f"text_encoder{end}: {len(model.state_dict())} tensors, {_short(dtype)}")
    schedule = {"_diffusers_version": diffusers.__version__, **parts.scheduler_config}
    _json(out / "scheduler" / "scheduler_config.json", schedule)
    index["scheduler"] = ["diffusers", schedule["_class_name"]]
    if "XL" in pipeline:
        index["force_zeros_for_empty_prompt"] = parts.force_zeros_for_empty_prompt
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    _json(out / "model_index.json", index)
    return count


def _component(module: nn.Module, folder: Path, stem: str, dtype: torch.dtype) -> int:
    """The tensors of one component; those of CLIP under the names that every version of transformers reads."""
    folder.mkdir(parents=True)
    state = module.state_dict()
    if stem == "model":
        state = {k if k.startswith(("text_model.", "text_projection.")) else f"text_model.{k}": t for k, t in state.items()}  # fmt: skip
    tensors = {k: t.to(dtype if t.is_floating_point() else t.dtype).contiguous() for k, t in state.items()}
    save_file(tensors, folder / f"{stem}.safetensors", metadata={"format": "pt"})
    return len(tensors)


def _tokenizer(tokenizer: Any, folder: Path) -> None:
    """As it saves itself, and as the two files of words that older versions read."""
    tokenizer.save_pretrained(folder)
    words, merges = vocabulary()
    _json(folder / "vocab.json", words)
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")


def _json(path: Path, data: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False), encoding="utf-8")


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

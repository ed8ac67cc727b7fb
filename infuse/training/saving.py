"""What training leaves behind, in half precision and in the layouts of releases: any tool that reads theirs reads ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.encoders.tasks import ROWS, RUN, TaskTexts
from infuse.network.brushnet import CONDITIONING, BrushNet, config_beside, stored
from infuse.network.spec import family_of
from infuse.network.stc import Composer
from infuse.training.video_models import joined
from infuse.weights.layouts.composer_folder import FOLDER, save_composer
from infuse.weights.layouts.powerpaint import FOLDERS, LEARNED, TABLE

PARTS = {
    "vae": ["diffusers", "AutoencoderKL"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
}


def save_video(
    base: Base, folder: Path, under: str | None = None, *, own_text: bool = False, lender: Any = None
) -> None:
    """A video model in diffusers' layout, with `composer/` if it has conditions.

    `under` names the model that lends everything but UNet and composer; and but the text encoder, if that is its own.
    `lender`: its UNet, if that lends what the network of clips has in common with it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    unet: Any = deepcopy(base.network.unet)
    joined(unet)
    halved(unet, folder / "unet")
    index: dict[str, Any] = {
        "_class_name": "TextToVideoSDPipeline",
        "infuse_family": base.spec.family,
        "infuse_guidance": base.spec.guidance,
        "infuse_frames": base.spec.frames,
        "unet": ["diffusers", "UNet3DConditionModel"],
    }
    shutil.rmtree(folder / FOLDER, ignore_errors=True)  # of an earlier life
    if base.composer is not None:
        halves: Any = (None if m is None else deepcopy(m).half() for m in (base.composer.stc, base.composer.style))
        save_composer(folder, Composer(*halves))
    if own_text or under is None:
        halved(base.texts.models[0], folder / "text_encoder")
    if under is not None:
        index["infuse_base"] = under
        if lender is not None:
            keep_added(folder / "unet", lender)
            index["infuse_adds"] = ["unet"]
    else:
        halved(base.vae, folder / "vae")
        base.texts.tokenizers[0].save_pretrained(folder / "tokenizer")
        save_schedule(base.scheduler, folder)
        index |= PARTS | {"scheduler": ["diffusers", base.scheduler["_class_name"]]}
        if base.image_encoder is not None and base.spec.style:
            halved(base.image_encoder, folder / "image_encoder")
            base.feature_extractor.save_pretrained(folder / "feature_extractor")
            index["image_encoder"] = ["transformers", "CLIPVisionModelWithProjection"]
            index["feature_extractor"] = ["transformers", "CLIPImageProcessor"]
    write(index, folder / "model_index.json")
    heard = ", ".join((*base.spec.compositions, *(["style"] if base.spec.style else []))) or "text alone"
    write({"description": f"clips of {base.spec.frames} frames; hears {heard}"}, folder / "card.json")


def keep_added(folder: Path, lender: Any) -> None:
    """Leave in a UNet's folder only the tensors that the lender's UNet does not have just so."""
    path = folder / "diffusion_pytorch_model.safetensors"
    known = {k: t.half().cpu() for k, t in lender.state_dict().items()}
    added = {k: t for k, t in load_file(path).items() if k not in known or not same(t, known[k])}
    save_file(added, path)


def same(a: Tensor, b: Tensor) -> bool:
    """Of equal values; 1 x 1 convolutions and linear layers may be written as each other."""
    return a.numel() == b.numel() and torch.equal(a.flatten(), b.flatten())


def save_powerpaint(base: Base, texts: TaskTexts, folder: Path) -> None:
    """A PowerPaint 1 that needs no other folder: the release's text encoder in an inpainting model of diffusers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    halved(base.network.unet, folder / "unet")
    halved(base.vae, folder / "vae")
    save_texts(texts, folder / "text_encoder")
    texts.tokenizer.save_pretrained(folder / "tokenizer")
    save_schedule(base.scheduler, folder)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionInpaintPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        **PARTS,
        "scheduler": ["diffusers", base.scheduler["_class_name"]],
        "safety_checker": [None, None],
    }
    if base.spec.family != family_of(base.spec.context_width):
        index |= {"infuse_family": base.spec.family, "infuse_guidance": base.spec.guidance}
    write(index, folder / "model_index.json")


def save_texts(texts: TaskTexts, folder: Path) -> None:
    """`text_encoder/` of a PowerPaint 1."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(wrapped(texts), folder / "text_encoder.safetensors")
    own = {"vocab_size": len(texts.table) - ROWS, "architectures": ["CLIPTextModel"]}
    write(texts.model.config.to_diff_dict() | own, folder / "config.json")


def save_branch(branch: BrushNet, texts: TaskTexts, folder: Path) -> None:
    """`PowerPaint_Brushnet/` of a PowerPaint 2: the BrushNet, and its task encoder beside it."""
    folder = folder / FOLDERS[0]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {stored(k): t.detach().half().cpu().contiguous() for k, t in branch.state_dict().items()}
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    torch.save(wrapped(texts), folder / "pytorch_model.bin")
    config = config_beside(branch.network.config, branch.attends)
    config |= {"_class_name": "BrushNetModel", "in_channels": 4, "conditioning_channels": CONDITIONING}
    config["brushnet_conditioning_channel_order"] = "bgr" if branch.bgr else "rgb"
    write(config, folder / "config.json")


def wrapped(texts: TaskTexts) -> dict[str, Tensor]:
    """A task encoder's tensors under the released names: the reverse of `weights.powerpaint.stock`."""
    table = texts.table.detach()
    plain = {k.removeprefix("text_model."): t for k, t in texts.model.state_dict().items()}
    tensors = {f"text_model.{k}": t for k, t in plain.items() if "token_embedding" not in k and "position_ids" not in k}
    tensors[f"{TABLE}wrapped.weight"] = table[:-ROWS]
    for i, token in enumerate(texts.generation.order):
        start = len(table) - ROWS + i * RUN
        tensors[f"{TABLE}{LEARNED}{token}"] = table[start : start + RUN]
    halves = {k: t.detach().half().cpu().contiguous() for k, t in tensors.items()}
    length = texts.model.config.max_position_embeddings  # the original loads strictly, and its CLIP kept the positions
    return halves | {"text_model.embeddings.position_ids": torch.arange(length)[None]}


def save_schedule(config: Mapping[str, Any], folder: Path) -> None:
    (folder / "scheduler").mkdir(exist_ok=True)
    write(config, folder / "scheduler" / "scheduler_config.json")


def halved(module: Any, folder: Path) -> None:
    """Save a copy in half precision; the module itself stays as it is."""
    copy = deepcopy(module)
    nn.Module.half(copy)
    copy.save_pretrained(folder)
    write(json.loads((folder / "config.json").read_text("utf-8")), folder / "config.json")


def write(values: Mapping[str, Any], path: Path) -> None:
    """As JSON. Where something was loaded from is nobody's business."""
    said = {k: v for k, v in values.items() if k != "_name_or_path"}
    path.write_text(json.dumps(said, indent=1, default=str), "utf-8")

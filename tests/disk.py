"""A tiny model as files: a diffusers folder that the library finds by its path, as it would a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import save_file

import tiny


def base(folder: Path, family: str = "sd1", in_channels: int = 4, image_encoder: bool = True) -> Path:
    """A whole pipeline folder."""
    parts = tiny.base(family, in_channels).parts
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
             "text_encoder": ["transformers", "CLIPTextModel"]}  # fmt: skip
    names = ["unet", "vae", "text_encoder"] + (["text_encoder_2"] if family == "sdxl" else [])
    for name in [*names, *(["image_encoder"] if image_encoder else [])]:
        parts[name].save_pretrained(folder / name)
    if image_encoder:
        parts["feature_extractor"].save_pretrained(folder / "feature_extractor")
    (folder / "scheduler").mkdir()
    schedule = tiny.SCHEDULE | ({"prediction_type": "v_prediction"} if family == "sd2" else {})
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def powerpaint1(folder: Path) -> Path:
    """A PowerPaint 1 over the model called `tabletop`, as the embedded one lies there."""
    from infuse.tabletop.making.saving import save_base
    from infuse.training.saving import save_texts

    base = tiny.powerpaint1().base
    save_base(base, folder, under="tabletop")
    save_texts(base.tasks, folder / "text_encoder")
    return folder


def video(folder: Path) -> Path:
    """A whole VideoComposer of clips of four frames, in infuse's own layout."""
    from infuse.training.saving import save_video

    save_video(tiny.videocomposer().base, folder)
    return folder


def film(path: Path, frames: int = 8, size: tuple[int, int] = (32, 32)) -> Path:
    """A square that moves over noise."""
    width, height = size
    clip = np.random.default_rng(0).integers(0, 100, (frames, height, width, 3), dtype=np.uint8)
    for k, frame in enumerate(clip):
        frame[height // 3 : 2 * height // 3, (at := k * width // (2 * frames)) : at + width // 3] = 255
    first, *rest = (Image.fromarray(f) for f in clip)
    first.save(path, save_all=True, append_images=rest, duration=125, loop=0)
    return path


def controlnet(folder: Path, family: str = "sd1") -> Path:
    tiny.controlnet(family, 7).save_pretrained(folder)
    return folder


def adapter(path: Path, family: str = "sd1", kind: str = "plain") -> Path:
    save_file({k: t.detach().contiguous() for k, t in tiny.adapter(family, kind, 9).save().items()}, path)
    return path


def picture(path: Path, size: tuple[int, int] = (32, 32), seed: int = 0) -> Path:
    """Noise."""
    width, height = size
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)
    return path


def mask(path: Path, size: tuple[int, int] = (32, 32)) -> Path:
    """The right half is white."""
    width, height = size
    array = np.zeros((height, width), np.uint8)
    array[:, width // 2 :] = 255
    Image.fromarray(array).save(path)
    return path

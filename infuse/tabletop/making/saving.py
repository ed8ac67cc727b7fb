"""How the tabletop's models of pictures lie on disk: diffusers' layout, and a card that says whose they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from infuse.encoders.kit import Base
from infuse.training.saving import PARTS, halved, save_schedule, write


def save_base(base: Base, folder: Path, under: str | None = None) -> None:
    """A tabletop model in Hub layout; `under` names the model that lends everything but the UNet."""
    folder.mkdir(parents=True, exist_ok=True)
    halved(base.network.unet, folder / "unet")
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionPipeline",
        "infuse_family": "tabletop",
        "infuse_guidance": base.spec.guidance,
        "unet": ["diffusers", "UNet2DConditionModel"],
    }
    if under is not None:
        index |= {"_class_name": "StableDiffusionInpaintPipeline", "infuse_base": under}
    else:
        halved(base.texts.models[0], folder / "text_encoder")
        save_schedule(base.scheduler, folder)
        index |= PARTS | {
            "scheduler": ["diffusers", base.scheduler["_class_name"]],
            "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
            "feature_extractor": ["transformers", "CLIPImageProcessor"],
            "safety_checker": [None, None],
        }
    write(index, folder / "model_index.json")
    said = "text to image" if under is None else "inpainting with nine channels, and PowerPaint 1"
    write({"description": f"the tabletop's own model: {said}"}, folder / "card.json")

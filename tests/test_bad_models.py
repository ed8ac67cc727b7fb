"""Whatever is wrong with a weights file, or with its place in a recipe, is said before any network is loaded."""

from __future__ import annotations

from pathlib import Path

import bent
import pytest
from bent import Case, base, both, one

from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.errors import RecipeError, WeightsError

pytestmark = pytest.mark.usefixtures("nothing_is_loaded")

MODELS: list[Case] = [
    ("not found", base(model="./nowhere"), WeightsError, "model", ("./nowhere", "Looked at", "Hub id")),
    ("a near name", base(model="sd51.safetensors"), WeightsError, "model", ("not found", "INFUSE_MODELS")),
    ("a Hub id, offline", base(model="someone/something"), WeightsError, "model", ("offline", "hf download someone/something")),
    ("a folder of nothing", base(model="./folder"), WeightsError, "model", ("neither model_index.json nor config.json",)),
    ("empty file", base(model="empty.safetensors"), WeightsError, "model", ("empty (0 bytes)", "Download it again")),
    ("web page", base(model="html.safetensors"), WeightsError, "model", ("a web page", "Download it again")),
    ("LFS pointer", base(model="lfs.safetensors"), WeightsError, "model", ("Git LFS pointer", "git lfs pull")),
    ("cut short", base(model="cut.safetensors"), WeightsError, "model", ("cut short", "Download it again")),
    ("a renamed pickle", base(model="renamed.safetensors"), WeightsError, "model", ("pickle", "suffix .pt")),
    ("GGUF", base(model="gguf.safetensors"), WeightsError, "model", ("GGUF", "fp16")),
    ("a picture", base(model="a.png"), WeightsError, "model", ("a picture", "weights beside it")),
    ("a pickle with code", base(model="burglar.ckpt"), WeightsError, "model", ("would run code", ".safetensors")),
    ("a ControlNet as base", base(model="canny15.safetensors"), WeightsError, "model", ("a ControlNet", "condition of kind controlnet")),
    ("an IP-Adapter as base", base(model="ip15.safetensors"), WeightsError, "model", ("an IP-Adapter", "condition of kind ip_adapter")),
    ("a LoRA as base", base(model="lora.safetensors"), WeightsError, "model", ("a LoRA", "a base model", "merge it")),
    ("a VAE as base", base(model="vae.safetensors"), WeightsError, "model", ("a VAE", "a base model")),
    ("the refiner as base", base(model="refiner.safetensors"), WeightsError, "model", ("refiner",)),
    ("another family", base(model="flux.safetensors"), WeightsError, "model", ("another family", "SD 1.x, SD 2.x and SDXL")),
    ("nothing known", base(model="odd.safetensors"), WeightsError, "model", ("no kind that infuse knows", "Choose another file")),
    ("SD 1.5 ControlNet on SDXL", {**one("controlnet"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "Choose a ControlNet")),
    ("SDXL ControlNet on SD 1.5", one("controlnet", model="canny-xl.safetensors"), RecipeError, "conditions.0.model", ("SDXL", "768")),
    ("SDXL IP-Adapter on SD 1.5", one("ip_adapter", model="ip-xl.safetensors"), RecipeError, "conditions.0.model",
     ("SDXL (context width 2048)", "768", "Choose an IP-Adapter")),
    ("wrong image encoder", one("ip_adapter", image_encoder="./bigg"), WeightsError, "conditions.0.image_encoder",
     ("1024 (ViT-H)", "1280 (bigG)", "Name the right")),
    ("no image encoder", one("ip_adapter", image_encoder=None), WeightsError, "conditions.0.image_encoder", ("brings no image encoder", "1024")),
    ("an image encoder that is none", one("ip_adapter", image_encoder="./no-eye"), WeightsError, "conditions.0.image_encoder", ("no CLIP vision",)),
    ("an image encoder that is not there", one("ip_adapter", image_encoder="./eye"), WeightsError, "conditions.0.image_encoder", ("not found",)),
    ("a LoRA as ControlNet", one("controlnet", model="lora.safetensors"), WeightsError, "conditions.0.model", ("a LoRA", "needs a ControlNet")),
    ("a base as ControlNet", one("controlnet", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "needs a ControlNet")),
    ("an IP-Adapter as ControlNet", one("controlnet", model="ip15.safetensors"), WeightsError, "conditions.0.model",
     ("an IP-Adapter", "needs a ControlNet")),
    ("a ControlNet as IP-Adapter", one("ip_adapter", model="canny15.safetensors"), WeightsError, "conditions.0.model",
     ("a ControlNet", "needs an IP-Adapter")),
    ("an IP-Adapter of too few layers", one("ip_adapter", model="ip-short.safetensors"), WeightsError, "conditions.0.model",
     ("4 pairs", "16 cross-attentions")),
    ("a photo for a FaceID", one("ip_adapter", model="faceid.safetensors"), RecipeError, "conditions.0.face.0", ("face's numbers", "pip install insightface")),
    ("a face of 500 numbers", one("ip_adapter", model="faceid.safetensors", image=None, face=[0.1] * 500), RecipeError, "conditions.0.face.0",
     ("500 numbers", "faces of 512")),
    ("a missing ControlNet", one("controlnet", model="./gone"), WeightsError, "conditions.0.model", ("not found",)),
    ("a broken ControlNet", one("controlnet", model="html.safetensors"), WeightsError, "conditions.0.model", ("a web page",)),
    ("a BrushNet as base", base(model="brush15.safetensors"), WeightsError, "model", ("a BrushNet (plain)", "condition of kind brushnet")),
    ("a PowerPaint 2 as base", base(model="./powerpaint2"), WeightsError, "model", ("a BrushNet (powerpaint)", "kind powerpaint")),
    ("a base as BrushNet", one("brushnet", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "needs a BrushNet")),
    ("a base as PowerPaint", one("powerpaint", model="sd15.safetensors"), WeightsError, "conditions.0.model", ("a base model", "recipe's `model`")),
    ("an IP-Adapter as BrushNet", one("brushnet", model="ip15.safetensors"), WeightsError, "conditions.0.model",
     ("an IP-Adapter", "needs a BrushNet", "kind ip_adapter")),
    ("a broken BrushNet", one("brushnet", model="cut.safetensors"), WeightsError, "conditions.0.model", ("cut short",)),
    ("a BrushNet without task tokens", one("powerpaint", model="brush15.safetensors"), RecipeError, "conditions.0.model",
     ("without task tokens", "kind brushnet")),
    ("task tokens of nine vectors", one("powerpaint", model="./powerpaint-nine"), WeightsError, "conditions.0.model",
     ("P_ctxt, P_shape, P_obj", "not ten", "Download it again")),
    ("PowerPaint 1 where there is none", one("powerpaint", model=None), RecipeError, "conditions.0.model", ("no task tokens", "`inpaint`")),
    ("SD 1.5 BrushNet on SDXL", {**one("brushnet"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "Choose a BrushNet")),
    ("SD 1.5 PowerPaint on SDXL", {**one("powerpaint"), "model": "sdxl.safetensors"}, RecipeError, "conditions.0.model",
     ("SD 1.x (context width 768)", "SDXL (context width 2048)", "another base")),
    ("a ControlNet with code", one("controlnet", model="burglar.ckpt"), WeightsError, "conditions.0.model", ("would run code",)),
]  # fmt: skip

CASES = {name: rest for name, *rest in MODELS}


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_letter(case: str) -> None:
    bent.complains(*CASES[case])


def test_the_readme_quotes_a_real_letter() -> None:
    recipe = both("text", "controlnet")
    recipe["conditions"][1]["model"] = "canny-xl.safetensors"
    with pytest.raises(RecipeError) as caught:
        Engine(device="cpu").check(Recipe.load(recipe))
    readme = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    assert str(caught.value) in " ".join(readme.split())

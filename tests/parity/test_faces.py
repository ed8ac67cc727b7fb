"""FaceID in infuse equals diffusers' way with face embeddings, on both sides of guidance; it knows no low-rank part without PEFT,
so that part is merged into its network here.
"""

from __future__ import annotations

import copy
from typing import Any

import diffusers
import numpy as np
import pytest
import tiny_faces
import torch
from some import some
from torch import Tensor

import tiny
from infuse import IPAdapter, Recipe
from infuse.encoders.ip_adapter import Adapter, LowRank

from . import stock
from .cases import THREE, photo
from .test_parity import TOLERANCE

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers


def merged(unet: Any, adapter: Adapter) -> Any:
    """A copy of a network with an adapter's changes in its weights."""
    unet = copy.deepcopy(unet)
    if isinstance(adapter, LowRank):
        for path, number in adapter.numbers.items():
            attention = unet.get_submodule(path)
            for name in ("to_q", "to_k", "to_v", "to_out"):
                down, up = adapter.changes[f"{number} {name}"]  # type: ignore[misc]
                linear = attention.to_out[0] if name == "to_out" else getattr(attention, name)
                linear.weight.data += up.weight @ down.weight
    return unet


def stocked(base: tiny.Tiny, adapter: Adapter, recipe: Recipe) -> Tensor:
    """What the stock pipeline makes of a recipe with one face."""
    condition: Any = recipe.conditions[0]
    sdxl = base.family == "sdxl"
    parts = {**base.parts, "scheduler": stock.scheduler(base, recipe), "unet": merged(base.parts["unet"], adapter)}
    parts |= {"add_watermarker": False} if sdxl else {"safety_checker": None, "requires_safety_checker": False}
    pipe = getattr(diffusers, stock.PIPELINES[sdxl, False, "text"])(**parts)
    pipe.set_progress_bar_config(disable=True)
    file = stock.file(adapter)
    file["ip_adapter"] = {k: t for k, t in file["ip_adapter"].items() if "_lora" not in k}
    pipe.load_ip_adapter([file], subfolder=[""], weight_name=["x.bin"], image_encoder_folder=None)
    pipe.set_ip_adapter_scale(condition.weight)
    face = torch.tensor(condition.face[0])[None, None]
    if adapter.kind == "faceid_plus":
        states = _states(pipe, condition)
        projection = pipe.unet.encoder_hid_proj.image_projection_layers[0]
        projection.clip_embeds, projection.shortcut, projection.shortcut_scale = (
            states,
            condition.shortcut,
            condition.shortcut_scale,
        )
    return pipe(
        prompt=recipe.prompt, guidance_scale=recipe.guidance, num_inference_steps=recipe.steps, output_type="latent", width=32, height=32,
        generator=torch.Generator("cpu").manual_seed(int(recipe.seed)), ip_adapter_image_embeds=[torch.cat([torch.zeros_like(face), face])],
    ).images  # fmt: skip


def _states(pipe: Any, condition: Any) -> Tensor:
    """(sides, pictures, n, e): the image encoder's states of a zero picture, and of the face's."""
    pixels = pipe.feature_extractor(condition.image[0].image, return_tensors="pt").pixel_values
    both = torch.cat([torch.zeros_like(pixels), pixels])
    return pipe.image_encoder(both, output_hidden_states=True).hidden_states[-2][:, None]


CASES: list[tuple[str, dict[str, Any]]] = [
    ("faceid", {}), ("portrait", {}), ("faceid_plus", {"shortcut": False}), ("faceid_plus", {"shortcut": True}),
    ("faceid_plus", {"shortcut": True, "shortcut_scale": 0.6}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "family", "scheduler"),
    some(
        [(i, family, s) for i in range(len(CASES)) for family in ("sd1", "sdxl") for s in THREE],
        quick=[(3, "sd1", "DDIM")],
    ),
)
def test_faces_as_embeds(case: int, family: str, scheduler: str) -> None:
    kind, fields = CASES[case]
    base, adapter = tiny.base(family), tiny_faces.adapter(family, kind)
    if isinstance(adapter, LowRank):
        adapter.placed([path for path, _ in base.base.spec.cross_layers])
    seen = {"image": photo(20)} if kind == "faceid_plus" else {}
    said = IPAdapter(model="face", face=[tiny_faces.face()], weight=0.7, **seen, **fields)
    recipe = Recipe(
        model="tiny",
        prompt="a red cube",
        width=32,
        height=32,
        steps=5,
        guidance=6.0,
        seed=11,
        scheduler=scheduler,
        conditions=(said,),
    )
    with torch.no_grad():
        want = stocked(base, adapter, recipe)
    found = tiny.engine(base, {"face": adapter}).run(recipe).latents
    assert float((found - want).abs().max() / np.abs(want.numpy()).max()) < TOLERANCE

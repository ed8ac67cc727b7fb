"""ControlNet-Union and ControlNet-XS equal diffusers' pipelines for them: same seed, same latents, in float32."""

from __future__ import annotations

import copy
import inspect
from functools import cache
from typing import Any

import beside_nets
import diffusers
import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse.conditions import ControlNet, Img2Img, Inpaint
from infuse.recipe import Recipe

from .cases import mask, photo
from .stock import scheduler
from .test_parity import difference

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # diffusers' schedulers

TOLERANCE = 1e-4
PLAIN = {"prompt": "a red cube on a table", "width": 32, "height": 32, "steps": 4, "guidance": 6.0, "seed": 11}


@cache
def union_base() -> tiny.Tiny:
    return tiny.base("sdxl")


@cache
def union() -> Any:
    return beside_nets.union()


def ours(base: tiny.Tiny, branch: Any, name: str, *conditions: Any) -> tuple[Recipe, Tensor]:
    asked = Recipe(model="tiny", scheduler=name, conditions=conditions, **PLAIN)
    return asked, tiny.engine(base, {"branch": branch}).run(asked).latents


def theirs(pipe: Any, asked: Recipe, **more: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=asked.prompt, guidance_scale=asked.guidance, num_inference_steps=asked.steps, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(asked.seed), **more,
    ).images  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("types", "start", "name"),
    some(
        [
            (t, *s)
            for t in ((1, 3), (1,))
            for s in (("text", "DDIM"), ("img2img", "Euler a"), ("inpaint", "DPM++ 2M Karras"))
        ],
        quick=[((1, 3), "img2img", "Euler a")],
    ),
)
def test_union(start: str, name: str, types: tuple[int, ...]) -> None:
    weights = (0.7, 1.1)[: len(types)]
    hints = [ControlNet(model="branch", image=photo(10 + i), type=k, weight=w) for i, (k, w) in enumerate(zip(types, weights, strict=True))]  # fmt: skip
    begin = {"img2img": Img2Img(image=photo(1), strength=0.6), "text": None,
             "inpaint": Inpaint(image=photo(2), mask=mask(7, 5, 25, 20), strength=0.9, paste=False, cells="nearest")}[start]  # fmt: skip
    asked, found = ours(union_base(), union(), name, *([begin] if begin else []), *hints)
    words = {"text": "", "img2img": "Img2Img", "inpaint": "Inpaint"}[start]
    cls = getattr(diffusers, f"StableDiffusionXLControlNetUnion{words}Pipeline")
    plain = diffusers.ControlNetUnionModel.from_config(union().config)
    plain.load_state_dict(union().state_dict())
    pipe = cls(**union_base().parts, scheduler=scheduler(union_base(), asked), controlnet=plain.eval(), add_watermarker=False)  # fmt: skip
    more: dict[str, Any] = {"control_image": [c.image.image for c in hints], "control_mode": list(types),
                            "controlnet_conditioning_scale": list(weights) if len(types) > 1 else weights[0]}  # fmt: skip
    if begin is not None:
        more |= {"image": begin.image.image, "strength": begin.strength}
    if isinstance(begin, Inpaint):
        more |= {"mask_image": begin.mask.image}
    if start != "img2img":
        more |= {"width": 32, "height": 32}
    assert difference(found, theirs(pipe, asked, **more)) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(("family", "name"), [("sd1", "DDIM"), ("sd2", "Euler a"), ("sdxl", "DPM++ 2M Karras")])
def test_lockstep(family: str, name: str) -> None:
    """diffusers' fused network has epsilon 1e-6 in the base's residual blocks, where the base has 1e-5: put right, all is equal."""
    base, branch = beside_nets.base(family), beside_nets.xs(family)
    hint = ControlNet(model="branch", image=photo(10), weight=0.8)
    asked, found = ours(base, branch, name, hint)
    more: dict[str, Any] = {"add_watermarker": False} if family == "sdxl" else {"safety_checker": None, "requires_safety_checker": False}  # fmt: skip
    cls = getattr(diffusers, f"StableDiffusion{'XL' * (family == 'sdxl')}ControlNetXSPipeline")
    heard = inspect.signature(cls.__init__).parameters
    parts = {k: copy.deepcopy(v) for k, v in base.parts.items() if k in heard}
    pipe = cls(**parts, **more, controlnet=copy.deepcopy(branch), scheduler=scheduler(base, asked))
    for block in pipe.unet.down_blocks:
        for resnet in block.base_resnets:
            resnet.norm1.eps = resnet.norm2.eps = 1e-5
    for block in pipe.unet.up_blocks:
        for resnet in block.resnets:
            resnet.norm1.eps = resnet.norm2.eps = 1e-5
    for resnet in pipe.unet.mid_block.base_midblock.resnets:
        resnet.norm1.eps = resnet.norm2.eps = 1e-5
    said = theirs(pipe, asked, image=hint.image.image, width=32, height=32, controlnet_conditioning_scale=0.8)  # type: ignore[union-attr]
    assert difference(found, said) < TOLERANCE

"""Boxes equal diffusers' two GLIGEN pipelines: same seed, same latents. Theirs is a UNet with gated layers inside, ours a plain
one that is told of them."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from gligens import KINDS, adapter, eye, gated, projected
from some import some
from torch import Tensor

import tiny
from infuse.conditions import Box, Gligen
from infuse.engine.engine import Engine
from infuse.recipe import Recipe

from .cases import THREE, photo
from .stock import scheduler

TOLERANCE = 1e-4
BOXES = ((0.1, 0.2, 0.5, 0.9), (0.55, 0.1, 0.95, 0.6))


@cache
def base() -> tiny.Tiny:
    made = tiny.base("sd1")
    encoder, prepare = eye()
    return replace(made, base=replace(made.base, image_encoder=encoder, feature_extractor=prepare))


@cache
def engine() -> Engine:
    return tiny.engine(base(), {kind: adapter(kind) for kind in KINDS})


def recipe(condition: Gligen, sampler: str, **fields: Any) -> Recipe:
    asked = {"prompt": "a red cube on a table", "width": 32, "height": 32, "steps": 10, "guidance": 6.0, "seed": 11}
    return Recipe(model="tiny", scheduler=sampler, conditions=(condition,), **{**asked, **fields})


def stock(kind: str, asked: Recipe, **more: Any) -> Tensor:
    own = base()
    parts = {**{k: own.parts[k] for k in ("vae", "text_encoder", "tokenizer")}, "unet": copy.deepcopy(gated(kind))}
    parts |= {"safety_checker": None, "feature_extractor": None, "scheduler": scheduler(own, asked)}
    if kind == "text":
        cls = diffusers.StableDiffusionGLIGENPipeline
        parts |= {"requires_safety_checker": False}
    else:
        cls = diffusers.StableDiffusionGLIGENTextImagePipeline
        parts |= {
            "requires_safety_checker": False,
            "image_encoder": eye()[0],
            "processor": Seen(),
            "image_project": projected(),
        }
    pipe: Any = cls(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        prompt=asked.prompt, negative_prompt=asked.negative_prompt or None, guidance_scale=asked.guidance, width=32, height=32,
        num_inference_steps=asked.steps, num_images_per_prompt=asked.count, output_type="latent",
        generator=torch.Generator("cpu").manual_seed(asked.seed), gligen_boxes=[list(b) for b in BOXES], **more,
    ).images  # fmt: skip


class Seen:
    """What diffusers calls a processor of words and pictures, for pictures alone."""

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:
        if images is None:
            return tiny.tokenizer()(text, padding=True, return_tensors="pt")
        return eye()[1](images, return_tensors="pt")


def difference(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape and torch.isfinite(theirs).all()
    return float((ours - theirs).abs().max() / theirs.abs().max())


WORDS = tuple(Box(box=b, phrase=p) for b, p in zip(BOXES, ("a green ball", "a tall blue bottle"), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("sampler", some(THREE, quick=["DDIM"]))
@pytest.mark.parametrize("fields", some([{}, {"guidance": 1.0}, {"negative_prompt": "grey"}], quick=[{}]), ids=str)
def test_phrases_in_boxes(sampler: str, fields: dict[str, Any]) -> None:
    asked = recipe(Gligen(model="text", boxes=WORDS), sampler, **fields)
    theirs = stock("text", asked, gligen_phrases=[b.phrase for b in WORDS])  # heard in the first 3 of 10 steps
    found = difference(engine().run(asked).latents, theirs)
    print(f"{found:.1e}")
    assert found < TOLERANCE


@pytest.mark.slow
def test_scheduled_sampling_is_a_window() -> None:
    asked = recipe(Gligen(model="text", boxes=WORDS, end=0.7), "DDIM")
    late, early = (
        stock("text", asked, gligen_phrases=[b.phrase for b in WORDS], gligen_scheduled_sampling_beta=b)
        for b in (0.7, 0.3)
    )
    ours = engine().run(asked).latents
    assert difference(ours, late) < TOLERANCE < 1e-3 < difference(ours, early)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", THREE)
def test_phrases_and_pictures_in_boxes(sampler: str) -> None:
    boxes = (Box(box=BOXES[0], phrase="a green ball", image=photo(30)), Box(box=BOXES[1], image=photo(31)))
    asked = recipe(Gligen(model="text_image", boxes=boxes), sampler)
    assert asked.conditions[0].end == 1
    theirs = stock(
        "text_image", asked, gligen_phrases=["a green ball", "nothing that is heard"], gligen_images=[photo(30).image, photo(31).image],
        input_phrases_mask=[1, 0], input_images_mask=[1, 1],
    )  # fmt: skip
    found = difference(engine().run(asked).latents, theirs)
    print(f"{found:.1e}")
    assert found < TOLERANCE


@pytest.mark.slow
def test_a_gate_off_by_one_percent_is_noticed() -> None:
    asked = recipe(Gligen(model="text", boxes=WORDS, end=1.0), "DDIM")
    one = copy.deepcopy(adapter("text"))
    one.get_parameter("mid_block.attentions.0.transformer_blocks.0.fuser.attn.to_v.weight").mul_(1.01)
    wrong = tiny.engine(base(), {"text": one}).run(asked).latents
    assert difference(wrong, engine().run(asked).latents) > TOLERANCE

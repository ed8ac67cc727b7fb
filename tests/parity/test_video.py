"""infuse equals diffusers' text-to-video pipelines on tiny random weights: same seed, same latents."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import pytest
import torch

import tiny
from infuse import Recipe
from infuse.engine.engine import Engine

from .test_parity import TOLERANCE, difference

pytestmark = pytest.mark.slow


@cache
def own() -> tiny.Tiny:
    return tiny.video()


@cache
def engine() -> Engine:
    return tiny.engine(own())


@pytest.mark.parametrize(("name", "cls", "arguments"), [
    ("DDIM", "DDIMScheduler", {}),
    ("DPM++ 2M Karras", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    ("Euler", "EulerDiscreteScheduler", {}),
])  # fmt: skip
@pytest.mark.parametrize("fields", [{}, {"negative_prompt": "grey"}, {"guidance": 1.0}, {"width": 40, "height": 24}])
def test_text_to_video(name: str, cls: str, arguments: dict[str, Any], fields: dict[str, Any]) -> None:
    asked = Recipe(**{
        "model": "tiny", "prompt": "a red cube moves", "steps": 4, "guidance": 5.0, "seed": 3, "scheduler": name, "width": 32,
        "height": 32, "frames": 4, **fields,
    })  # fmt: skip
    scheduler = getattr(diffusers, cls).from_config(tiny.SCHEDULE, **arguments)
    parts = {k: own().parts[k] for k in ("vae", "text_encoder", "tokenizer", "unet")}
    pipe = diffusers.TextToVideoSDPipeline(**parts, scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        prompt=asked.prompt, negative_prompt=asked.negative_prompt or None, width=asked.width, height=asked.height,
        num_frames=asked.frames, num_inference_steps=asked.steps, guidance_scale=asked.guidance,
        generator=torch.Generator().manual_seed(asked.seed), output_type="latent",
    ).frames  # fmt: skip
    result = engine().run(asked)
    assert difference(result.latents, theirs) < TOLERANCE
    assert len(result.frames[0]) == 4 and result.frames[0][0].size == (asked.width, asked.height)

"""PowerPaint 1 is a nine-channel pipeline with other words: stock diffusers says so, given the words' states.

The prompts are spelled out here as the original app spells them; only the ids of the task tokens come from infuse. For
PowerPaint 2, no stock pipeline exists: a plain loop over the golden-tested branch stands in for it.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from infuse import ControlNet, IPAdapter, PowerPaint, Recipe
from infuse.batch import Row, collate
from infuse.engine.engine import Engine
from infuse.ports import Ports, Residual, Tokens, Voice

from .cases import control, look, mask, photo
from .stock import SCHEDULERS, adapted
from .test_parity import TOLERANCE, difference, modules

pytestmark = pytest.mark.slow

BAD = ", worst quality, low quality, normal quality, bad quality, blurry "
HOLE = (7, 5, 25, 20)


@cache
def base(generation: str = "v1") -> tiny.Tiny:
    return tiny.powerpaint1(generation)


def states(text: str, generation: str = "v1") -> Tensor:
    """A prompt in the original's spelling, task token inside: (1 77 d), from ids put together by hand."""
    texts, ids = base(generation).base.tasks, []
    assert texts is not None
    for word in text.replace(",", " , ").split():
        if word in texts.generation.order:
            ids += texts.run(word)
        else:
            ids += texts.tokenizer(word, add_special_tokens=False).input_ids
    row = [49406, *ids, 49407]
    row += [49407] * (77 - len(row))
    with torch.no_grad():
        return texts.model(torch.tensor([row])).last_hidden_state


def stocked(asked: Recipe, positive: Tensor, negative: Tensor, generation: str = "v1") -> Tensor:
    controls = [c for c in asked.conditions if isinstance(c, ControlNet)]
    looks = [c for c in asked.conditions if isinstance(c, IPAdapter)]
    kind = "StableDiffusionControlNetInpaintPipeline" if controls else "StableDiffusionInpaintPipeline"
    name, arguments = SCHEDULERS[str(asked.scheduler)]
    own = {**base(generation).parts, "unet": copy.deepcopy(base(generation).parts["unet"])}
    own |= {"scheduler": getattr(diffusers, name).from_config(dict(tiny.SCHEDULE), **arguments)}
    own |= {"safety_checker": None, "requires_safety_checker": False}
    own |= {"controlnet": modules("sd1")[controls[0].model]} if controls else {}
    pipe = getattr(diffusers, kind)(**own)
    pipe.set_progress_bar_config(disable=True)
    said: dict[str, Any] = (
        {"control_image": controls[0].image.image, "controlnet_conditioning_scale": float(controls[0].weight)}
        if controls
        else {}
    )  # type: ignore[arg-type]
    said |= adapted(pipe, looks, modules("sd1"), (32, 32)) if looks else {}
    (paint,) = (c for c in asked.conditions if isinstance(c, PowerPaint))
    return pipe(
        prompt_embeds=positive, negative_prompt_embeds=negative, guidance_scale=asked.guidance, width=32, height=32,
        num_inference_steps=asked.steps, image=paint.image.image, mask_image=paint.mask.image, strength=1.0,  # type: ignore[union-attr]
        generator=torch.Generator().manual_seed(asked.seed), output_type="latent", **said,
    ).images  # fmt: skip


def recipe(*more: Any, scheduler: str = "DDIM", task: str = "text", **fields: Any) -> Recipe:
    # what is compared with stock is told a hole as stock tells it
    paint = PowerPaint(image=photo(2), mask=mask(*HOLE), task=task, paste=False, cells="nearest", **fields)  # type: ignore[arg-type]
    return Recipe(
        model="tiny", prompt="a red cube", negative_prompt="dog", steps=5, guidance=6.0, seed=11, scheduler=scheduler,
        conditions=(paint, *more),
    )  # fmt: skip


@cache
def engine(generation: str = "v1") -> Engine:
    return tiny.engine(base(generation), modules("sd1"))


V1_WORDS = {
    "text": ("a red cube P_obj", "dog" + BAD + "P_obj"),
    "removal": ("empty scene blur a red cube P_ctxt", "dog P_obj"),
    "shape": ("a red cube P_shape", "dog" + BAD + "P_shape"),
}
DEV_WORDS = {
    "text": ("P_obj a red cube", "dog"),
    "removal": ("P_ctxt empty scene blur", "P_obj dog"),
    "shape": ("P_shape a red cube", "P_shape dog" + BAD),
}


@pytest.mark.parametrize("scheduler", ["DDIM", "Euler a", "DPM++ 2M Karras"])
@pytest.mark.parametrize("task", V1_WORDS)
def test_the_tasks(task: str, scheduler: str) -> None:
    asked = recipe(task=task, scheduler=scheduler)
    theirs = stocked(asked, *(states(w) for w in V1_WORDS[task]))
    assert difference(engine().run(asked).latents, theirs) < TOLERANCE


def test_the_fitting_degree_blends_encoded_prompts_on_both_sides() -> None:
    asked = recipe(task="shape", fit=0.55)
    blend = [0.55 * states(w) + 0.45 * states(w.replace("P_shape", "P_ctxt")) for w in V1_WORDS["shape"]]
    assert difference(engine().run(asked).latents, stocked(asked, *blend)) < TOLERANCE
    loose = engine().run(recipe(task="shape", fit=0.0)).latents
    assert (
        difference(loose, stocked(asked, *(states(w.replace("P_shape", "P_ctxt")) for w in V1_WORDS["shape"])))
        < TOLERANCE
    )


def test_a_curve_of_the_fitting_degree_changes_along_the_way() -> None:
    found = [engine().run(recipe(task="shape", fit=f)).latents for f in (1.0, {0: 1.0, 1: 0.0}, {0: 0.7})]
    assert difference(found[0], found[1]) > 1e-3
    assert difference(found[2], engine().run(recipe(task="shape", fit=0.7)).latents) < 1e-6


def test_with_a_controlnet_alone_the_negative_words_are_the_user_s() -> None:
    asked = recipe(control(0, weight=0.5))
    theirs = stocked(asked, states("a red cube P_obj"), states("dog"))
    assert difference(engine().run(asked).latents, theirs) < TOLERANCE


def test_with_an_ip_adapter_and_both() -> None:
    asked = recipe(look("plain"))
    theirs = stocked(asked, *(states(w) for w in V1_WORDS["text"]))
    assert difference(engine().run(asked).latents, theirs) < TOLERANCE
    both = recipe(control(0, weight=0.5), look("plus"))
    assert difference(engine().run(both).latents, stocked(both, states("a red cube P_obj"), states("dog"))) < TOLERANCE


@pytest.mark.parametrize("task", DEV_WORDS)
def test_the_retrained_layout_has_words_and_a_hole_of_its_own(task: str) -> None:
    """dev: task tokens come first, and the hole is black before it is encoded."""
    asked = recipe(task=task)
    positive, negative = (states(w, "dev1") for w in DEV_WORDS[task])
    dev = engine("dev1")
    ours = dev.encode(dev.check(asked), kit("dev1"))["prompt"]
    assert torch.allclose(ours.on.context[0].at(0.0).values, positive[0], atol=1e-5)
    assert torch.allclose(ours.off.context[0].at(0.0).values, negative[0], atol=1e-5)
    masked = next(c.value for c in ours.on.channels if c.slot == "masked_image")
    shown = kit("dev1").pixels(photo(2)) * (1 - kit("dev1").mask(mask(*HOLE)))
    assert torch.equal(masked.mean, kit("dev1").posterior(shown).mean)  # type: ignore[union-attr]


def kit(generation: str) -> Any:
    from infuse.encoders.kit import Kit

    store = engine(generation).store
    return Kit(store.base("tiny"), (32, 32), store)


@pytest.mark.parametrize(("generation", "task"), [("v2", "text"), ("v2", "removal"), ("dev2", "shape")])
def test_powerpaint_2_as_a_plain_loop(generation: str, task: str) -> None:
    branch = tiny.brushnet(generation=generation)
    own = tiny.base("sd1")
    running = tiny.engine(own, {"brush": branch})
    asked = recipe(task=task, model="brush", weight=0.8)
    ours = running.run(asked).latents[0]

    generator = torch.Generator().manual_seed(asked.seed)
    noise = torch.randn((1, 4, 16, 16), generator=generator)[0]
    image, hole = photo(2).image, mask(*HOLE).image
    pixels = torch.from_numpy(np.array(image.convert("RGB"), dtype=np.float32)).permute(2, 0, 1) / 255
    covered = (torch.from_numpy(np.array(hole.convert("L")))[None] > 127).float()
    with torch.no_grad():
        said = own.parts["vae"].encode((2 * pixels * (1 - covered) - 1)[None]).latent_dist
        drawn = torch.randn((1, 4, 16, 16), generator=generator)[0]
        z = (said.mean[0] + said.std[0] * drawn) * own.parts["vae"].config.scaling_factor
    small = covered[:, ::2, ::2]
    hint = torch.cat([z, 1 - small]) if generation == "v2" else torch.cat([small, z])
    texts = branch.tasks

    def words(text: str) -> Tensor:
        texts_ids = (
            texts.run(text) if text.startswith("P_") else texts.tokenizer(text, add_special_tokens=False).input_ids
        )
        row = [49406, *texts_ids, 49407]
        encoder = texts.model if text.startswith("P_") else own.parts["text_encoder"]
        with torch.no_grad():
            return encoder(torch.tensor([row + [49407] * (77 - len(row))])).last_hidden_state[0]

    tokens = {"text": ("P_obj", "P_obj"), "removal": ("P_ctxt", "P_obj"), "shape": ("P_shape", "P_shape")}[task]
    negative = "dog" + BAD.rstrip() if generation == "dev2" else "dog"
    base_words = ("a red cube empty scene blur" if task == "removal" else "a red cube", negative)
    scheduler = diffusers.DDIMScheduler.from_config(tiny.SCHEDULE)
    scheduler.set_timesteps(asked.steps)
    x = noise
    network = own.base.network
    for t in scheduler.timesteps:
        rows = [
            Row(x, t, (Ports(context=(Tokens(words(b)),)) + Ports(residuals=(
                Residual(branch, hint, voice=Voice(0.8), context=(Tokens(words(w)),)),))).at(0.0))
            for w, b in zip(tokens, base_words, strict=True)
        ]  # fmt: skip
        with torch.no_grad():
            on, off = network.predict(collate(rows, network.spec))
        x = scheduler.step(off + 6.0 * (on - off), t, x).prev_sample
    assert difference(ours, x) < TOLERANCE

"""A recipe as somebody with diffusers alone would run it: the stock pipeline for its conditions, and its arguments.

This is the reference. It reads the recipe, and shares no line with infuse after that.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from safetensors.torch import load_file
from torch import Tensor, nn

from infuse.conditions import Condition
from infuse.recipe import Recipe
from tiny import Tiny

PIPELINES = {  # (SDXL, ControlNet, how it starts)
    (False, False, "text"): "StableDiffusionPipeline",
    (False, False, "img2img"): "StableDiffusionImg2ImgPipeline",
    (False, False, "inpaint"): "StableDiffusionInpaintPipeline",
    (False, True, "text"): "StableDiffusionControlNetPipeline",
    (False, True, "img2img"): "StableDiffusionControlNetImg2ImgPipeline",
    (False, True, "inpaint"): "StableDiffusionControlNetInpaintPipeline",
    (True, False, "text"): "StableDiffusionXLPipeline",
    (True, False, "img2img"): "StableDiffusionXLImg2ImgPipeline",
    (True, False, "inpaint"): "StableDiffusionXLInpaintPipeline",
    (True, True, "text"): "StableDiffusionXLControlNetPipeline",
    (True, True, "img2img"): "StableDiffusionXLControlNetImg2ImgPipeline",
    (True, True, "inpaint"): "StableDiffusionXLControlNetInpaintPipeline",
}
WRITTEN = ("unet", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
SCHEDULERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "PNDM": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE Karras": (
        "DPMSolverMultistepScheduler",
        {"use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"},
    ),
    "DPM++ 2S": ("DPMSolverSinglestepScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
    "LCM": ("LCMScheduler", {}),
    "TCD": ("TCDScheduler", {}),
    "SA-Solver": ("SASolverScheduler", {}),
    "Euler trailing": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
}


def latents(tiny: Tiny, recipe: Recipe, modules: Mapping[str, nn.Module]) -> Tensor:
    """(count c h w): what the stock pipeline makes of the recipe."""
    start = next((c for c in recipe.conditions if c.kind in ("img2img", "inpaint")), None)
    controls = [c for c in recipe.conditions if c.kind == "controlnet"]
    adapters = [c for c in recipe.conditions if c.kind == "ip_adapter"]
    sizes = [c for c in recipe.conditions if c.kind == "size"]
    loras = [c for c in recipe.conditions if c.kind == "lora"]
    assert len([*controls, *adapters, *sizes, *loras]) + (start is not None) == len(recipe.conditions), (
        "no stock pipeline can do that"
    )
    sdxl = tiny.family == "sdxl"

    parts = {**tiny.parts, "scheduler": scheduler(tiny, recipe)}
    if adapters:  # diffusers writes them into the network
        parts["unet"] = copy.deepcopy(parts["unet"])
    if loras or recipe.embeddings or recipe.clip_skip:  # and these into text encoders and tokenizers, too
        parts |= {k: copy.deepcopy(v) for k, v in parts.items() if k in WRITTEN}
    parts |= {"add_watermarker": False} if sdxl else {"safety_checker": None, "requires_safety_checker": False}
    if controls:
        parts["controlnet"] = one_or_list([modules[c.model] for c in controls])
    pipe = getattr(diffusers, PIPELINES[sdxl, bool(controls), start.kind if start else "text"])(**parts)
    pipe.set_progress_bar_config(disable=True)
    if loras:
        changed(pipe, loras)
    for name in recipe.embeddings:
        learned(pipe, Path(name))

    width, height = recipe.width or start.image.size[0], recipe.height or start.image.size[1]
    asked: dict[str, Any] = {
        "prompt": recipe.prompt,
        "negative_prompt": recipe.negative_prompt or None,
        "guidance_scale": recipe.guidance,
        "num_inference_steps": recipe.steps,
        "output_type": "latent",
        "num_images_per_prompt": recipe.count,
        "generator": one_or_list([torch.Generator("cpu").manual_seed(recipe.seed + i) for i in range(recipe.count)]),
    }
    if sdxl:
        asked |= {"prompt_2": recipe.prompt_2, "negative_prompt_2": recipe.negative_prompt_2}
        if recipe.negative_prompt_2:  # of None alone it hears zeros, whatever the second is
            asked["negative_prompt"] = recipe.negative_prompt
    if recipe.clip_skip:
        skipped(pipe, asked, recipe.clip_skip - (2 if sdxl else 1))  # SDXL hears the layer before the last anyway
    if recipe.guidance_rescale:
        asked["guidance_rescale"] = recipe.guidance_rescale
    if start is None or start.kind == "inpaint" or controls:
        asked |= {"width": width, "height": height}
    if start is not None:
        asked |= {"image": start.image.image, "strength": start.strength}
        asked |= {"mask_image": start.mask.image} if start.kind == "inpaint" else {}
    if controls:
        asked |= controlled(controls, "control_image" if start else "image")
    for c in sizes:
        original, crop = (c.original or (width, height))[::-1], c.crop[::-1]
        asked |= {"original_size": original, "crops_coords_top_left": crop}
        asked |= {"negative_crops_coords_top_left": crop} if start is not None else {}
    if adapters:
        asked |= adapted(pipe, adapters, modules, (width, height))
    return pipe(**asked).images


def changed(pipe: Any, conditions: Sequence[Condition]) -> None:
    """Load LoRAs, and say how loud each is: block by block where a condition has factors (of attentions, which is all that
    diffusers weighs)."""
    names = [f"lora{i}" for i in range(len(conditions))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's, of a second network, and of alphas that diffusers cannot place
        for name, c in zip(names, conditions, strict=True):
            pipe.load_lora_weights(load_file(c.model), adapter_name=name)
    scales: list[Any] = []
    for c in conditions:
        texts = c.weight if c.text_weight is None else c.text_weight
        said: dict[str, Any] = {"text_encoder": texts, "text_encoder_2": texts, "unet": c.weight}
        if c.blocks is not None:
            ins, mid, outs = ([f * c.weight for f in part] for part in (c.blocks[1:13], c.blocks[13:14], c.blocks[14:]))
            net = pipe.unet
            said["unet"] = {
                "down": {f"block_{i}": [ins[1 + 3 * i + j] for j in range(len(b.attentions))] for i, b in enumerate(net.down_blocks)},
                "mid": mid[0],
                "up": {f"block_{i}": [outs[3 * i + j] for j in range(len(b.attentions))] for i, b in enumerate(net.up_blocks)},
            }  # fmt: skip
            said |= dict.fromkeys(("text_encoder", "text_encoder_2"), texts * c.blocks[0])
        scales.append({k: v for k, v in said.items() if hasattr(pipe, k)})
    pipe.set_adapters(names, scales)


def skipped(pipe: Any, asked: dict[str, Any], layers: int) -> None:
    """Hear layers before the last. diffusers does so on the prompt's side alone, so the negative prompt is encoded as a prompt."""
    if not hasattr(pipe.text_encoder, "text_model"):  # diffusers asks for a level that transformers 5 has no more
        object.__setattr__(pipe.text_encoder, "text_model", pipe.text_encoder)
    asked["clip_skip"] = layers
    said = {k.removeprefix("negative_"): asked.pop(k, None) for k in ("negative_prompt", "negative_prompt_2")}
    said = {
        "prompt": said["prompt"] or "",
        **({"prompt_2": said["prompt_2"]} if hasattr(pipe, "text_encoder_2") else {}),
    }
    found = pipe.encode_prompt(
        **said, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, clip_skip=layers
    )
    asked["negative_prompt_embeds"] = found[0]
    if len(found) > 2:
        asked["negative_pooled_prompt_embeds"] = found[2]


def learned(pipe: Any, path: Path) -> None:
    """Load a textual inversion under its file's name: of SDXL a vector for each encoder."""
    state, token = load_file(path), f"<{path.stem}>"
    if "clip_g" not in state:
        pipe.load_textual_inversion(state, token=token)
        return
    for key, end in (("clip_l", ""), ("clip_g", "_2")):
        encoder, tokenizer = getattr(pipe, f"text_encoder{end}"), getattr(pipe, f"tokenizer{end}")
        pipe.load_textual_inversion(state[key], token=token, text_encoder=encoder, tokenizer=tokenizer)


def scheduler(tiny: Tiny, recipe: Recipe) -> Any:
    name, arguments = SCHEDULERS[recipe.scheduler]
    return getattr(diffusers, name).from_config(dict(tiny.base.scheduler), **arguments)


def one_or_list(things: Sequence[Any]) -> Any:
    return things[0] if len(things) == 1 else list(things)


def controlled(controls: Sequence[Condition], image: str) -> dict[str, Any]:
    return {
        image: one_or_list([c.image.image for c in controls]),
        "guess_mode": any(c.mode == "guess" for c in controls),
        "controlnet_conditioning_scale": one_or_list([c.weight for c in controls]),
        "control_guidance_start": one_or_list([c.start for c in controls]),
        "control_guidance_end": one_or_list([c.end for c in controls]),
    }


def adapted(
    pipe: Any, conditions: Sequence[Condition], modules: Mapping[str, nn.Module], size: tuple[int, int]
) -> dict[str, Any]:
    """Load the adapters; conditions of one adapter become its list of images, each with a scale and a mask of its own."""
    by_model = {m: [c for c in conditions if c.model == m] for m in dict.fromkeys(c.model for c in conditions)}
    pipe.load_ip_adapter(
        [file(modules[m]) for m in by_model],
        subfolder=[""] * len(by_model),
        weight_name=["x.bin"] * len(by_model),
        image_encoder_folder=None,
    )
    speak(pipe, by_model, 0, 1)
    asked: dict[str, Any] = {"ip_adapter_image": [[p.image for c in cs for p in c.image] for cs in by_model.values()]}
    if any(c.start > 0 or c.end < 1 for c in conditions):
        first, last = min(c.start for c in conditions), max(c.end for c in conditions)
        assert all((c.start, c.end) == (first, last) for c in conditions)
        if first > 0:
            pipe.set_ip_adapter_scale(0.0)

        def turn(pipe: Any, i: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            speak(pipe, by_model, i + 1, pipe.num_timesteps)
            return {}

        asked["callback_on_step_end"] = turn
    if any(c.mask is not None for c in conditions):
        processor, (w, h) = IPAdapterMaskProcessor(), size
        masks = [
            torch.cat([processor.preprocess([c.mask.image], height=h, width=w) for c in cs], dim=1)
            for cs in by_model.values()
        ]
        asked["cross_attention_kwargs"] = {"ip_adapter_masks": masks}
    return asked


def speak(pipe: Any, by_model: Mapping[str, Sequence[Condition]], i: int, n: int) -> None:
    """The scales of step i of n, layer by layer where a condition asks for layers."""

    def now(c: Condition) -> float:
        return c.weight if c.start <= i / n and (i + 1) / n <= c.end else 0.0

    pipe.set_ip_adapter_scale([[now(c) for c in cs] if len(cs) > 1 else now(cs[0]) for cs in by_model.values()])
    layers = [[c.layers for c in cs] for cs in by_model.values()]
    heard = [p for p in pipe.unet.attn_processors.values() if hasattr(p, "to_k_ip")]
    for i, processor in enumerate(heard):
        for a, per in enumerate(layers):
            if per[0] is not None:
                processor.scale[a] = processor.scale[a] * per[0][i]


def file(adapter: nn.Module) -> dict[str, dict[str, Tensor]]:
    """An IP-Adapter file in two parts, as diffusers reads it."""
    flat = {k: t.detach().clone() for k, t in adapter.save().items()}
    return {
        part: {k.removeprefix(f"{part}."): t for k, t in flat.items() if k.startswith(f"{part}.")}
        for part in ("image_proj", "ip_adapter")
    }

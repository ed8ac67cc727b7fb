"""What others' calls have beside a recipe's fields, and where infuse has it: in a condition, in the engine, or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PICTURE = "a picture comes in with a condition: conditions: [{kind: %s}], or %s on the command line."
_ENGINE = "it is the engine's affair, not the recipe's: Engine(%s=...), or --%s on the command line."
_KNOB = "it is a knob of the scheduler: scheduler_options, or --set scheduler_options.%s=... on the command line."
_LATER = "infuse has none yet, so it would change nothing. Remove it."
ELSEWHERE: Mapping[str, str] = {
    **dict.fromkeys(("image", "init_image", "init_images"), _PICTURE % ("img2img, image: a.png, strength: 0.8", "--init a.png@0.8")),
    **dict.fromkeys(("mask", "mask_image"), _PICTURE % ("inpaint, image: a.png, mask: mask.png", "--inpaint a.png mask.png")),
    **dict.fromkeys(("strength", "denoising_strength", "denoise"),
                    "how much of a picture is repainted stands in the condition that brings it: {kind: img2img, image: a.png, "
                    "strength: 0.8}, or --init a.png@0.8 on the command line."),
    **dict.fromkeys(("control_image", "controlnet", "controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end",
                     "guess_mode", "control_mode"),
                    "a ControlNet is a condition: conditions: [{kind: controlnet, model: edges, image: map.png, weight: 1, start: "
                    "0, end: 1}], or --control edges=map.png@1 on the command line."),
    **dict.fromkeys(("ip_adapter_image", "ip_adapter_scale", "ip_adapter", "ip_adapter_masks", "ip_adapter_image_embeds"),
                    "an IP-Adapter is a condition: conditions: [{kind: ip_adapter, image: look.png, weight: 0.6}], or --ip "
                    "look.png@0.6 on the command line."),
    **dict.fromkeys(("adapter_conditioning_scale", "adapter_conditioning_factor", "t2i_adapter"),
                    "a T2I-Adapter is a condition: conditions: [{kind: t2i_adapter, model: t2iadapter_depth, image: map.png, weight: 1}]."),
    **dict.fromkeys(("image_guidance_scale", "image_cfg_scale", "image_cfg"),
                    "a picture that is edited is a condition: conditions: [{kind: edit, image: a.png, image_guidance_scale: 1.5}]."),
    **dict.fromkeys(("gligen_boxes", "gligen_phrases", "gligen_images", "gligen_scheduled_sampling_beta"),
                    "boxes are a condition: conditions: [{kind: gligen, model: gligen.safetensors, boxes: [{box: [0.1, 0.2, 0.5, 0.9], phrase: "
                    "a cat}]}]."),
    **dict.fromkeys(("noise_level", "noise_augmentation"),
                    "it stands in the condition that brings the picture: {kind: upscale, image: a.png, noise_level: 20}, or kind: unclip."),
    **dict.fromkeys(("mask_blur", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding", "inpainting_mask_invert", "padding_mask_crop"),
                    "a hole is a condition: conditions: [{kind: inpaint, image: a.png, mask: mask.png, mask_blur: 4, area: masked, padding: 32}]."),
    **dict.fromkeys(("ref_image", "style_fidelity", "reference_attn", "reference_adain"),
                    "a reference is a condition: conditions: [{kind: reference, image: look.png, fidelity: 0.5}]."),
    "depth_map": "a map of depth is a condition: {kind: depth, image: map.png} for a depth2img base, or a controlnet.",
    **dict.fromkeys(("original_size", "target_size", "crops_coords_top_left"),
                    "SDXL's sizes are a condition: conditions: [{kind: size, original: [1024, 1024], crop: [0, 0]}]."),
    **{name: _ENGINE % (name, name) for name in ("device", "dtype", "memory")},
    "torch_dtype": _ENGINE % ("dtype", "dtype"),
    "local_files_only": "it is the command line's --offline, or HF_HUB_OFFLINE=1.",
    **{name: _KNOB % name for name in ("eta", "s_churn", "s_tmin", "s_tmax", "s_noise", "timesteps", "sigmas", "timestep_spacing",
                                       "use_karras_sigmas")},
    **dict.fromkeys(("lora", "loras", "lora_name", "lora_weights", "adapter_weights", "adapter_names", "lora_scale", "lora_strength",
                     "cross_attention_kwargs", "strength_model", "strength_clip"),
                    "a LoRA is a condition: conditions: [{kind: lora, model: style.safetensors, weight: 0.8}], or <lora:style:0.8> in the "
                    "prompt."),
    **dict.fromkeys(("regions", "regional_prompts", "masks"),
                    "words for parts of the picture are a condition: conditions: [{kind: regions, regions: [{prompt: a cat, box: 0:0:0.5:1}]}]."),
    **dict.fromkeys(("hires", "enable_hr", "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hires_fix"),
                    "infuse has no second pass. Make the picture, then begin from it at a larger width and height with img2img "
                    "(--init x.png@0.5)."),
    **dict.fromkeys(("refiner", "refiner_checkpoint", "refiner_switch_at"),
                    "infuse has no refiner in the run. Make the picture, then begin from it with the refiner as model (img2img)."),
    **dict.fromkeys(("subseed", "subseed_strength", "variation_seed", "seed_resize_from_h", "seed_resize_from_w"), f"variation seeds: {_LATER}"),
    **dict.fromkeys(("restore_faces", "face_restoration", "tiling", "freeu", "pag_scale"), _LATER),
    **dict.fromkeys(("prompt_embeds", "negative_prompt_embeds", "latents"),
                    "a recipe holds what can be written down. Give words, a seed, steps and a scheduler; words of compel go with syntax: compel."),
    **dict.fromkeys(("schedule", "schedule_type", "noise_schedule"),
                    "a schedule belongs to a sampler: say both, or both in one, as in scheduler: DPM++ 2M Karras."),
    "output_type": "a result's `images` are PIL images, its `latents` a tensor. Remove it.",
    **dict.fromkeys(("callback", "callback_on_step_end"), "hand it to the engine as watch=: it is called with the ticket after each step."),
}  # fmt: skip
"""What others' calls have beside a recipe's fields -> where infuse has it, or that it has not."""
NOTHING: Mapping[str, tuple[Any, ...]] = {"subseed": (-1,), "subseed_strength": (0,), "seed_resize_from_h": (-1, 0), "seed_resize_from_w": (-1, 0),
                                          "output_type": ("pil",)}  # fmt: skip
"""Values, beside None, False and empty lists, at which these say nothing."""


def says_nothing(key: str, value: Any) -> bool:
    empty = value is None or value is False or (isinstance(value, list | tuple | dict | str) and not value)
    return empty or (isinstance(value, int | float | str) and value in NOTHING.get(key, ()))

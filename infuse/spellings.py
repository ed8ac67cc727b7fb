"""The same field by the names that other programs have for it: diffusers, the webui, ComfyUI, InvokeAI.

A spelling is read wherever a field is: in Python, in files, on the command line. What is kept, dumped and shown are our own
names. What others know and infuse does not is named in a letter, never dropped; at a value that says nothing it is nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from infuse.elsewhere import ELSEWHERE, says_nothing
from infuse.errors import RecipeError
from infuse.meanings import RECIPE, VALUES, plain

VOICE = {
    "scale": "weight", "conditioning_scale": "weight", "strength": "weight",
    "start_at": "start", "start_percent": "start", "guidance_start": "start", "control_guidance_start": "start",
    "begin_step_percent": "start", "starting_control_step": "start",
    "end_at": "end", "end_percent": "end", "guidance_end": "end", "control_guidance_end": "end", "end_step_percent": "end",
    "ending_control_step": "end",
    "region": "mask", "attention_mask": "mask", "effective_region_mask": "mask",
}  # fmt: skip
"""Of every condition that has the field; a condition's own field of such a name wins."""
STRENGTH = {"denoising_strength": "strength", "denoise": "strength"}
PICTURED = {"init_image": "image", "input_image": "image"}
HOLED = {**PICTURED, "mask_image": "mask"}
FILMED = {"video": "film"}
SPELLINGS: Mapping[str, Mapping[str, str]] = {
    RECIPE: {
        "positive": "prompt", "positive_prompt": "prompt", "negative": "negative_prompt", "neg_prompt": "negative_prompt",
        "num_inference_steps": "steps", "sampling_steps": "steps", "inference_steps": "steps", "num_steps": "steps",
        "guidance_scale": "guidance", "cfg_scale": "guidance", "cfg": "guidance", "rescale_cfg": "guidance_rescale",
        "cfg_rescale": "guidance_rescale", "sampler": "scheduler", "sampler_name": "scheduler", "sampler_index": "scheduler",
        "num_images_per_prompt": "count", "num_videos_per_prompt": "count", "num_images": "count", "n": "count",
        "batch_size": "count", "n_iter": "count", "batch_count": "count", "num_samples": "count",
        "seeds": "seed", "generator": "seed", "noise_seed": "seed", "num_frames": "frames", "video_length": "frames",
        "checkpoint": "model", "ckpt": "model", "ckpt_name": "model", "sd_model_checkpoint": "model", "model_name": "model",
        "model_id": "model", "base_model": "model", "pretrained_model_name_or_path": "model",
        "vae_name": "vae", "sd_vae": "vae", "vae_model": "vae", "vae_path": "vae", "clip_name": "text_encoder", "clip": "text_encoder",
        "clip_stop_at_last_layers": "clip_skip", "clipskip": "clip_skip", "stop_at_clip_layer": "clip_skip", "clipstopatlayer": "clip_skip",
        "embedding": "embeddings", "textual_inversion": "embeddings", "textual_inversions": "embeddings", "style": "styles",
        "prompt_style": "styles", "prompt2": "prompt_2", "style_prompt": "prompt_2", "positive_style_prompt": "prompt_2",
        "negative_style_prompt": "negative_prompt_2", "negative_prompt2": "negative_prompt_2", "prompt_syntax": "syntax",
        "emphasis_mode": "emphasis", "scheduler_kwargs": "scheduler_options", "sampler_options": "scheduler_options",
    },
    "scheduleroptions": {
        "timestep_spacing": "spacing", "solver_order": "order", "predictor_order": "order", "algorithm_type": "algorithm",
        "final_sigmas_type": "final_sigmas", "interpolation_type": "interpolation", "rescale_betas_zero_snr": "zero_snr",
        "variance_type": "variance", "gamma": "eta", "ddim_eta": "eta", "sigma_schedule": "schedule",
    },
    "text": {"text": "prompt", "negative": "negative_prompt"},
    "img2img": {**PICTURED, **STRENGTH, "init_images": "image"},
    "inpaint": {
        **HOLED, **STRENGTH, "inpainting_fill": "content", "masked_content": "content", "inpainting_mask_invert": "invert",
        "mask_mode": "invert", "inpainting_mask_weight": "mask_weight", "inpaint_full_res": "area", "inpaint_area": "area",
        "inpaint_full_res_padding": "padding", "only_masked_padding": "padding", "color_correction": "match_colors",
        "inpaint_color_correction": "match_colors", "masked_padding": "padding",
        "differential_diffusion": "soft", "soft_inpainting": "soft",
    },
    "brushnet": {**HOLED, "brushnet_conditioning_scale": "weight", "brushnet": "model"},
    "powerpaint": {
        **HOLED, "fitting_degree": "fit", "brushnet_conditioning_scale": "weight", "horizontal_expansion_ratio": "horizontal",
        "vertical_expansion_ratio": "vertical",
    },
    "controlnet": {
        "controlnet_conditioning_scale": "weight", "control_weight": "weight", "control_image": "image", "hint": "image",
        "input_image": "image", "conditioning_image": "image", "control_model": "model", "controlnet": "model",
        "control_net_name": "model", "module": "annotator", "preprocessor": "annotator", "processor": "annotator",
        "control_mode": "mode", "guess_mode": "mode", "advanced_weighting": "sites", "layer_weights": "sites",
        "resize_mode": "fit", "processor_res": "resolution", "pixel_perfect": "resolution", "control_type": "type", "union_type": "type",
    },
    "ip_adapter": {
        "ip_adapter_scale": "weight", "ip_adapter_image": "image", "images": "image", "ip_adapter": "model",
        "ip_adapter_model": "model", "clip_vision": "image_encoder", "image_encoder_path": "image_encoder",
        "ip_adapter_masks": "mask", "weight_type": "layers", "preset": "layers", "method": "layers", "layer_weights": "layers",
        "combine_embeds": "combine", "embeds_scaling": "scaling", "image_negative": "negative_image", "weight_faceidv2": "shortcut_scale",
        "face_id": "face", "faceid": "face", "id_embeds": "face", "face_embeds": "face", "lora_strength": "lowrank", "lora_scale": "lowrank",
        "attn_mask": "mask",
    },
    "t2i_adapter": {
        "adapter_conditioning_scale": "weight", "adapter_weight": "weight", "control_weight": "weight", "adapter_conditioning_factor": "end",
        "hint": "image", "input_image": "image", "conditioning_image": "image", "adapter": "model", "t2i_adapter_model": "model",
        "module": "annotator", "preprocessor": "annotator", "processor": "annotator", "control_mode": "mode", "advanced_weighting": "sites",
        "layer_weights": "sites", "resize_mode": "fit",
    },
    "t2i_style": {**PICTURED, "images": "image", "style_model": "model", "clip_vision": "image_encoder"},
    "coadapter": {"fuser": "model", "adapters": "members", "control_mode": "mode", "clip_vision": "image_encoder"},
    "depth": {**PICTURED, "depth_map": "image", "module": "annotator", "preprocessor": "annotator"},
    "edit": {**PICTURED, "image_cfg_scale": "image_guidance_scale", "image_cfg": "image_guidance_scale", "is_cosxl_edit": "scaled"},
    "upscale": PICTURED, "unclip": {**PICTURED, "images": "image", "noise_augmentation": "noise_level"},
    "reference": {
        **PICTURED, "ref_image": "image", "reference_image": "image", "style_fidelity": "fidelity", "threshold_a": "fidelity",
        "module": "method", "preprocessor": "method", "control_weight": "reach", "resize_mode": "fit",
    },
    "gligen": {
        "gligen_boxes": "boxes", "gligen_scheduled_sampling_beta": "end", "gligen": "model", "clip_vision": "image_encoder",
        "image_encoder_path": "image_encoder",
    },
    "lora": {
        "lora_name": "model", "lora": "model", "path": "model", "name": "model", "adapter_name": "model", "strength_model": "weight",
        "lora_scale": "weight", "adapter_weight": "weight", "adapter_weights": "weight", "multiplier": "weight", "unet_multiplier": "weight",
        "strength_clip": "text_weight", "te_multiplier": "text_weight", "text_encoder_weight": "text_weight", "te": "text_weight", "unet": "weight",
        "lbw": "blocks", "block_weights": "blocks", "cross_attention_kwargs": "weight", "fuse": "merge", "fused": "merge",
    },
    "regions": {"areas": "regions", "mode": "way", "base_ratio": "base"},
    "size": {"original_size": "original", "crops_coords_top_left": "crop", "crop_coords": "crop"},
    "video_to_video": {**FILMED, **STRENGTH}, "masked_video": {**FILMED, **STRENGTH, "mask_video": "mask"}, "depth_video": FILMED, "sketch_video": FILMED, "motion": FILMED,
}  # fmt: skip
"""Kind of a condition, or the recipe itself -> spelling -> field."""
KINDS = {
    "control_net": "controlnet", "control": "controlnet", "ipadapter": "ip_adapter", "image_to_image": "img2img",
    "image2image": "img2img", "inpainting": "inpaint", "power_paint": "powerpaint", "brush_net": "brushnet",
    "depth2img": "depth", "depth_to_image": "depth", "instruct_pix2pix": "edit", "instructpix2pix": "edit", "pix2pix": "edit",
    "t2i": "t2i_adapter", "t2iadapter": "t2i_adapter", "style_adapter": "t2i_style", "co_adapter": "coadapter",
    "upscale_x4": "upscale", "x4_upscaler": "upscale", "upscaler": "upscale", "stable_unclip": "unclip", "image_variation": "unclip",
    **dict.fromkeys(("controlnet_union", "controlnet_xs", "control_lora", "controllora", "lllite", "controllllite", "controlnet_lllite",
                     "control_net_lllite"), "controlnet"),
    **dict.fromkeys(("faceid", "face_id", "ip_adapter_faceid", "ip_adapter_plus"), "ip_adapter"), "gligen_textbox": "gligen",
    "reference_only": "reference", "outpaint": "inpaint", "differential_diffusion": "inpaint", "style_model": "t2i_style",
    **dict.fromkeys(("loras", "lycoris", "locon", "loha", "lokr", "dora", "lyco"), "lora"),
    **dict.fromkeys(("regional", "regional_prompter", "attention_couple", "latent_couple", "region"), "regions"),
    "vid2vid": "video_to_video", "video2video": "video_to_video",
}  # fmt: skip


def ours(kind: str, fields: Iterable[str], name: str) -> str | None:
    """The field that a name means in a condition of this kind (or `RECIPE`); None if it means none."""
    known, key = tuple(fields), plain(name)
    if name in known:
        return name
    if key in known:
        return key
    found = others(kind, known).get(key)
    return found if found in known else None


def others(kind: str, known: Iterable[str]) -> Mapping[str, str]:
    """Spelling -> field, of what has these fields."""
    return {**(VOICE if "weight" in known else {}), **SPELLINGS.get(kind, {})}


def read(kind: str, fields: Iterable[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's or condition's data under our names. What is no spelling of anything stays, for others to complain of.

    Raises RecipeError, under the name as it was written, for a field that is said twice with two values, and for what has
    another place in infuse, or none.
    """
    known, out, names = tuple(fields), dict[str, Any](), dict[str, str]()
    for name, value in _parted(kind, data).items():
        field = ours(kind, known, name)
        if field is None:
            if not (kind == RECIPE and plain(name) in ELSEWHERE):
                out[name] = value
            elif not says_nothing(plain(name), value):
                raise RecipeError(name, ELSEWHERE[plain(name)])
            continue
        meant = _meant(kind, name, field, value)
        if field in out and not _same(out[field], meant):
            raise RecipeError(name, f"it is {_short(value)}, and {names[field]} is {_short(data[names[field]])}; both mean {field}. "
                                    "Keep one of them.")  # fmt: skip
        out[field], names[field] = meant, name
    return out


def _parted(kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
    """What others say in one word and we in two, or they in lists that we keep together."""
    by = {plain(k): k for k in data}
    if kind in ("inpaint", "brushnet", "powerpaint") and (crop := by.get("padding_mask_crop")):
        rest = {k: v for k, v in data.items() if k != crop}
        return rest if data[crop] is None else {"area": "masked", "padding": data[crop]} | rest
    if (
        kind == "ip_adapter"
        and (scale := by.get("ip_adapter_scale"))
        and isinstance(data[scale], Mapping)
        and {"down", "mid", "up"} & set(data[scale])
    ):
        return {"layers" if k == scale else k: v for k, v in data.items()}
    if kind == "gligen" and (
        said := [by[n] for n in ("gligen_phrases", "phrases", "gligen_images", "images") if n in by]
    ):
        boxes = next((by[n] for n in ("gligen_boxes", "boxes") if n in by), "boxes")
        return {k: v for k, v in data.items() if k not in (boxes, *said)} | {
            "boxes": _boxed(data.get(boxes), {k: data[k] for k in said})
        }
    return data


def _boxed(boxes: Any, said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """diffusers has lists of boxes, of their phrases and of their pictures."""
    places = list(boxes) if isinstance(boxes, list | tuple) else []
    places = [places] if places and all(isinstance(v, int | float) for v in places) else places
    out: list[dict[str, Any]] = [{"box": box} for box in places]
    for name, values in said.items():
        each = [values] if isinstance(values, str) else values
        if not isinstance(each, list | tuple) or len(each) != len(out):
            count = len(each) if isinstance(each, list | tuple) else 1
            raise RecipeError(
                name,
                f"{count} for {len(out)} boxes. Give one for each, or boxes: [{{box: [0.1, 0.2, 0.5, 0.9], phrase: a cat}}].",
            )
        for box, value in zip(out, each, strict=True):
            if value is not None:
                box["image" if plain(name).endswith("images") else "phrase"] = value
    return out


def suggestion(kind: str, fields: Iterable[str], name: str) -> str:
    """Our name of what was probably meant by one that is unknown; "" if nothing is near."""
    known = {plain(f): f for f in fields}
    for spelling, field in others(kind, tuple(fields)).items():
        if field in known.values():
            known.setdefault(spelling, field)
    near = get_close_matches(plain(name), known, 1)
    return known[near[0]] if near else ""


def kinds(conditions: Any) -> Any:
    """Conditions' data with the kinds that others spell in their own way under our names."""
    if not isinstance(conditions, list | tuple):
        return conditions

    def one(condition: Any) -> Any:
        if not (isinstance(condition, dict) and isinstance(condition.get("kind"), str)):
            return condition
        key = plain(condition["kind"])
        return condition | {"kind": KINDS.get(key, key)}

    return type(conditions)(map(one, conditions))


def _meant(kind: str, name: str, field: str, value: Any) -> Any:
    """A value in our units: others count, order or call a few of them differently."""
    key = plain(name)
    special = VALUES.get((kind, key))
    return value if special is None else special(name, value)


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays answer with arrays
        return a is b


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:57]}..."

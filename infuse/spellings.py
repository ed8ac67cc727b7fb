"""The same field by the names that other programs have for it: diffusers, the webui, ComfyUI, InvokeAI.

A spelling is read wherever a field is: in Python, in files, on the command line. What is kept, dumped and shown are our own
names. What others know and infuse does not is named in a letter, never dropped; at a value that says nothing it is nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from infuse.errors import RecipeError

RECIPE = "recipe"
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
    },
    "text": {"text": "prompt", "negative": "negative_prompt"},
    "img2img": {**PICTURED, **STRENGTH, "init_images": "image"},
    "inpaint": {
        **HOLED, **STRENGTH, "inpainting_fill": "content", "masked_content": "content", "inpainting_mask_invert": "invert",
        "mask_mode": "invert", "inpainting_mask_weight": "mask_weight", "inpaint_full_res": "area", "inpaint_area": "area",
        "inpaint_full_res_padding": "padding", "only_masked_padding": "padding", "color_correction": "match_colors",
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
        "face_id": "face", "faceid": "face", "id_embeds": "face",
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
    "gligen": {
        "gligen_boxes": "boxes", "gligen_scheduled_sampling_beta": "end", "gligen": "model", "clip_vision": "image_encoder",
        "image_encoder_path": "image_encoder",
    },
    "size": {"original_size": "original", "crops_coords_top_left": "crop", "crop_coords": "crop"},
    "video_to_video": {**FILMED, **STRENGTH}, "masked_video": {**FILMED, **STRENGTH, "mask_video": "mask"}, "depth_video": FILMED, "sketch_video": FILMED, "motion": FILMED,
}  # fmt: skip
"""Kind of a condition, or the recipe itself -> spelling -> field."""
KINDS = {
    "control_net": "controlnet", "control": "controlnet", "ipadapter": "ip_adapter", "image_to_image": "img2img",
    "image2image": "img2img", "inpainting": "inpaint", "power_paint": "powerpaint", "brush_net": "brushnet",
    "depth2img": "depth", "depth_to_image": "depth", "instruct_pix2pix": "edit", "instructpix2pix": "edit", "pix2pix": "edit",
    "t2i": "t2i_adapter", "t2iadapter": "t2i_adapter", "style_adapter": "t2i_style", "co_adapter": "coadapter",
    "upscale_x4": "upscale", "x4_upscaler": "upscale", "stable_unclip": "unclip", "image_variation": "unclip",
    "vid2vid": "video_to_video", "video2video": "video_to_video",
}  # fmt: skip

_PICTURE = "a picture comes in with a condition: conditions: [{kind: %s}], or %s on the command line."
_ENGINE = "it is the engine's affair, not the recipe's: Engine(%s=...), or --%s on the command line."
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
    **dict.fromkeys(("ip_adapter_image", "ip_adapter_scale", "ip_adapter"),
                    "an IP-Adapter is a condition: conditions: [{kind: ip_adapter, image: look.png, weight: 0.6}], or --ip "
                    "look.png@0.6 on the command line."),
    **dict.fromkeys(("adapter_conditioning_scale", "adapter_conditioning_factor", "t2i_adapter"),
                    "a T2I-Adapter is a condition: conditions: [{kind: t2i_adapter, model: t2iadapter_depth, image: map.png, weight: 1}]."),
    **dict.fromkeys(("original_size", "target_size", "crops_coords_top_left"),
                    "SDXL's sizes are a condition: conditions: [{kind: size, original: [1024, 1024], crop: [0, 0]}]."),
    **{name: _ENGINE % (name, name) for name in ("device", "dtype", "memory")},
    "torch_dtype": _ENGINE % ("dtype", "dtype"),
    "local_files_only": "it is the command line's --offline, or HF_HUB_OFFLINE=1.",
    "clip_skip": "infuse hears the text encoder's last layer, as SD 1.5 and SDXL were trained, and can skip none yet. Remove it.",
    "eta": "infuse has no eta: for noise in every step name a sampler that adds it, as in scheduler: Euler a.",
    **dict.fromkeys(("vae", "vae_name", "sd_vae"), "infuse decodes with the VAE inside of the model. Remove it, or name a model that has it."),
    **dict.fromkeys(("lora", "loras", "lora_name", "adapter_weights"), f"a LoRA: {_LATER}"),
    **dict.fromkeys(("embedding", "embeddings", "textual_inversion"), f"a textual inversion: {_LATER}"),
    **dict.fromkeys(("hires", "enable_hr", "hr_scale", "hr_upscaler", "hr_second_pass_steps", "hires_fix"),
                    "infuse has no second pass. Make the picture, then begin from it at a larger width and height with img2img "
                    "(--init x.png@0.5)."),
    **dict.fromkeys(("refiner", "refiner_checkpoint", "refiner_switch_at"),
                    "infuse has no refiner in the run. Make the picture, then begin from it with the refiner as model (img2img)."),
    **dict.fromkeys(("subseed", "subseed_strength", "variation_seed", "seed_resize_from_h", "seed_resize_from_w"), f"variation seeds: {_LATER}"),
    **dict.fromkeys(("restore_faces", "face_restoration", "tiling", "styles", "freeu", "pag_scale", "cross_attention_kwargs"), _LATER),
    **dict.fromkeys(("prompt_2", "negative_prompt_2"), "both of SDXL's text encoders read the prompt. Put the words there."),
    **dict.fromkeys(("prompt_embeds", "negative_prompt_embeds", "latents", "timesteps", "sigmas"),
                    "a recipe holds what can be written down. Give words, a seed, steps and a scheduler."),
    **dict.fromkeys(("schedule", "schedule_type", "noise_schedule"),
                    "a schedule belongs to a sampler: say both, or both in one, as in scheduler: DPM++ 2M Karras."),
    "output_type": "a result's `images` are PIL images, its `latents` a tensor. Remove it.",
    **dict.fromkeys(("callback", "callback_on_step_end"), "hand it to the engine as watch=: it is called with the ticket after each step."),
}  # fmt: skip
"""What others' calls have beside a recipe's fields -> where infuse has it, or that it has not."""
NOTHING: Mapping[str, tuple[Any, ...]] = {"eta": (0,), "subseed": (-1,), "subseed_strength": (0,), "seed_resize_from_h": (-1, 0), "seed_resize_from_w": (-1, 0),
                                          "output_type": ("pil",), "vae": ("Automatic",), "sd_vae": ("Automatic",)}  # fmt: skip
"""Values, beside None, False and empty lists, at which these say nothing."""
WEBUI_MODES = {"balanced": "balanced", "my_prompt_is_more_important": "prompt", "controlnet_is_more_important": "control",
               "more_prompt": "prompt", "more_control": "control", "0": "balanced", "1": "prompt", "2": "control"}  # fmt: skip


def plain(name: str) -> str:
    """A field's name as it is compared: "CFG scale", "cfg-scale" and "cfg_scale" are one."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


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
    for name, value in data.items():
        field = ours(kind, known, name)
        if field is None:
            if not (kind == RECIPE and plain(name) in ELSEWHERE):
                out[name] = value
            elif not _says_nothing(plain(name), value):
                raise RecipeError(name, ELSEWHERE[plain(name)])
            continue
        meant = _meant(kind, name, field, value)
        if field in out and not _same(out[field], meant):
            raise RecipeError(name, f"it is {_short(value)}, and {names[field]} is {_short(data[names[field]])}; both mean {field}. "
                                    "Keep one of them.")  # fmt: skip
        out[field], names[field] = meant, name
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


def _mode(name: str, value: Any) -> Any:
    return WEBUI_MODES.get(plain(str(value)), value)


def _content(name: str, value: Any) -> Any:
    """The webui counts its four, the first of which is fill."""
    kinds = ("fill", "original", "noise", "nothing")
    key = plain(str(value)).removeprefix("latent_")
    return kinds[int(key)] if key in ("0", "1", "2", "3") else key if key in kinds else value


def _area(name: str, value: Any) -> Any:
    """Only masked, as the webui's flag or words say it."""
    said = {"true": "masked", "false": "whole", "only_masked": "masked", "whole_picture": "whole", "1": "masked", "0": "whole"}
    return said.get(plain(str(value)), value)


def _inverted(name: str, value: Any) -> Any:
    return {"inpaint_masked": False, "inpaint_not_masked": True}.get(plain(str(value)), value)


def _guess(name: str, value: Any) -> Any:
    return {True: "guess", False: "balanced"}.get(value, value) if isinstance(value, bool) else value


def _invokeai(name: str, value: Any) -> Any:
    """InvokeAI's methods, some of which mean other blocks than the presets that others call so."""
    return f"invokeai {value}" if isinstance(value, str) else value


def _turned(name: str, value: Any) -> Any:
    """(height, width) or (top, left), as diffusers has them, to (width, height) or (left, top)."""
    return value[::-1] if isinstance(value, list | tuple) else value


RESIZE_MODES = {"just_resize": "stretch", "just_resize_simple": "stretch", "crop_and_resize": "crop", "crop_resize": "crop", "resize_and_fill": "pad",
                "fill_resize": "pad", "scale_to_fit_(inner_fit)": "crop", "envelope_(outer_fit)": "pad", "0": "stretch", "1": "crop", "2": "pad"}  # fmt: skip
WEBUI_ANNOTATORS = {"recolor_luminance": "luminance", "recolor_intensity": "intensity", "tile_resample": "tile", "blur_gaussian": "blur",
              "scribble_xdog": "scribble", "content_shuffle": "shuffle", "t2ia_color_grid": "color"}  # fmt: skip


def _fit(name: str, value: Any) -> Any:
    return RESIZE_MODES.get(plain(str(value)), value)


def _annotator(name: str, value: Any) -> Any:
    return WEBUI_ANNOTATORS.get(plain(str(value)), value)


def _perfect(name: str, value: Any) -> Any:
    return {True: "perfect", False: None}.get(value, value) if isinstance(value, bool) else value


def _generator(name: str, value: Any) -> Any:
    """Seeds of torch generators that have not drawn yet. Raises RecipeError for one that has."""
    if isinstance(value, list | tuple):
        return [_generator(name, v) for v in value]
    if not hasattr(value, "initial_seed"):
        return value
    seed = value.initial_seed()
    if not bool((type(value)(device=value.device).manual_seed(seed).get_state() == value.get_state()).all()):
        raise RecipeError(
            name, f"this generator has drawn already, and a recipe holds seeds. Give a seed, as in seed={seed % 2**32}."
        )
    return seed


VALUES: Mapping[tuple[str, str], Callable[[str, Any], Any]] = {
    ("controlnet", "resize_mode"): _fit, ("controlnet", "pixel_perfect"): _perfect,
    **{("controlnet", name): _annotator for name in ("annotator", "module", "preprocessor", "processor")},
    **{("t2i_adapter", name): _annotator for name in ("annotator", "module", "preprocessor", "processor")}, ("t2i_adapter", "resize_mode"): _fit,
    **{(kind, name): _mode for kind in ("t2i_adapter", "coadapter") for name in ("mode", "control_mode")},
    ("controlnet", "mode"): _mode, ("controlnet", "control_mode"): _mode, ("controlnet", "guess_mode"): _guess,
    **{("inpaint", name): _content for name in ("content", "inpainting_fill", "masked_content")},
    **{("inpaint", name): _area for name in ("inpaint_full_res", "inpaint_area")}, ("inpaint", "mask_mode"): _inverted,
    ("ip_adapter", "method"): _invokeai, ("size", "original_size"): _turned, ("size", "crops_coords_top_left"): _turned, (RECIPE, "generator"): _generator,
}  # fmt: skip


def _says_nothing(key: str, value: Any) -> bool:
    empty = value is None or value is False or (isinstance(value, list | tuple | dict | str) and not value)
    return empty or (isinstance(value, int | float | str) and value in NOTHING.get(key, ()))


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError, RuntimeError):  # arrays answer with arrays
        return a is b


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) < 60 else f"{shown[:57]}..."

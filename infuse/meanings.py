"""Values of fields as other programs write them, in our units: they count, order or call a few of them differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infuse.errors import RecipeError

RECIPE = "recipe"
WEBUI_MODES = {"balanced": "balanced", "my_prompt_is_more_important": "prompt", "controlnet_is_more_important": "control",
               "more_prompt": "prompt", "more_control": "control", "0": "balanced", "1": "prompt", "2": "control"}  # fmt: skip


def plain(name: str) -> str:
    """A field's name as it is compared: "CFG scale", "cfg-scale" and "cfg_scale" are one."""
    return "_".join(name.strip().lower().replace("-", " ").replace("_", " ").split())


def _mode(name: str, value: Any) -> Any:
    return WEBUI_MODES.get(plain(str(value)), value)


def _content(name: str, value: Any) -> Any:
    """The webui counts its four, the first of which is fill."""
    kinds = ("fill", "original", "noise", "nothing")
    key = plain(str(value)).removeprefix("latent_")
    return kinds[int(key)] if key in ("0", "1", "2", "3") else key if key in kinds else value


def _area(name: str, value: Any) -> Any:
    """Only masked, as the webui's flag or words say it."""
    said = {
        "true": "masked",
        "false": "whole",
        "only_masked": "masked",
        "whole_picture": "whole",
        "1": "masked",
        "0": "whole",
    }
    return said.get(plain(str(value)), value)


def _inverted(name: str, value: Any) -> Any:
    return {"inpaint_masked": False, "inpaint_not_masked": True}.get(plain(str(value)), value)


def _guess(name: str, value: Any) -> Any:
    return {True: "guess", False: "balanced"}.get(value, value) if isinstance(value, bool) else value


def _invokeai(name: str, value: Any) -> Any:
    """InvokeAI's methods, some of which mean other blocks than the presets that others call so."""
    return f"invokeai {value}" if isinstance(value, str) else value


def _vae(name: str, value: Any) -> Any:
    """The webui's words for the model's own."""
    return None if isinstance(value, str) and plain(value) in ("automatic", "none", "") else value


def _scale(name: str, value: Any) -> Any:
    """diffusers' {"scale": 0.8}."""
    return value["scale"] if isinstance(value, Mapping) and set(value) == {"scale"} else value


def _one(name: str, value: Any) -> Any:
    """A list of one is that one."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _listed(name: str, value: Any) -> Any:
    """A name alone is a list of one."""
    return [value] if isinstance(value, str) and value else value


def _layer(name: str, value: Any) -> Any:
    """ComfyUI counts layers from the end as -1, -2."""
    return -value if isinstance(value, int) and value < 0 else value


def _none(name: str, value: Any) -> Any:
    """Nothing is skipped, where layers are counted from 0."""
    return None if value == 0 and not isinstance(value, bool) else value


def _emphasis(name: str, value: Any) -> Any:
    return {"no_norm": "no_norm", "original": "original", "ignore": "ignore"}.get(plain(str(value)), value)


def _way(name: str, value: Any) -> Any:
    """The regional prompter's modes."""
    return {"attention_couple": "attention", "latent_couple": "latent"}.get(plain(str(value)), value)


def _turned(name: str, value: Any) -> Any:
    """(height, width) or (top, left), as diffusers has them, to (width, height) or (left, top)."""
    return value[::-1] if isinstance(value, list | tuple) else value


RESIZE_MODES = {"just_resize": "stretch", "just_resize_simple": "stretch", "crop_and_resize": "crop", "crop_resize": "crop", "resize_and_fill": "pad",
                "fill_resize": "pad", "scale_to_fit_(inner_fit)": "crop", "envelope_(outer_fit)": "pad", "0": "stretch", "1": "crop", "2": "pad"}  # fmt: skip
WEBUI_ANNOTATORS = {"recolor_luminance": "luminance", "recolor_intensity": "intensity", "tile_resample": "tile", "blur_gaussian": "blur",
              "scribble_xdog": "scribble", "content_shuffle": "shuffle", "t2ia_color_grid": "color", "none": "none"}  # fmt: skip


def _fit(name: str, value: Any) -> Any:
    return RESIZE_MODES.get(plain(str(value)), value)


def _annotator(name: str, value: Any) -> Any:
    return "none" if value is None else WEBUI_ANNOTATORS.get(plain(str(value)), value)


def _method(name: str, value: Any) -> Any:
    """The webui's preprocessors of references."""
    return {"only": "attention", "adain": "norms", "adain+attn": "both"}.get(
        plain(str(value)).removeprefix("reference_"), value
    )


def _level(name: str, value: Any) -> Any:
    """ComfyUI's node has 0 to 1."""
    return round(999 * value) if isinstance(value, float) and 0 <= value <= 1 else value


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
    **{("reference", name): _method for name in ("module", "preprocessor")}, ("reference", "resize_mode"): _fit, ("unclip", "noise_augmentation"): _level,
    ("ip_adapter", "method"): _invokeai, ("size", "original_size"): _turned, ("size", "crops_coords_top_left"): _turned, (RECIPE, "generator"): _generator,
    ("lora", "cross_attention_kwargs"): _scale, ("lora", "adapter_weights"): _one, ("regions", "mode"): _way,
    **{(RECIPE, name): _layer for name in ("stop_at_clip_layer", "clipstopatlayer")}, (RECIPE, "clip_skip"): _none, (RECIPE, "emphasis"): _emphasis, (RECIPE, "emphasis_mode"): _emphasis,
    **{(RECIPE, name): _listed for name in ("styles", "style", "prompt_style", "embeddings", "embedding", "textual_inversion", "textual_inversions")},
    **{(RECIPE, name): _vae for name in ("vae", "sd_vae", "vae_name")},
}  # fmt: skip
"""(Kind of a condition, spelling) -> how its value is read."""

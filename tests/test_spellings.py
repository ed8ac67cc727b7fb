"""Fields by the names that other programs have for them: the same recipe, the same letters, never dropped (cases U10)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infuse import Img2Img, Inpaint, Recipe, Size, Text, spellings
from infuse.errors import InfuseError, RecipeError
from infuse.scheduler_options import KIND, SchedulerOptions

PICTURE = np.zeros((16, 16, 3), np.uint8)

THE_SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    # diffusers
    ({"num_inference_steps": 20, "guidance_scale": 7, "negative_prompt": "x"}, {"steps": 20, "guidance": 7, "negative_prompt": "x"}),
    ({"num_images_per_prompt": 3}, {"count": 3}),
    ({"num_frames": 16}, {"frames": 16}),
    # the webui
    ({"cfg_scale": 4.5, "sampler_name": "Euler a"}, {"guidance": 4.5, "scheduler": "Euler a"}),
    ({"batch_size": 2, "n_iter": 3}, {"count": 6}),
    ({"seed": -1}, {"seed": "random"}),
    ({"CFG scale": 4.5, "Steps": 9, "Size": "512x768", "Negative prompt": "x"},
     {"guidance": 4.5, "steps": 9, "width": 512, "height": 768, "negative_prompt": "x"}),
    ({"sd_model_checkpoint": "tabletop"}, {"model": "tabletop"}),
    # ComfyUI
    ({"cfg": 8, "noise_seed": 5, "ckpt_name": "tabletop"}, {"guidance": 8, "seed": 5, "model": "tabletop"}),
    # what says nothing
    ({"CLIP_stop_at_last_layers": 2, "style": "noir", "textual_inversion": "bad-hands", "prompt 2": "b"},
     {"clip_skip": 2, "styles": ["noir"], "embeddings": ["bad-hands"], "prompt_2": "b"}),
    ({"stop_at_clip_layer": -2, "emphasis": "No norm"}, {"clip_skip": 2, "emphasis": "no_norm"}),
    ({"clip_skip": 0}, {}),
    ({"clip_skip": None, "eta": 0.0, "styles": [], "tiling": False, "subseed": -1, "output_type": "pil"}, {}),
    ({"prompt": ["a"]}, {}),
    # the same twice
    ({"cfg": 4, "guidance_scale": 4}, {"guidance": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), THE_SAME, ids=lambda v: " ".join(v) if isinstance(v, dict) else "")
def test_a_recipe_in_others_words_is_the_same_recipe(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    said, meant = Recipe(**{"prompt": "a", **theirs}), Recipe(**{"prompt": "a", **ours})
    assert said == meant and said.digest == meant.digest
    assert said.dump() == meant.dump() and set(said.dump()) <= set(Recipe.model_fields)


CONDITIONS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"kind": "Control-Net", "model": "edges", "control_image": PICTURE, "controlnet_conditioning_scale": 0.5, "control_guidance_start": 0.1,
      "control_guidance_end": 0.6, "guess_mode": True},
     {"kind": "controlnet", "model": "edges", "image": PICTURE, "weight": 0.5, "start": 0.1, "end": 0.6, "mode": "guess"}),
    ({"kind": "controlnet", "model": "edges", "hint": PICTURE, "strength": 0.7, "end_percent": 0.4, "control_mode": "My prompt is more important"},
     {"kind": "controlnet", "model": "edges", "image": PICTURE, "weight": 0.7, "end": 0.4, "mode": "prompt"}),
    ({"kind": "controlnet", "model": "edges", "image": PICTURE, "control_mode": 2},
     {"kind": "controlnet", "model": "edges", "image": PICTURE, "mode": "control"}),
    ({"kind": "inpaint", "init_image": PICTURE, "mask_image": PICTURE, "denoising_strength": 0.5},
     {"kind": "inpaint", "image": PICTURE, "mask": PICTURE, "strength": 0.5}),
    ({"kind": "img2img", "init_image": PICTURE, "denoise": 0.5}, {"kind": "img2img", "image": PICTURE, "strength": 0.5}),
    ({"kind": "ipadapter", "ip_adapter_image": PICTURE, "ip_adapter_scale": 0.6}, {"kind": "ip_adapter", "image": [PICTURE], "weight": 0.6}),
    ({"kind": "gligen", "model": "g", "gligen_boxes": [[0, 0, 0.5, 1], [0.5, 0, 1, 1]], "gligen_phrases": ["a cat", "a dog"],
      "gligen_scheduled_sampling_beta": 0.4},
     {"kind": "gligen", "model": "g", "end": 0.4, "boxes": [{"box": [0, 0, 0.5, 1], "phrase": "a cat"}, {"box": [0.5, 0, 1, 1], "phrase": "a dog"}]}),
    ({"kind": "GLIGEN", "model": "g", "boxes": [0, 0, 0.5, 1], "phrases": "a cat", "images": [PICTURE]},
     {"kind": "gligen", "model": "g", "boxes": [{"box": [0, 0, 0.5, 1], "phrase": "a cat", "image": PICTURE}]}),
    ({"kind": "inpaint", "image": PICTURE, "mask": PICTURE, "padding_mask_crop": 16},
     {"kind": "inpaint", "image": PICTURE, "mask": PICTURE, "area": "masked", "padding": 16}),
    ({"kind": "inpaint", "image": PICTURE, "mask": PICTURE, "padding_mask_crop": None}, {"kind": "inpaint", "image": PICTURE, "mask": PICTURE}),
    ({"kind": "ip_adapter", "image": PICTURE, "ip_adapter_scale": {"up": {"block_0": [0.0, 1.0, 0.0]}}},
     {"kind": "ip_adapter", "image": PICTURE, "layers": {"up": {"block_0": [0.0, 1.0, 0.0]}}}),
    ({"kind": "ip_adapter_faceid", "model": "f", "face_embeds": [0.1] * 512, "lora_strength": 0.6, "attn_mask": PICTURE},
     {"kind": "ip_adapter", "model": "f", "face": [0.1] * 512, "lowrank": 0.6, "mask": PICTURE}),
    ({"kind": "reference_only", "image": PICTURE, "style_fidelity": 0.3, "control_weight": 0.5}, {"kind": "reference", "image": PICTURE, "fidelity": 0.3, "reach": 0.5}),
    ({"kind": "reference", "ref_image": PICTURE, "module": "reference_adain+attn", "threshold_a": 1}, {"kind": "reference", "image": PICTURE, "method": "both", "fidelity": 1}),
    ({"kind": "unclip", "image": PICTURE, "noise_augmentation": 0.5}, {"kind": "unclip", "image": PICTURE, "noise_level": 500}),
    ({"kind": "controlnet_union", "model": "u", "image": PICTURE, "union_type": "depth", "module": "None"},
     {"kind": "controlnet", "model": "u", "image": PICTURE, "type": "depth"}),
    ({"kind": "LoRA", "lora_name": "l", "strength_model": 0.5, "strength_clip": 0.2}, {"kind": "lora", "model": "l", "weight": 0.5, "text_weight": 0.2}),
    ({"kind": "lycoris", "path": "l", "unet": 0.5, "te": 0.2, "lbw": "MIDD"}, {"kind": "lora", "model": "l", "weight": 0.5, "text_weight": 0.2, "blocks": "MIDD"}),
    ({"kind": "lora", "adapter_name": "l", "cross_attention_kwargs": {"scale": 0.5}}, {"kind": "lora", "model": "l", "weight": 0.5}),
    ({"kind": "lora", "lora": "l", "adapter_weights": [0.5]}, {"kind": "lora", "model": "l", "weight": 0.5}),
    ({"kind": "lora", "model": "l", "lora_scale": 0.5}, {"kind": "lora", "model": "l", "weight": 0.5}),
    ({"kind": "regional prompter", "areas": [{"prompt": "a", "box": "0:0:1:1"}], "mode": "Latent Couple", "base_ratio": 0.3},
     {"kind": "regions", "regions": [{"prompt": "a", "box": (0, 0, 1, 1)}], "way": "latent", "base": 0.3}),
    # diffusers counts (height, width) and (top, left)
    ({"kind": "size", "original_size": (512, 768), "crops_coords_top_left": (1, 2)}, {"kind": "size", "original": (768, 512), "crop": (2, 1)}),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), CONDITIONS, ids=lambda v: str(v["kind"]))
def test_a_condition_in_others_words(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    said, meant = (Recipe(**{"conditions": [data]}) for data in (theirs, ours))
    assert said == meant and said.dump() == meant.dump()


def test_in_python_too() -> None:
    words: dict[str, Any] = {"negative": "x"}
    assert Text(prompt="a", **words).negative_prompt == "x"
    words = {"init_image": PICTURE, "denoising_strength": 0.3}
    assert Img2Img(**words).strength == 0.3


def test_own_fields_win_over_others_spellings() -> None:
    """`strength` of an inpainting is how much is repainted; ComfyUI's strength of a ControlNet is its weight."""
    inpaint = Inpaint(image=PICTURE, mask=PICTURE, strength=0.5)  # pyright: ignore[reportArgumentType]
    assert (inpaint.strength, inpaint.weight) == (0.5, 1)


@pytest.mark.parametrize(("data", "field", "words"), [
    ({"cfg": 4, "guidance": 5}, "guidance", ("it is 5, and cfg is 4", "Keep one")),
    ({"size": "512x768", "width": 500}, "width", ("500", "512")),
    ({"clip_skip": -2}, "clip_skip", ("greater than or equal to 1",)),
    ({"cross_attention_kwargs": {"scale": 0.5}}, "cross_attention_kwargs", ("kind: lora", "<lora:style:0.8>")),
    ({"eta": 3}, "scheduler_options.eta", ("less than or equal to 1",)),
    ({"eta": 0.3, "scheduler_options": {"eta": 0.4}}, "eta", ("scheduler_options says 0.4",)),
    ({"loras": ["x"]}, "loras", ("kind: lora", "<lora:style:0.8>")),
    ({"image": "a.png"}, "image", ("img2img", "--init")),
    ({"mask_image": "a.png"}, "mask_image", ("inpaint", "--inpaint")),
    ({"denoising_strength": 0.5}, "denoising_strength", ("img2img",)),
    ({"controlnet_conditioning_scale": 0.5}, "controlnet_conditioning_scale", ("controlnet", "--control")),
    ({"ip_adapter_scale": 0.5}, "ip_adapter_scale", ("ip_adapter",)),
    ({"device": "cuda"}, "device", ("Engine(device=...)", "--device")),
    ({"enable_hr": True}, "enable_hr", ("img2img",)),
    ({"guidance_scle": 3}, "guidance_scle", ("Did you mean guidance?",)),
    ({"num_inference_step": 3}, "num_inference_step", ("Did you mean steps?",)),
    ({"conditions": [{"kind": "controlnet", "model": "x", "image": PICTURE, "weight": 1, "strength": 2}]}, "conditions.0.strength",
     ("weight is 1", "both mean weight")),
    ({"schedule_type": "Karras"}, "schedule_type", ("belongs to a sampler",)),
    ({"size": "large"}, "size", ("512x768",)),
    ({"prompt": ["a", "b"]}, "prompt", ("run_all",)),
])  # fmt: skip
def test_what_cannot_be_meant_is_a_letter_that_points_to_the_right_thing(
    data: dict[str, Any], field: str, words: tuple[str, ...]
) -> None:
    with pytest.raises(RecipeError) as letter:
        Recipe(**{"prompt": "a", **data})
    assert letter.value.field == field and all(w in letter.value.message for w in words), letter.value


def test_sampler_and_schedule_are_one_scheduler() -> None:
    for theirs in ({"sampler_name": "DPM++ 2M", "scheduler": "Karras"}, {"sampler_name": "dpmpp_2m", "scheduler": "karras"},
                   {"sampler": "DPM++ 2M", "schedule_type": "Karras"}):  # fmt: skip
        assert Recipe(**theirs).scheduler == "DPM++ 2M Karras", theirs
    with pytest.raises(RecipeError, match="UniPC"):
        Recipe(**{"sampler_name": "Euler a", "scheduler": "UniPC"})


LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**64), st.floats(), st.text(max_size=12),
    st.sampled_from(["random", "3,5", "512x512", "Euler a", "karras", "-1", ",", "[]"]),
)  # fmt: skip
VALUE = st.recursive(
    LEAF, lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.text(max_size=5) | st.integers(0, 3), v, max_size=3)),
    max_leaves=6,
)  # fmt: skip
NAMES = sorted(
    {*Recipe.model_fields, *spellings.SPELLINGS[spellings.RECIPE], *spellings.ELSEWHERE, "size", "sampler", "schedule"}
    - {"conditions"}
)
CONDITION = st.builds(
    lambda kind, data: {**data, "kind": kind}, st.sampled_from(sorted(spellings.SPELLINGS)),
    st.dictionaries(st.sampled_from(["image", "mask", "weight", "strength", "control_mode", "guess_mode", "original_size", "prompt", "film"]), VALUE, max_size=4),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=5), st.lists(CONDITION | VALUE, max_size=2))
def test_whatever_is_said_is_a_recipe_or_a_letter(data: dict[str, Any], conditions: list[Any]) -> None:
    """And a recipe is what its dump says."""
    try:
        recipe = Recipe(**(data | ({"conditions": conditions} if conditions else {})))
    except InfuseError:
        return
    assert Recipe(**recipe.dump()) == recipe


def test_the_schema_and_dumps_show_our_names_only() -> None:
    assert set(Recipe.model_json_schema()["properties"]) == set(Recipe.model_fields)
    assert set(Size.model_json_schema()["properties"]) == set(Size.model_fields)


def test_every_spelling_leads_to_a_field_that_is_there() -> None:
    """A field that is renamed takes its spellings along."""
    from typing import get_args

    from infuse.conditions import AnyCondition

    fields = {m.model_fields["kind"].default: set(m.model_fields) for m in get_args(get_args(AnyCondition)[0])}
    fields[spellings.RECIPE] = set(Recipe.model_fields)
    fields[KIND] = set(SchedulerOptions.model_fields)
    wrong = [(kind, spelling) for kind, known in spellings.SPELLINGS.items() for spelling, field in known.items()
             if field not in fields[kind]]  # fmt: skip
    assert not wrong
    assert not set(spellings.ELSEWHERE) & set(spellings.SPELLINGS[spellings.RECIPE])
    assert set(spellings.KINDS.values()) <= set(fields)


@pytest.mark.parametrize(
    ("theirs", "kind"),
    [("image_guidance_scale", "edit"), ("image_cfg_scale", "edit"), ("gligen_boxes", "gligen"), ("noise_level", "upscale"), ("mask_blur", "inpaint"),
     ("padding_mask_crop", "inpaint"), ("ip_adapter_image_embeds", "ip_adapter"), ("ref_image", "reference"), ("depth_map", "depth")],
)  # fmt: skip
def test_what_belongs_into_a_condition_is_sent_there(theirs: str, kind: str) -> None:
    with pytest.raises(RecipeError, match=f"kind: {kind}") as caught:
        Recipe(prompt="a", **{theirs: 1})
    assert caught.value.field == theirs and "Did you mean" not in caught.value.message


def test_as_many_phrases_as_boxes() -> None:
    with pytest.raises(RecipeError, match="2 for 1 boxes") as caught:
        Recipe(
            prompt="a",
            conditions=[{"kind": "gligen", "model": "g", "gligen_boxes": [[0, 0, 1, 1]], "gligen_phrases": ["a", "b"]}],
        )  # type: ignore[list-item]
    assert caught.value.field == "conditions.0.gligen_phrases"

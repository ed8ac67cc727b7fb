"""What ComfyUI, InvokeAI, SwarmUI, NovelAI and scripts write into their pictures is meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from written import PAIRS, saved

from infuse import Recipe
from infuse.engine.result import Result
from infuse.errors import InfuseError, RecipeError
from infuse.foreign import foreign, told
from infuse.media.reading import STRICT
from infuse.media.texts import texts
from infuse.recipe import read


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ComfyUI -------------------------------------------------------------------------------------------------------------


def graph(**changed: Any) -> dict[str, Any]:
    """The graph that everybody begins with."""
    nodes: dict[str, Any] = {
        "3": ("KSampler", {"seed": 5, "steps": 20, "cfg": 8.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1.0,
                           "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}),
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "v1-5.safetensors"}),
        "5": ("EmptyLatentImage", {"width": 512, "height": 640, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"text": "a cat", "clip": ["4", 1]}),
        "7": ("CLIPTextEncode", {"text": "a dog", "clip": ["4", 1]}),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"filename_prefix": "ComfyUI", "images": ["8", 0]}),
    }  # fmt: skip
    out = {
        k: {"class_type": kind, "inputs": dict(inputs), "is_changed": [float("nan")]}
        for k, (kind, inputs) in nodes.items()
    }
    for number, (kind, inputs) in changed.items():
        n = number.lstrip("n")
        out[n] = {
            "class_type": kind or out[n]["class_type"],
            "inputs": (out[n]["inputs"] if n in out and not kind else {}) | inputs,
        }
    return out


COMFY_BASE = {"prompt": "a cat", "negative_prompt": "a dog", "seed": 5, "steps": 20, "guidance": 8.0, "scheduler": "DPM++ 2M Karras",
              "width": 512, "height": 640}  # fmt: skip
SPLIT = {"n3": ("SamplerCustomAdvanced", {"noise": ["20", 0], "guider": ["21", 0], "sampler": ["22", 0], "sigmas": ["23", 0], "latent_image": ["5", 0]}),
         "n20": ("RandomNoise", {"noise_seed": 5}), "n21": ("CFGGuider", {"cfg": 8.0, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}),
         "n22": ("KSamplerSelect", {"sampler_name": "dpmpp_2m"}), "n23": ("BasicScheduler", {"scheduler": "karras", "steps": 20, "denoise": 1.0, "model": ["4", 0]})}  # fmt: skip
COMFY: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "plain": ({}, {}, []),
    "advanced": ({"n3": ("KSamplerAdvanced", {"noise_seed": 5, "steps": 20, "cfg": 8, "sampler_name": "dpmpp_2m", "scheduler": "karras", "start_at_step": 0,
                         "end_at_step": 10000, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]})}, {}, []),
    "in parts": (SPLIT, {}, []),
    "a seed node": ({"n3": ("", {"seed": ["30", 0]}), "n30": ("PrimitiveInt", {"value": 77})}, {"seed": 77}, []),
    "a text node": ({"n6": ("", {"text": ["30", 0]}), "n30": ("PrimitiveString", {"value": "a bird"})}, {"prompt": "a bird"}, []),
    "loras": ({"n3": ("", {"model": ["30", 0]}), "n30": ("LoraLoader", {"lora_name": "l.safetensors", "strength_model": 0.5, "strength_clip": 1,
                                                                       "model": ["4", 0], "clip": ["4", 1]})},
              {"conditions": [{"kind": "lora", "model": "l", "weight": 0.5, "text_weight": 1.0}]}, []),
    "clip skip": ({"n6": ("", {"clip": ["30", 0]}), "n30": ("CLIPSetLastLayer", {"stop_at_clip_layer": -2, "clip": ["4", 1]})}, {"clip_skip": 2}, []),
    "brackets": ({"n6": ("", {"text": "a (red:1.2) cat [sitting:0.5]"})}, {"prompt": "a (red:1.2) cat \\[sitting:0.5\\]"}, ["its weights of words"]),
    "a VAE": ({"n8": ("", {"vae": ["30", 0]}), "n30": ("VAELoader", {"vae_name": "vae-ft-mse.safetensors"})}, {"vae": "vae-ft-mse"}, []),
    "a model's part alone": ({"n3": ("", {"model": ["30", 0]}), "n30": ("LoraLoaderModelOnly", {"lora_name": "sub\\l.safetensors", "strength_model": 0.5, "model": ["4", 0]})},
                             {"conditions": [{"kind": "lora", "model": "sub/l", "weight": 0.5, "text_weight": 0.0}]}, []),
    "controlnet": ({"n3": ("", {"positive": ["30", 0], "negative": ["30", 1]}),
                    "n30": ("ControlNetApplyAdvanced", {"positive": ["6", 0], "negative": ["7", 0], "control_net": ["31", 0], "image": ["32", 0], "strength": 0.7}),
                    "n31": ("ControlNetLoader", {"control_net_name": "canny.pth"}), "n32": ("LoadImage", {"image": "a.png"})}, {},
                   ["ControlNet canny.pth weight 0.7"]),
    "img2img": ({"n3": ("", {"latent_image": ["30", 0], "denoise": 0.6}), "n30": ("VAEEncode", {"pixels": ["31", 0], "vae": ["4", 2]}),
                 "n31": ("LoadImage", {"image": "a.png"})}, {"width": None, "height": None}, ["a strength of 0.6"]),
    "two passes": ({"n8": ("", {"samples": ["30", 0]}), "n30": ("KSampler", {"seed": 1, "steps": 9, "cfg": 8, "denoise": 0.5, "latent_image": ["31", 0],
                    "sampler_name": "euler", "scheduler": "normal", "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}),
                    "n31": ("LatentUpscale", {"samples": ["3", 0], "width": 1024, "height": 1280})}, {}, ["a second sampler (steps 9, denoise 0.5)"]),
    "combined": ({"n3": ("", {"positive": ["30", 0]}), "n30": ("ConditioningCombine", {"conditioning_1": ["6", 0], "conditioning_2": ["31", 0]}),
                  "n31": ("CLIPTextEncode", {"text": "a mat", "clip": ["4", 1]})}, {"prompt": "a cat, a mat"}, ["2 texts", "ConditioningCombine"]),
    "rescaled": ({"n3": ("", {"model": ["30", 0]}), "n30": ("RescaleCFG", {"multiplier": 0.7, "model": ["4", 0]})}, {"guidance_rescale": 0.7}, []),
    "a large seed": ({"n3": ("", {"seed": 2**64 - 1})}, {"seed": None}, ["its seed 18446744073709551615"]),
    "an unknown node": ({"n3": ("", {"model": ["30", 0]}), "n30": ("FreeU_V2", {"b1": 1.3, "model": ["4", 0]})}, {}, ["FreeU_V2"]),
}  # fmt: skip


@pytest.mark.parametrize("case", COMFY)
def test_comfyui_s_graph_is_followed(case: str) -> None:
    changed, wanted, notes = COMFY[case]
    found = read(saved("a.png", prompt=json.dumps(graph(**changed)), workflow="{}"), STRICT)
    assert found.data == {k: v for k, v in (COMFY_BASE | wanted).items() if v is not None}
    for note in (*notes, "the model v1-5.safetensors"):
        assert any(note in said for said in found.notes), (note, found.notes)
    Recipe(**found.data)


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from([str(i) for i in range(8)]), st.fixed_dictionaries({
    "class_type": st.sampled_from(["KSampler", "SaveImage", "CLIPTextEncode", "VAEDecode", "LoraLoader", "ConditioningCombine", "EmptyLatentImage", "X"]),
    "inputs": st.dictionaries(st.sampled_from(["samples", "images", "model", "positive", "negative", "latent_image", "text", "seed", "width", "clip"]),
                              st.one_of(st.tuples(st.sampled_from([str(i) for i in range(9)]), st.integers(0, 2)).map(list), st.integers(), st.text(max_size=5),
                                        st.none(), st.lists(st.integers(), max_size=3)), max_size=8)})))  # fmt: skip
def test_any_graph_is_a_recipe_or_a_letter(nodes: dict[str, Any]) -> None:
    """Loops, links to nowhere, wrong types."""
    try:
        data, _ = foreign({"prompt": json.dumps(nodes)}, Path("a.png"))
        Recipe(**data)
    except InfuseError:
        pass


# Others --------------------------------------------------------------------------------------------------------------

INVOKE = {"generation_mode": "txt2img", "positive_prompt": "a cat", "negative_prompt": "a dog", "width": 512, "height": 768, "seed": 9, "rand_device": "cpu",
          "cfg_scale": 7.5, "cfg_rescale_multiplier": 0.2, "steps": 30, "scheduler": "euler_a", "clip_skip": 0, "app_version": "5.0",
          "model": {"key": "k", "hash": "blake3:12", "name": "dreamshaper", "base": "sd-1"}, "controlnets": [{"control_model": {"name": "canny"}}],
          "loras": [{"model": {"name": "style"}, "weight": 0.7}], "strength": None}  # fmt: skip
SWARM = {"sui_image_params": {"prompt": "a cat", "negativeprompt": "a dog", "model": "sdxl/base", "seed": 9, "steps": 30, "cfgscale": 7.5, "width": 512,
         "height": 768, "sampler": "euler_ancestral", "scheduler": "normal", "swarm_version": "0.9", "vae": "x.vae", "loras": ["style"], "loraweights": ["0.7"]}}  # fmt: skip
NOVEL = {"prompt": "a cat", "uc": "a dog", "steps": 30, "height": 768, "width": 512, "scale": 7.5, "uncond_scale": 1.0, "cfg_rescale": 0.2, "seed": 9,
         "n_samples": 1, "noise_schedule": "native", "sampler": "k_euler_ancestral", "sm": True, "request_type": "PromptGenerateRequest"}  # fmt: skip
SCRIPT = {"prompt": "a cat", "negative_prompt": "a dog", "num_inference_steps": "30", "guidance_scale": "7.5", "seed": "9", "width": "512", "height": "768",
          "scheduler": "EulerAncestralDiscreteScheduler", "model": "owner/name", "eta": "0.3"}  # fmt: skip
OLD = {"model": "stable diffusion", "model_weights": "sd-1.5", "model_hash": "abc", "app_version": "2.3",
       "image": {"prompt": [{"prompt": "a cat [a dog]", "weight": 1}], "steps": 30, "cfg_scale": 7.5, "seed": 9, "width": 512, "height": 768,
                 "sampler": "k_euler_a", "type": "txt2img", "hires_fix": True}}  # fmt: skip
ALIKE = {
    "prompt": "a cat",
    "negative_prompt": "a dog",
    "steps": 30,
    "guidance": 7.5,
    "seed": 9,
    "width": 512,
    "height": 768,
    "scheduler": "Euler a",
}
STYLE = {"kind": "lora", "model": "style", "weight": 0.7}
OTHERS: dict[str, tuple[dict[str, str], dict[str, Any], list[str]]] = {
    "invokeai": ({"invokeai_metadata": json.dumps(INVOKE)}, {"guidance_rescale": 0.2, "conditions": [STYLE]}, ["model dreamshaper, hash blake3:12", "controlnets"]),
    "invokeai 2": ({"sd-metadata": json.dumps(OLD)}, {}, ["model sd-1.5, hash abc", "hires_fix"]),
    "dream": ({"Dream": '"a cat [a dog]" -s 30 -S 9 -W 512 -H 768 -C 7.5 -A k_euler_a --hires'}, {}, ["--hires"]),
    "swarmui": ({"parameters": json.dumps(SWARM)}, {"conditions": [STYLE], "vae": "x.vae"}, ["model sdxl/base"]),
    "novelai": ({"Software": "NovelAI", "Source": "Stable Diffusion XL 7BCCAA2C", "Description": "a cat", "Comment": json.dumps(NOVEL)},
                {"guidance_rescale": 0.2}, ["Stable Diffusion XL 7BCCAA2C"]),
    "a script, chunk by chunk": (SCRIPT, {}, ["model owner/name", "eta 0.3"]),
    "invokeai, compel": ({"invokeai_metadata": json.dumps({**INVOKE, "loras": [], "controlnets": [], "clip_skip": 1, "vae": {"name": "mse"}, "positive_prompt": "a cat++ (here)1.2"})},
                         {"guidance_rescale": 0.2, "prompt": "a cat++ (here)1.2", "syntax": "compel", "clip_skip": 2, "vae": "mse"}, []),
    "novelai, weighed": ({"Software": "NovelAI", "Comment": json.dumps({**NOVEL, "prompt": "{{a}} cat [b] (c) 1.3::d::"})},
                         {"guidance_rescale": 0.2, "prompt": "((a:1.05):1.05) cat (b:0.952) \\(c\\) (d:1.3)"}, []),
    "a script that skips": ({"parameters": json.dumps({**SCRIPT, "prompt": "a (cat)", "clip_skip": 1})}, {"prompt": "a (cat)", "syntax": "plain", "clip_skip": 2}, []),
    "a script of SDXL that skips": ({"parameters": json.dumps({**SCRIPT, "model": "stabilityai/sdxl", "clip_skip": 1})}, {"clip_skip": 3}, []),
    "a script, JSON": ({"parameters": json.dumps(SCRIPT)}, {}, ["model owner/name", "eta 0.3"]),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_what_others_write_is_meant(case: str) -> None:
    said, wanted, notes = OTHERS[case]
    found = read(saved("a.png", **said), STRICT)
    assert found.data == ALIKE | wanted
    for note in notes:
        assert any(note in text for text in found.notes), (note, found.notes)
    Recipe(**found.data)


def test_in_films_and_exif_fields_too() -> None:
    texts_of = {"workflow": "workflow:{}", "Make": f"prompt:{json.dumps(graph())}"}
    assert foreign(texts_of, Path("a.webp"))[0] == COMFY_BASE
    assert (
        foreign({"comment": json.dumps({"prompt": json.dumps(graph()), "workflow": {}})}, Path("a.mp4"))[0]
        == COMFY_BASE
    )
    novel = {"UserComment": json.dumps({"Comment": json.dumps(NOVEL), "Source": "x"})}
    assert foreign(novel, Path("a.webp"))[0]["prompt"] == "a cat"


def test_a_photo_carries_no_recipe() -> None:
    for said in (
        {},
        {"Make": "Canon", "Model": "EOS", "Software": "GIMP"},
        {"Comment": "on the beach"},
        {"parameters": "[1, 2"},
        {"prompt": "hello"},
    ):
        assert told(said) is None
    with pytest.raises(RecipeError, match="carries no recipe.*ComfyUI"):
        Recipe.load(saved("a.png"))


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(["parameters", "prompt", "invokeai_metadata", "sd-metadata", "Dream", "Comment", "Software", "UserComment", "seed", "steps"]),
                       st.one_of(st.text(max_size=40), st.sampled_from(["NovelAI", PAIRS, json.dumps(INVOKE), json.dumps(OLD), json.dumps(SWARM), "[" * 99, "{}"]),
                                 st.recursive(st.none() | st.integers() | st.text(max_size=4) | st.floats(),
                                              lambda v: st.lists(v, max_size=3) | st.dictionaries(st.sampled_from([*INVOKE, "image", "sui_image_params", *NOVEL]), v,
                                                                                                  max_size=4), max_leaves=12).map(json.dumps))))  # fmt: skip
def test_any_text_is_a_recipe_or_a_letter(said: dict[str, str]) -> None:
    try:
        data, notes = foreign(said, Path("a.png"))
        Recipe(**data)
        assert all(len(n) < 5_000 for n in notes)
    except InfuseError:
        pass


def test_our_own_record_wins() -> None:
    Result((Image.new("RGB", (16, 16)),), Recipe(prompt="ours", seed=3), None).save("a.png")
    assert "parameters" in texts(Path("a.png"), STRICT)
    assert Recipe.load("a.png") == Recipe(prompt="ours", seed=3) and Recipe.load("a.png").notes == ()

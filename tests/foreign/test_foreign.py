"""Pictures of other programs become recipes as far as they can be meant, and say what was left out; ours say it in the
webui's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import webui_rules
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from written import PAIRS, saved

from infuse import Img2Img, Recipe
from infuse.engine.result import Result
from infuse.errors import InfuseWarning, RecipeError
from infuse.foreign import foreign, webui
from infuse.media.reading import STRICT
from infuse.recipe import read

BASE = {"steps": 20, "scheduler": "Euler a", "guidance": 7.0, "seed": 123, "width": 512, "height": 768}
LEFT = "it was made with the model"

WEBUI: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    # name: (text, what it means beside BASE, words of the notes)
    "plain": (f"a cat\n{PAIRS}", {"prompt": "a cat"}, []),
    "negative": (f"a cat\nNegative prompt: a dog\n{PAIRS}", {"prompt": "a cat", "negative_prompt": "a dog"}, []),
    "many lines": (f"a cat\non a mat\nNegative prompt: a dog\nin fog\n{PAIRS}", {"prompt": "a cat\non a mat", "negative_prompt": "a dog\nin fog"}, []),
    "an empty line": (f"a cat\n\non a mat\n{PAIRS}", {"prompt": "a cat\n\non a mat"}, []),
    "no prompt": (PAIRS, {}, []),
    "negative only": (f"Negative prompt: a dog\n{PAIRS}", {"negative_prompt": "a dog"}, []),
    "quotes, commas, colons": (f'a "red, blue" cat: said so\n{PAIRS}', {"prompt": 'a "red, blue" cat: said so'}, []),
    "settings in the prompt": (f"Steps: 3, a: b, c: d\n{PAIRS}", {"prompt": "Steps: 3, a: b, c: d"}, []),
    "Windows lines": (f"a cat\r\nNegative prompt: a dog\r\n{PAIRS}\r\n", {"prompt": "a cat", "negative_prompt": "a dog"}, []),
    "weights of words": (f"a (red:1.3) cat\n{PAIRS}", {"prompt": "a (red:1.3) cat"}, []),
    "unicode": (f"猫 é\n{PAIRS}", {"prompt": "猫 é"}, []),
    "old sampler's name": ("a cat\n" + PAIRS.replace("Euler a", "DPM++ 2M Karras"), {"prompt": "a cat", "scheduler": "DPM++ 2M Karras"}, []),
    "schedule type": ("a cat\n" + PAIRS.replace("Euler a", "DPM++ 2M, Schedule type: Karras"), {"prompt": "a cat", "scheduler": "DPM++ 2M Karras"}, []),
    "automatic": (f"a cat\n{PAIRS}, Schedule type: Automatic", {"prompt": "a cat"}, []),
    "unknown sampler": ("a cat\n" + PAIRS.replace("Euler a", "Restart"), {"prompt": "a cat", "scheduler": None}, ["its sampler Restart is not known here"]),
    "model": (f"a cat\n{PAIRS}, Model hash: 0123456789, Model: my model", {"prompt": "a cat"}, ["the model my model, hash 0123456789"]),
    "hash alone": (f"a cat\n{PAIRS}, Model hash: 0123456789", {"prompt": "a cat"}, ["a model of hash 0123456789"]),
    "lora": (f'a <lora:style:0.8> cat\n{PAIRS}, Lora hashes: "style: 0123456789ab, other: 0123456789ac"', {"prompt": "a <lora:style:0.8> cat"}, ["its LoRAs other are in none of its words"]),
    "hypernet": (f"a cat <hypernet:h:1>, b\n{PAIRS}", {"prompt": "a cat <hypernet:h:1>, b"}, []),
    "clip skip": (f"a cat\n{PAIRS}, Clip skip: 2", {"prompt": "a cat", "clip_skip": 2}, []),
    "clip skip of nothing": (f"a cat\n{PAIRS}, Clip skip: 99", {"prompt": "a cat"}, ["its clip skip 99 is no number of a layer"]),
    "embeddings": (f'a cat\nNegative prompt: easynegative\n{PAIRS}, TI hashes: "easynegative: c74b4e810b03, easynegative: c74b4e810b03"',
                   {"prompt": "a cat", "negative_prompt": "easynegative", "embeddings": ["easynegative"]}, []),
    "emphasis": (f"a (red:1.3) cat\n{PAIRS}, Emphasis: No norm", {"prompt": "a (red:1.3) cat", "emphasis": "no_norm"}, []),
    "no emphasis at all": (f"a (red:1.3) cat\n{PAIRS}, Emphasis: None", {"prompt": "a (red:1.3) cat", "syntax": "plain"}, []),
    "schedules, sums and breaks": (f"a [cat:dog:0.5] BREAK x AND y:0.5\n{PAIRS}", {"prompt": "a [cat:dog:0.5] BREAK x AND y:0.5"}, []),
    "clip skip of all": (f"a cat\n{PAIRS}, Clip skip: 1", {"prompt": "a cat"}, []),
    "img2img": (f"a cat\n{PAIRS}, Denoising strength: 0.6", {"prompt": "a cat"}, ["a strength of 0.6. Give it: --init"]),
    "hires": (f"a cat\n{PAIRS}, Denoising strength: 0.6, Hires upscale: 2, Hires upscaler: Latent", {"prompt": "a cat"},
              ["Hires upscale 2", "Hires denoising strength 0.6"]),
    "controlnet": (f'a cat\n{PAIRS}, ControlNet 0: "Module: canny, Model: control_v11p_sd15_canny [d14c016b], Weight: 1.0, Control Mode: Balanced"',
                   {"prompt": "a cat"}, ["ControlNet 0 Module: canny, Model: control_v11p_sd15_canny"]),
    "inpaint": (f"a cat\n{PAIRS}, Denoising strength: 0.75, Mask blur: 4, Mask mode: Inpaint masked, Masked content: original", {"prompt": "a cat"},
                ["strength of 0.75", "Mask blur 4"]),
    "vae and others": (f"a cat\n{PAIRS}, VAE hash: 7, VAE: a.pt, ENSD: 31337, RNG: CPU, Version: v1.9.4", {"prompt": "a cat", "vae": "a"}, ["ENSD 31337"]),
    "JSON escapes": (f'a cat\n{PAIRS}, Wildcard: "a \\"b\\", c:\\nd"', {"prompt": "a cat"}, ['Wildcard a "b", c: d']),
    "random seed": ("a cat\n" + PAIRS.replace("123", "-1"), {"prompt": "a cat", "seed": None}, ["its seed was random"]),
    "a seed too large": ("a cat\n" + PAIRS.replace("123", str(2**64)), {"prompt": "a cat", "seed": None}, ["seed 18446744073709551616 is no whole number"]),
    "NaN": ("a cat\n" + PAIRS.replace("scale: 7", "scale: NaN"), {"prompt": "a cat", "guidance": None}, ["its guidance NaN is no number"]),
    "endless steps": ("a cat\n" + PAIRS.replace("Steps: 20", "Steps: 1e9"), {"prompt": "a cat", "steps": None}, ["its steps 1e9 is no whole number"]),
    "a size too large": ("a cat\n" + PAIRS.replace("512x768", "512x99999"), {"prompt": "a cat", "height": None}, ["its height 99999"]),
    "Forge": (f"a cat\n{PAIRS}, Distilled CFG Scale: 3.5, Version: f2.0.1", {"prompt": "a cat"}, ["Distilled CFG Scale 3.5"]),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("case", WEBUI)
def test_the_webui_s_text_is_meant(case: str) -> None:
    text, wanted, notes = WEBUI[case]
    found = read(saved("a.png", parameters=text), STRICT)
    assert found.data == {k: v for k, v in (BASE | wanted).items() if v is not None}
    assert len(found.notes) >= bool(notes) and all(any(n in said for said in found.notes) for n in notes), found.notes
    assert not found.record and bool(found.notes) == bool(notes)
    Recipe(**found.data)


@pytest.mark.parametrize("case", WEBUI)
def test_two_readers_of_the_webui_s_text_agree(case: str) -> None:
    text = WEBUI[case][0]
    prompt, negative, pairs = webui.split(text)
    sides = {k: v for k, v in pairs.items() if k == "Size"}
    flat = {k: v for k, v in pairs.items() if k not in sides}
    flat |= {f"Size-{i + 1}": v for s in sides.values() for i, v in enumerate(s.split("x"))}
    assert webui_rules.parsed(text) == {"Prompt": prompt, "Negative prompt": negative} | flat


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "gif"])
def test_in_every_format(suffix: str) -> None:
    text = WEBUI["many lines"][0]
    assert Recipe.load(saved(f"a.{suffix}", parameters=text)) == Recipe(**(BASE | WEBUI["many lines"][1]))


def test_fewer_than_three_pairs_are_a_prompt() -> None:
    with pytest.raises(RecipeError, match="carries no recipe"):
        read(saved("a.png", parameters="a cat\nSteps: 20, Seed: 3"))
    prompt, negative, pairs = webui.split("a cat\nNegative prompt: dog\nSteps: 20, Seed: 3")
    assert (prompt, negative, pairs) == ("a cat", "dog\nSteps: 20, Seed: 3", {})


def test_what_was_left_out_is_a_warning_and_stays_on_the_recipe() -> None:
    path = saved("a.png", parameters=WEBUI["model"][0])
    with pytest.warns(InfuseWarning, match="webui: it was made with the model my model, hash 0123456789"):
        recipe = Recipe.load(path)
    assert recipe.model is None and len(recipe.notes) == 1
    assert recipe.model_copy(update={"seed": 5}).notes == recipe.notes


# Ours, in the webui's words ------------------------------------------------------------------------------------------


def ours(**asked: Any) -> str:
    resolved = {"guidance": 7.5, "scheduler": "EulerDiscreteScheduler", "steps": 30}
    return (
        Result((Image.new("RGB", (64, 48)),), Recipe(**asked), None, {"m": "0123456789abcdef"}, resolved=resolved)
        .record()
        .parameters
    )


@pytest.mark.slow
@settings(max_examples=60, derandomize=True, deadline=None)
@given(st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=60),
       st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), max_size=60))  # fmt: skip
def test_our_text_says_the_same_by_the_webui_s_rules(prompt: str, negative: str) -> None:
    if "Negative prompt:" in prompt or prompt != prompt.strip() or negative != negative.strip():
        return
    found = webui_rules.parsed(
        ours(prompt=prompt, negative_prompt=negative, seed=5, scheduler="DPM++ 2M Karras", guidance=3.5, model="m")
    )
    assert {k: found[k] for k in ("Prompt", "Negative prompt", "Seed", "CFG scale", "Steps", "Size-1", "Size-2", "Model", "Model hash")} == {
        "Prompt": prompt, "Negative prompt": negative, "Seed": "5", "CFG scale": "3.5", "Steps": "30", "Size-1": "64", "Size-2": "48",
        "Model": "m", "Model hash": "0123456789"}  # fmt: skip


def test_our_text_is_read_back_as_what_was_asked() -> None:
    asked = Recipe(
        prompt='a "red, blue" cat:\nsecond line',
        negative_prompt="dog, fog",
        seed=7,
        guidance=4,
        steps=12,
        scheduler="DPM++ 2M Karras",
    )
    text = Result((Image.new("RGB", (64, 48)),), asked, None).record().parameters
    data, notes = foreign({"parameters": text}, Path("a.png"))
    assert Recipe(**data) == asked.model_copy(update={"width": 64, "height": 48}) and not [
        n for n in notes if "RNG" not in n
    ]


def test_a_start_picture_s_strength_and_a_curve_s_beginning() -> None:
    text = ours(
        prompt="a", guidance={0: 6.0, 0.5: 1.0}, conditions=[Img2Img(image=Image.new("RGB", (16, 16)), strength=0.4)]
    )
    found = webui_rules.parsed(text)
    assert found["Denoising strength"] == "0.4" and found["CFG scale"] == "6" and "infuse" in found["Version"]


def test_the_key_order_is_the_webui_s() -> None:
    line = ours(prompt="a", scheduler="DPM++ 2M Karras", model="m").split("\n")[-1]
    keys = [k for k, _ in webui_rules.pairs_of(line)]
    assert keys == [
        "Steps",
        "Sampler",
        "Schedule type",
        "CFG scale",
        "Seed",
        "Size",
        "Model hash",
        "Model",
        "RNG",
        "Version",
    ]

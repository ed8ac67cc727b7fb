"""A LoRA from its header alone, against bases of full size: what it changes, and a letter for each way in which it cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from some import some

from infuse.errors import InfuseError, RecipeError, WeightsError
from infuse.weights.formats import Entry, Header
from infuse.weights.identify import identify
from infuse.weights.lora_outline import LoraOutline, outline

from . import zoo_more
from .test_lora_names import layers, spec
from .zoo import Shapes, shapes

WIDTH = {"sd1": 768, "sd2": 1024, "sdxl": 2048}
BASES = {"sd15": "sd1", "sd21": "sd2", "sdxl": "sdxl"}
UNUSED = ("motion", "faceid")
LORAS = [n for n, c in zoo_more.CASES.items() if c.want.get("kind") == "lora" and c.want.get("variant") not in UNUSED and "numbers" not in n and "mixed" not in n]  # fmt: skip
QUICK = (
    "LoRA kohya SD 1.5",
    "LoRA kohya SDXL",
    "LoRA of the text encoder only",
    "LoRA diffusers, processors",
    "LoKr SD 2 of the stand-alone wrapper",
)


def header(state: Shapes) -> Header:
    return Header(Path("x.safetensors"), {k: Entry("F16", s) for k, s in state.items()}, {}, 0)


def told(state: Shapes, base: str = "sd15") -> LoraOutline:
    return outline(header(state), layers(base), spec(base), name="style", field="conditions.1.model")


def letter(state: Shapes, base: str = "sd15") -> InfuseError:
    with pytest.raises(InfuseError) as found:
        told(state, base)
    assert found.value.field == "conditions.1.model"
    return found.value


def made(name: str) -> Shapes:
    return shapes(zoo_more.CASES[name].make())


def family(name: str) -> str:
    return zoo_more.CASES[name].want.get("family", "sd1")  # of GLoRA no shape tells it


@pytest.mark.parametrize("name", some(LORAS, quick=QUICK))
def test_a_lora_is_matched_whole_by_its_own_base_and_refused_by_the_others(name: str) -> None:
    """Every layout of the zoo: nothing unmatched there; elsewhere a letter with both families and both widths."""
    state = made(name)
    own = next(b for b, f in BASES.items() if f == family(name))
    found = told(state, own)
    assert not found.unmatched and not found.warnings
    assert sum(found.parts.values()) == identify(header(state)).modules
    for base, other in BASES.items():
        if base == own:
            continue
        said = letter(state, base)
        assert isinstance(said, RecipeError)
        numbers = {WIDTH[family(name)], WIDTH[other]} if "trained for" in str(said) else set[int]()
        assert all(str(n) in str(said) for n in numbers) and "another base" in str(said)


@pytest.mark.slow
def test_counts_are_those_of_the_trainers() -> None:
    assert told(made("LoRA kohya SD 1.5")).parts == {"unet": 192, "text_encoder": 72}
    assert told(made("LoRA kohya SD 2"), "sd21").parts == {"unet": 192, "text_encoder": 138}
    xl = told(made("LoRA kohya SDXL"), "sdxl")
    assert (
        xl.parts == {"unet": 722, "text_encoder": 72, "text_encoder_2": 192}
        and xl.ranks == (32, 32)
        and xl.family == "sdxl"
    )
    assert (
        told(made("LoCon SD 1.5")).parts["unet"] == 192 + 86
        and told(made("LoCon SDXL"), "sdxl").parts["unet"] == 722 + 66
    )
    assert xl.described == "722 modules of the UNet, 72 of the text encoder and 192 of the second text encoder, rank 32"


def test_kinds_are_told_module_by_module() -> None:
    at = "lora_unet_mid_block_attentions_0_transformer_blocks_0"
    state: Shapes = {
        f"{at}_attn1_to_q.lora_down.weight": (2, 1280), f"{at}_attn1_to_q.lora_up.weight": (1280, 2), f"{at}_attn1_to_q.alpha": (),
        f"{at}_attn1_to_k.hada_w1_a": (1280, 4), f"{at}_attn1_to_k.hada_w1_b": (4, 1280), f"{at}_attn1_to_k.hada_w2_a": (1280, 4),
        f"{at}_attn1_to_k.hada_w2_b": (4, 1280), f"{at}_attn1_to_v.lokr_w1": (8, 8), f"{at}_attn1_to_v.lokr_w2": (160, 160),
        f"{at}_attn2_to_q.oft_blocks": (4, 320, 320), f"{at}_attn2_to_q.alpha": (), f"{at}_attn2_to_out_0.oft_blocks": (3, 4, 320, 320),
        f"{at}_ff_net_2.weight": (5120,), f"{at}_ff_net_2.on_input": (), f"{at}_norm1.w_norm": (1280,), f"{at}_norm1.b_norm": (1280,),
        f"{at}_ff_net_0_proj.lora_down.weight": (16, 1280), f"{at}_ff_net_0_proj.lora_up.weight": (10240, 16),
        f"{at}_ff_net_0_proj.dora_scale": (10240, 1), f"{at}_attn2_to_k.diff": (1280, 768),
        "lora_unet_mid_block_resnets_0_conv1.lora_down.weight": (4, 1280, 1, 1), "lora_unet_mid_block_resnets_0_conv1.lora_mid.weight": (4, 4, 3, 3),
        "lora_unet_mid_block_resnets_0_conv1.lora_up.weight": (1280, 4, 1, 1), "lora_unet_conv_out.diff_b": (4,),
    }  # fmt: skip
    found = told(state)
    own = {
        path.removeprefix("mid_block.attentions.0.transformer_blocks.0."): kind
        for path, kind in found.changes["unet"].items()
    }
    assert own == {
        "attn1.to_q": "lora", "attn1.to_k": "loha", "attn1.to_v": "lokr", "attn2.to_q": "oft", "attn2.to_out.0": "boft", "ff.net.2": "ia3",
        "norm1": "norm", "ff.net.0.proj": "dora lora", "attn2.to_k": "diff", "mid_block.resnets.0.conv1": "lora", "conv_out": "bias",
    }  # fmt: skip
    assert found.ranks == (2, 16) and found.family == "sd1"
    notes = identify(header(state)).notes
    assert any(n == "changes the UNet (11 modules)" for n in notes) and "its ranks are 2 to 16" in notes


def low(module: str, out: int, read: int, rank: int = 4) -> Shapes:
    return {f"{module}.lora_down.weight": (rank, read), f"{module}.lora_up.weight": (out, rank), f"{module}.alpha": ()}


def text(encoder: str, width: int, count: int = 12) -> Shapes:
    return {
        k: s
        for n in range(count)
        for k, s in low(f"{encoder}_text_model_encoder_layers_{n}_mlp_fc1", 4 * width, width).items()
    }


Q = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
LETTERS: dict[str, tuple[Shapes, str, type[InfuseError], tuple[str, ...]]] = {
    "an encoder that the base lacks": (text("lora_te2", 1280), "sd15", RecipeError, ("second text encoder (12 modules", "one text encoder", "lora_te2_text_model_encoder_layers_0_mlp_fc1")),
    "another text encoder's width": (text("lora_te", 768), "sd21", RecipeError, ("(3072, 768)", "(4096, 1024)", "mlp.fc1")),
    "rank 0": (low(Q, 1280, 1280, 0), "sd15", WeightsError, ("has rank 0", Q, "Download it again")),
    "one factor of two": ({k: s for k, s in low(Q, 1280, 1280).items() if "_up" not in k}, "sd15", WeightsError, (f"{Q} has lora_down.weight and no lora_up.weight",)),
    "two ranks": (low(Q, 1280, 1280) | {f"{Q}.lora_up.weight": (1280, 8)}, "sd15", WeightsError, ("do not fit each other (ranks 4 and 8)",)),
    "several alphas": (low(Q, 1280, 1280) | {f"{Q}.alpha": (4,)}, "sd15", WeightsError, ("alpha of 4 numbers",)),
    "two kinds at once": (low(Q, 1280, 1280) | {f"{Q}.lokr_w1": (8, 8), f"{Q}.lokr_w2": (160, 160)}, "sd15", WeightsError, ("in two ways at once (lokr and lora)",)),
    "another size": (low(Q, 640, 640), "sd15", RecipeError, ("(640, 640)", "(1280, 1280)", "attn1.to_q of the UNet")),
    "modules of nobody": ({k: s for n in range(40) for k, s in low(f"lora_unet_layer_{n}", 64, 64).items()}, "sd15", RecipeError, ("40 modules, of which", "has not 40", "lora_unet_layer_0, lora_unet_layer_1", "...")),
    "half of another's": (low(Q, 1280, 1280) | low("lora_unet_layer_0", 64, 64), "sd15", RecipeError, ("2 modules, of which", "has not 1")),
    "the same module twice": (low(Q, 1280, 1280) | low(Q.replace("lora_unet", "lycoris"), 1280, 1280), "sd15", WeightsError, ("twice, under two names",)),
    "numbers for names": (made("LoRA with numbers for names"), "sd15", WeightsError, ("numbers the modules",)),
    "a FaceID's": (made("FaceID's LoRA by its adapter's numbers"), "sd15", WeightsError, ("IP-Adapter FaceID", "kind ip_adapter")),
    "of motion": (made("motion LoRA"), "sd15", WeightsError, ("AnimateDiff",)),
    "of another family": (made("LoRA of SD3: lora_unet_joint_blocks_0_context_block_attn_qkv lora_unet_joint_blocks_0_context_block_attn_qkv"), "sd15", WeightsError, ("a LoRA for SD3", "needs a LoRA")),
    "no LoRA": ({"first_stage_model.encoder.conv_in.weight": (128, 3, 3, 3)}, "sd15", WeightsError, ("this field needs a LoRA",)),
}  # fmt: skip


@pytest.mark.parametrize("name", LETTERS)
def test_what_cannot_be_used_is_a_letter(name: str) -> None:
    state, base, kind, words = LETTERS[name]
    said = letter(state, base)
    assert type(said) is kind and all(w in str(said) for w in words), str(said)
    assert (
        len(str(said)) < 700
        and "Choose" in str(said)
        or "choose" in str(said)
        or "Download" in str(said)
        or "Name the" in str(said)
    )


def test_a_few_unknown_modules_are_a_warning_that_names_them() -> None:
    state = made("LoRA kohya SD 1.5") | low("lora_unet_extra_head", 64, 64) | {"unet.conv_in.weight": (320, 4, 3, 3)}
    found = told(state)
    assert found.parts == {"unet": 192, "text_encoder": 72} and found.unmatched == (
        "lora_unet_extra_head",
        "unet.conv_in.weight",
    )
    one, two = found.warnings
    assert one == '"style": a module is not in this base and left out (first: lora_unet_extra_head)'
    assert two == '"style": a tensor is no LoRA\'s and left out (first: unet.conv_in.weight)'


def test_the_last_layer_that_sd_2_never_hears_is_a_few() -> None:
    """Trainers on original checkpoints know 24 layers of its text encoder, diffusers 23."""
    more = {
        k: s
        for side in ("q", "k", "v", "out")
        for k, s in low(f"lora_te_text_model_encoder_layers_23_self_attn_{side}_proj", 1024, 1024).items()
    }
    found = told(made("LoRA kohya SD 2") | more, "sd21")
    assert found.parts["text_encoder"] == 138 and len(found.unmatched) == 4 and len(found.warnings) == 1


def test_convolutions_of_one_pixel_are_matrices_or_not() -> None:
    at = "lora_unet_down_blocks_0_attentions_0_proj_in"
    assert told(low(at, 320, 320)).parts == {"unet": 1}  # SD 1.x has a convolution there
    four: Shapes = {f"{at}.lora_down.weight": (4, 320, 1, 1), f"{at}.lora_up.weight": (320, 4, 1, 1)}
    assert told(four, "sd21").parts == {"unet": 1}  # SD 2.x a matrix


def test_the_first_convolution_of_an_inpainting_base_hears_one_of_latents() -> None:
    own: dict[str, Any] = {"unet": {**layers("sd15")["unet"], "conv_in": (320, 9, 3, 3)}}
    state: Shapes = {
        "lora_unet_conv_in.lora_down.weight": (4, 4, 3, 3),
        "lora_unet_conv_in.lora_up.weight": (320, 4, 1, 1),
    }
    assert outline(header(state), own, spec("sd15"), name="x").parts == {"unet": 1}
    assert outline(header(state), layers("sd15"), spec("sd15"), name="x").parts == {"unet": 1}
    state["lora_unet_conv_in.lora_down.weight"] = (4, 9, 3, 3)
    with pytest.raises(RecipeError, match=r"conv_in of the UNet as a matrix of \(320, 81\)"):
        told(state)


def test_bundled_words_are_heard_where_their_widths_fit() -> None:
    lora = low(Q, 1280, 1280)
    one: Shapes = {
        "bundle_emb.cat.string_to_param.*": (2, 768),
        "bundle_emb.dog.clip_l": (768,),
        "bundle_emb.cow.string_to_param.*": (1, 1024),
    }
    found = told(lora | one)
    assert found.words == {"cat": ("bundle_emb.cat.string_to_param.*",), "dog": ("bundle_emb.dog.clip_l",)}
    assert found.warnings == (
        '"style": the word "cow" bundled with it has vectors of width 1024, this base hears 768: it is not heard',
    )
    xl = "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn1_to_q"
    two: Shapes = {"bundle_emb.cat.clip_l": (2, 768), "bundle_emb.cat.clip_g": (2, 1280), "bundle_emb.cat.clip_l_out": (2, 768), "bundle_emb.cat.clip_g_out": (2, 1280),
                   "bundle_emb.dog.clip_l": (2, 768)}  # fmt: skip
    found = told(low(xl, 1280, 1280) | two, "sdxl")
    assert found.words == {"cat": ("bundle_emb.cat.clip_l", "bundle_emb.cat.clip_g")}
    assert "this base hears 768 and 1280: it is not heard" in found.warnings[0]
    nameless = told(lora | {"bundle_emb..clip_l": (1, 768)})
    assert not nameless.words and nameless.warnings == ('"style": a bundled word has no name: it is not heard',)
    assert "words are bundled with it: cat, dog" in identify(header(low(xl, 1280, 1280) | two)).notes


KEYS = sorted({k for n in ("LoRA kohya SD 1.5", "LoHa SD 1.5", "LoKr SD 1.5", "OFT of kohya", "IA3", "GLoRA", "full differences", "DoRA of peft") for k in list(made(n))[:8]})  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(KEYS), st.lists(st.integers(0, 9), max_size=5).map(tuple), min_size=1, max_size=12)
)
def test_any_shapes_are_an_outline_or_a_letter(state: Shapes) -> None:
    identify(header(state))
    try:
        told(state)
    except InfuseError as e:
        assert e.field == "conditions.1.model" and len(e.message) > 20


def test_an_outline_brings_no_torch() -> None:
    code = "import sys, infuse.weights.lora_outline; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "False"
    ]

"""Keys of LoRA files: each spelling of each program finds its module in a base of each family, and its parameter."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import lora_files
import pytest
from some import some
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import tiny
from infuse.network.spec import NetworkSpec
from infuse.weights.base_layers import base_layers, layers_of
from infuse.weights.layouts.lora_names import Layers, Names, grouped, original, split
from infuse.weights.source import Source

from . import full, ldm
from .test_base import checkpoint
from .zoo import unet

TEXTS = {"sd15": (full.VIT_L,), "sd21": (full.VIT_H,), "sdxl": (full.VIT_L, full.BIG_G)}
COUNTS = {"sd15": 391, "sd21": 391, "sdxl": 1050}
"""Modules of a UNet that have weights, norms too, as counted with diffusers."""


@cache
def layers(name: str) -> Layers:
    """Of a base at its full size, without its weights."""
    with full.numberless():
        models = [
            (CLIPTextModelWithProjection if "projection_dim" in c else CLIPTextModel)(CLIPTextConfig(**c))
            for c in TEXTS[name]
        ]
    return layers_of(unet(name), models)


def spec(name: str) -> NetworkSpec:
    return NetworkSpec.from_unet_config(name, unet(name).config)


@pytest.mark.parametrize("name", COUNTS)
def test_every_module_of_a_unet_is_found_by_both_of_its_names(name: str) -> None:
    own = layers(name)["unet"]
    theirs = original(own)
    names = Names(layers(name))
    assert len(own) == len(theirs) == len(set(theirs.values())) == COUNTS[name]
    flat = [{p.replace(".", "_") for p in ps} for ps in (own, theirs.values())]
    assert len(flat[0]) == len(flat[1]) == COUNTS[name] and not flat[0] & flat[1]
    for path in own:
        for said in (path, theirs[path]):
            for module in (f"lora_unet_{said.replace('.', '_')}", f"lycoris_{said.replace('.', '_')}", f"oft_unet_{said.replace('.', '_')}",
                           f"unet.{said}", said, f"base_model.model.{said}", f"unet.base_model.model.{said}", f"base_model.model.unet.{said}",
                           f"diffusion_model.{said}", f"model.diffusion_model.{said}", f"unet/base_model.model.{said}"):  # fmt: skip
                assert names.place(module) == ("unet", path), module


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_original_names_are_those_of_whom_writes_checkpoints(name: str) -> None:
    """`ldm` writes checkpoints from modules, and knows nothing of names."""
    state = {k.removesuffix(".weight") for k in ldm.ldm_unet(unet(name)) if k.endswith(".weight")}
    assert set(original(layers(name)["unet"]).values()) == state
    small = ldm.tiny_unet("sdxl" if name == "sdxl" else "sd1")
    assert original(layers_of(small, ())["unet"]) == lora_files.originals(small)


MODULE = "text_model.encoder.layers.1.self_attn.q_proj"
TEXT_NAMES = {
    "sd15": {"lora_te_": "text_encoder", "lora_te1_": "text_encoder", "text_encoder.": "text_encoder",
             "text_encoders.clip_l.transformer.": "text_encoder", "clip_l.": "text_encoder", "text_encoder.base_model.model.": "text_encoder",
             "base_model.model.": "text_encoder", "lycoris_": "text_encoder"},
    "sd21": {"lora_te_": "text_encoder", "text_encoders.clip_h.transformer.": "text_encoder", "text_encoder.": "text_encoder"},
    "sdxl": {"lora_te1_": "text_encoder", "lora_te2_": "text_encoder_2", "text_encoder.": "text_encoder",
             "text_encoder_2.": "text_encoder_2", "text_encoders.clip_l.transformer.": "text_encoder",
             "text_encoders.clip_g.transformer.": "text_encoder_2", "clip_l.": "text_encoder", "clip_g.": "text_encoder_2"},
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_text_encoders_are_found_with_and_without_their_outer_name(name: str) -> None:
    """transformers dropped `text_model.` from one class and kept it in the other; files have it, or not."""
    names = Names(layers(name))
    for prefix, part in TEXT_NAMES[name].items():
        for module in (MODULE, MODULE.removeprefix("text_model.")):
            said = prefix + (module.replace(".", "_") if prefix.endswith("_") else module)
            place = names.place(said)
            assert place is not None, said
            assert (
                place[0] == part
                and place[1] in layers(name)[part]
                and place[1].endswith(MODULE.removeprefix("text_model."))
            ), said


def test_open_clip_names_and_projections_of_the_second_encoder() -> None:
    names = Names(layers("sdxl"))
    at = "text_model.encoder.layers.31"
    assert names.place("lora_te2_transformer_resblocks_31_mlp_c_fc") == ("text_encoder_2", f"{at}.mlp.fc1")
    assert names.place("lora_te2_transformer_resblocks_31_attn_out_proj") == (
        "text_encoder_2",
        f"{at}.self_attn.out_proj",
    )
    assert names.place("lora_te2_text_projection") == ("text_encoder_2", "text_projection")
    assert names.place("lora_te3_encoder_block_0") is None and names.place("text_encoder_3.encoder.block.0") is None
    assert names.place("lora_te2_text_model_encoder_layers_32_mlp_fc1") is None


TO_K, FF, Q = (
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k",
    "mid_block_attentions_0_transformer_blocks_0_ff_net_2",
    f"text_encoder.{MODULE}",
)
SPELLED = {
    f"lora_unet_{FF}.lora_down.weight": (f"lora_unet_{FF}", "lora_down.weight"),
    f"lora_unet_{FF}.lora_mid.weight": (f"lora_unet_{FF}", "lora_mid.weight"),
    f"lora_unet_{FF}.alpha": (f"lora_unet_{FF}", "alpha"),
    f"lycoris_{FF}.hada_w1_a": (f"lycoris_{FF}", "hada_w1_a"),
    f"lycoris_{FF}.lokr_w2_b": (f"lycoris_{FF}", "lokr_w2_b"),
    f"oft_unet_{FF}.oft_blocks": (f"oft_unet_{FF}", "oft_blocks"),
    f"lora_unet_{FF}.oft_R.weight": (f"lora_unet_{FF}", "oft_R.weight"),
    f"lora_unet_{FF}.dora_scale": (f"lora_unet_{FF}", "dora_scale"),
    f"lora_unet_{FF}.a1.weight": (f"lora_unet_{FF}", "a1.weight"),
    f"lora_unet_{FF}.on_input": (f"lora_unet_{FF}", "on_input"),
    f"lora_unet_{FF}.weight": (f"lora_unet_{FF}", "weight"),
    f"{TO_K}.lora_A.weight": (TO_K, "lora_down.weight"),
    f"{TO_K}.lora_B.default.weight": (TO_K, "lora_up.weight"),
    f"{TO_K}.lora_A.default_0.weight": (TO_K, "lora_down.weight"),
    f"{TO_K}.lora_A": (TO_K, "lora_down.weight"),
    f"{TO_K}.lora_up": (TO_K, "lora_up.weight"),
    f"{TO_K}.lora_B.bias": (TO_K, "lora_up.bias"),
    f"{TO_K}.lora_magnitude_vector": (TO_K, "lora_magnitude_vector.weight"),
    f"{TO_K}.lora_magnitude_vector.default.weight": (TO_K, "lora_magnitude_vector.weight"),
    f"{TO_K}.lora.down.weight": (TO_K, "lora_down.weight"),
    f"{TO_K}.lora.up.weight": (TO_K, "lora_up.weight"),
    f"{TO_K}.diff_b": (TO_K, "diff_b"),
    f"{Q}.lora_linear_layer.up.weight": (Q, "lora_up.weight"),
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight":
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k", "lora_down.weight"),
    "text_encoder.text_model.encoder.layers.1.self_attn.to_q_lora.up.weight":
        ("text_encoder.text_model.encoder.layers.1.self_attn.to_q", "lora_up.weight"),
    f"{TO_K}.bias": None, "first_stage_model.encoder.conv_in.running_mean": None,
}  # fmt: skip


@pytest.mark.parametrize("key", SPELLED)
def test_a_parameter_has_one_name_however_it_is_spelled(key: str) -> None:
    found = split(key)
    assert found == SPELLED[key]
    if found and "net_2" not in key:
        place = Names(layers("sd15")).place(found[0])
        assert place in [
            ("unet", TO_K.removeprefix("unet.")),
            ("text_encoder", MODULE.removeprefix("text_model.")),
            ("text_encoder", MODULE),
        ]


def test_to_out_is_the_first_of_two() -> None:
    names, at = Names(layers("sd15")), "mid_block.attentions.0.transformer_blocks.0.attn1"
    for module in (
        f"unet.{at}.processor.to_out",
        f"{at}.to_out",
        f"unet.{at}.to_out.0",
        f"lora_unet_{at.replace('.', '_')}_to_out_0",
    ):
        assert names.place(module) == ("unet", f"{at}.to_out.0")
    place = names.place("text_encoder.text_model.encoder.layers.1.self_attn.to_out")
    assert place is not None and place[1].endswith("layers.1.self_attn.out_proj")


def test_keys_are_grouped_one_by_one_whatever_the_others_are() -> None:
    """Two spellings in one file, words, what trainers leave, whole weights of a network: each key for itself."""
    found = grouped([
        "lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight", "unet.conv_out.lora_A.weight", "unet.conv_out.lora_B.weight",
        "bundle_emb.cat.string_to_param.*", "bundle_emb.dog.clip_l", "_aux.hash", "lora_te_x.dropout", "lora_unet_conv_in.rank_dropout",
        "lora_unet_conv_norm_out.weight", "lora_unet_conv_norm_out.on_input", "unet.conv_in.weight", "betas",
    ])  # fmt: skip
    assert {k: set(v) for k, v in found.modules.items()} == {
        "lora_unet_conv_in": {"lora_down.weight", "lora_up.weight"},
        "unet.conv_out": {"lora_down.weight", "lora_up.weight"},
        "lora_unet_conv_norm_out": {"weight", "on_input"},
    }
    assert found.words == {
        "cat": {"string_to_param.*": "bundle_emb.cat.string_to_param.*"},
        "dog": {"clip_l": "bundle_emb.dog.clip_l"},
    }
    assert sorted(found.strange) == ["betas", "unet.conv_in.weight"]


def bare(found: Layers) -> dict[str, dict[str, Any]]:
    return {
        part: {path.removeprefix("text_model."): shape for path, shape in paths.items()}
        for part, paths in found.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kin", some(["sd1", "sd2", "sdxl"], quick=["sd2", "sdxl"]))
def test_a_checkpoints_header_has_the_layers_of_the_loaded_base(kin: str, tmp_path: Path) -> None:
    state, made = checkpoint(kin)
    source = Source("m", ldm.save(tmp_path / "model.safetensors", state))
    assert bare(base_layers(source)) == bare(layers_of(made["unet"], made["texts"]))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_folders_header_has_the_layers_of_the_loaded_base(family: str, tmp_path: Path) -> None:
    import disk

    parts = tiny.base(family).parts
    texts = [parts[p] for p in ("text_encoder", "text_encoder_2") if p in parts]
    source = Source("m", disk.base(tmp_path / "m", family, image_encoder=False))
    assert bare(base_layers(source)) == bare(layers_of(parts["unet"], texts))

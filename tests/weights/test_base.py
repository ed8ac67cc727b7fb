"""A network written in the original layout and loaded back is the network it was: the same config, the same numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from some import some
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from infuse.errors import WeightsError
from infuse.network.spec import NetworkSpec
from infuse.weights.base import BaseParts, load_base
from infuse.weights.outline import outline
from infuse.weights.source import Source
from infuse.weights.tokenizer import clip_tokenizer, vocabulary

from . import ldm


def checkpoint(
    kin: str, channels: int = 4, *, extra: ldm.State | None = None, **config: Any
) -> tuple[ldm.State, dict[str, Any]]:
    """A whole original checkpoint, and the modules it was written from."""
    unet, vae = ldm.tiny_unet(kin, channels, **config), ldm.tiny_vae()
    state = ldm.prefixed("model.diffusion_model.", ldm.ldm_unet(unet))
    state |= ldm.prefixed("first_stage_model.", ldm.ldm_vae(vae))
    if kin == "sd1":
        texts = [ldm.tiny_text(48, "quick_gelu")]
        state |= ldm.prefixed("cond_stage_model.transformer.", ldm.hf_text(texts[0]))
        state["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    elif kin == "sd2":
        texts = [ldm.tiny_text(64, "gelu")]
        state |= ldm.prefixed("cond_stage_model.model.", ldm.open_clip_text(texts[0], spare_layer=True))
    else:
        texts = [ldm.tiny_text(48, "quick_gelu"), ldm.tiny_text(64, "gelu", projection=32)]
        state |= ldm.prefixed("conditioner.embedders.0.transformer.", ldm.hf_text(texts[0]))
        state |= ldm.prefixed("conditioner.embedders.1.model.", ldm.open_clip_text(texts[1], spare_layer=False))
    return state | (extra or {}), {"unet": unet, "vae": vae, "texts": texts}


def same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def outlined(parts: BaseParts) -> None:
    """What headers tell is what loading finds."""
    told = outline(parts.source)
    assert replace(told.spec, config={}) == replace(parts.spec, config={})
    assert told.scheduler_config == parts.scheduler_config
    assert (told.vision_config is None) == (parts.image_encoder is None)


@pytest.mark.parametrize("kin", some(["sd1", "sd2", "sdxl"], quick=["sdxl"]))
def test_round_trip(kin: str, tmp_path: Path) -> None:
    state, made = checkpoint(kin, extra={"betas": torch.zeros(10)})
    parts = load_base(ldm.save(tmp_path / "model.safetensors", state))
    same(parts.unet, made["unet"])
    same(parts.vae, made["vae"])
    for got, want in zip(parts.text_encoders, made["texts"], strict=True):
        same(got, want)
    assert not parts.notes
    x, t, context = (
        torch.randn(1, 4, 16, 16),
        torch.tensor([3]),
        torch.randn(1, 5, made["unet"].config.cross_attention_dim),
    )
    added = {"text_embeds": torch.randn(1, 32), "time_ids": torch.ones(1, 6)} if kin == "sdxl" else None
    with torch.no_grad():
        answers = [u(x, t, context, added_cond_kwargs=added).sample for u in (parts.unet, made["unet"])]
        images = [v.decode(x).sample for v in (parts.vae, made["vae"])]
        ids = parts.tokenizers[-1]("a photo of a cat", padding="max_length", return_tensors="pt").input_ids
        words = [m(ids).last_hidden_state for m in (parts.text_encoders[-1], made["texts"][-1])]
    for left, right in (answers, images, words):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)  # mapped memory is aligned differently
    assert parts.force_zeros_for_empty_prompt == (kin == "sdxl")
    assert parts.spec.embedding_slots == ({"text_embeds": 32, "time_ids": 6} if kin == "sdxl" else {})
    assert len(parts.digest) == 64
    outlined(parts)


CUT = [
    {"transformer_layers_per_block": [1, [2, 1]], "reverse_transformer_layers_per_block": [[1, 2, 3], 1], "mid_block_type": "UNetMidBlock2D"},
    {"transformer_layers_per_block": [1, 2], "reverse_transformer_layers_per_block": [1, 1], "mid_block_type": None},
    {"transformer_layers_per_block": [1, [2, 1]], "reverse_transformer_layers_per_block": [[1, 2, 1], 1]},
]  # fmt: skip
"""Of SSD-1B's kind: depths attention by attention, a decoder of its own depths, and a middle with and without attention."""


@pytest.mark.slow
@pytest.mark.parametrize("form", some(range(len(CUT)), quick=[0]))
def test_a_cut_down_network_in_one_file_is_the_network_it_was(form: int, tmp_path: Path) -> None:
    state, made = checkpoint("sdxl", **CUT[form])
    parts = load_base(ldm.save(tmp_path / "model.safetensors", state))
    same(parts.unet, made["unet"])
    assert parts.spec.cross_layers == NetworkSpec.from_unet_config("", made["unet"].config).cross_layers
    outlined(parts)


@pytest.mark.slow
@pytest.mark.parametrize("kin", ["sd1", "sd2", "sdxl"])
def test_our_key_map_agrees_with_diffusers_own(kin: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    state, made = checkpoint(kin)
    unet = convert_ldm_unet_checkpoint(dict(state), dict(made["unet"].config))
    assert unet.keys() == made["unet"].state_dict().keys()
    assert all(torch.equal(unet[k], v) for k, v in made["unet"].state_dict().items())
    vae = convert_ldm_vae_checkpoint(dict(state), dict(made["vae"].config))
    assert all(torch.equal(vae[k], v) for k, v in made["vae"].state_dict().items())


@pytest.mark.slow
def test_our_open_clip_map_agrees_with_diffusers_own() -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    state, made = checkpoint("sdxl")
    theirs = convert_open_clip_checkpoint(made["texts"][1], dict(state), prefix="conditioner.embedders.1.model.")
    want = made["texts"][1].state_dict()
    assert theirs.keys() == want.keys() and all(torch.equal(theirs[k], want[k]) for k in want if "self_attn" not in k)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "slots"),
    some([(5, ["depth"]), (8, ["image"]), (9, ["mask", "masked_image"])], quick=[(9, ["mask", "masked_image"])]),
)
def test_extra_input_channels_become_slots(channels: int, slots: list[str], tmp_path: Path) -> None:
    state, _ = checkpoint("sd1", channels)
    parts = load_base(ldm.save(tmp_path / "model.safetensors", state))
    assert [s.name for s in parts.spec.channel_slots] == slots


@pytest.mark.slow
def test_half_precision_files_load_in_the_dtype_asked_for(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    path = ldm.save(
        tmp_path / "model.safetensors", {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    )
    wide, narrow = load_base(path), load_base(path, dtype=torch.bfloat16)
    assert {p.dtype for p in wide.unet.parameters()} == {torch.float32}
    assert {p.dtype for p in narrow.text_encoders[0].parameters()} == {torch.bfloat16}
    assert torch.allclose(wide.unet.conv_in.weight, made["unet"].conv_in.weight, atol=1e-4)


@pytest.mark.slow
def test_sdxl_vae_stays_in_float32_where_half_would_overflow(tmp_path: Path) -> None:
    parts = load_base(ldm.save(tmp_path / "model.safetensors", checkpoint("sdxl")[0]), dtype=torch.float16)
    assert parts.unet.dtype == torch.float16 and parts.vae.dtype == torch.float32
    assert parts.vae.config["scaling_factor"] == 0.13025


@pytest.mark.slow
def test_a_pickle_of_the_same_tensors_is_the_same_model(tmp_path: Path) -> None:
    state, made = checkpoint("sd1")
    torch.save({"global_step": 7, "state_dict": state}, tmp_path / "model.ckpt")
    same(load_base(tmp_path / "model.ckpt").unet, made["unet"])


@pytest.mark.slow
def test_missing_tensors_and_foreign_ones_are_named(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1", extra={"somebody.elses": torch.zeros(2)})
    assert "somebody.elses" in load_base(ldm.save(tmp_path / "a.safetensors", state)).notes[0]
    del state["model.diffusion_model.middle_block.1.norm.weight"]
    with pytest.raises(WeightsError, match=r"incomplete: 1 of .*mid_block.attentions.0.norm.weight"):
        load_base(ldm.save(tmp_path / "b.safetensors", state))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "says"), [("first_stage_model.", "no VAE inside"), ("cond_stage_model.", "no text encoder")]
)
def test_a_checkpoint_without_a_part_says_which_and_what_to_do(start: str, says: str, tmp_path: Path) -> None:
    state, _ = checkpoint("sd1")
    path = ldm.save(tmp_path / "a.safetensors", {k: v for k, v in state.items() if not k.startswith(start)})
    with pytest.raises(WeightsError, match=says):
        load_base(path)


@pytest.mark.slow
def test_prediction_can_be_overridden_and_markers_are_heard(tmp_path: Path) -> None:
    state, _ = checkpoint("sd1")
    path = ldm.save(tmp_path / "a.safetensors", state)
    assert load_base(path).scheduler_config["prediction_type"] == "epsilon"
    assert load_base(path, prediction="v_prediction").spec.prediction == "v_prediction"
    marked = ldm.save(tmp_path / "b.safetensors", state | {"v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)})
    config = load_base(marked).scheduler_config
    assert config["prediction_type"] == "v_prediction" and config["rescale_betas_zero_snr"]


@pytest.mark.slow
@pytest.mark.parametrize("predicts", some(["epsilon", "v_prediction"], quick=["epsilon"]))
def test_what_sd2_predicts_is_measured_when_nothing_says(predicts: str, tmp_path: Path) -> None:
    state, _ = checkpoint("sd2", cross_attention_dim=1024)
    if (
        predicts == "epsilon"
    ):  # a network that hands its input on: the first convolution copies, the residuals are silent
        state = {k: v * 0 if ".out_layers.3." in k or ".proj_out." in k else v for k, v in state.items()}
        for conv in ("input_blocks.0.0", "out.2", "input_blocks.3.0.op"):
            weight = torch.zeros_like(state[f"model.diffusion_model.{conv}.weight"])
            for i in range(min(weight.shape[:2])):
                weight[i, i, 1, 1] = 1
            state[f"model.diffusion_model.{conv}.weight"] = weight
        state["model.diffusion_model.out.0.weight"] = torch.ones(64)
        state["model.diffusion_model.output_blocks.5.0.skip_connection.weight"] = torch.eye(64, 128).roll(64, 1)[
            :, :, None, None
        ]
    parts = load_base(ldm.save(tmp_path / "m.safetensors", state))
    assert parts.spec.prediction == parts.scheduler_config["prediction_type"] == predicts
    assert "measured" in parts.notes[-1] and "assumed" not in str(parts.notes)


def folder(root: Path, made: dict) -> Path:
    made["unet"].save_pretrained(root / "unet")
    made["vae"].save_pretrained(root / "vae")
    made["texts"][0].save_pretrained(root / "text_encoder")
    if "eye" in made:
        made["eye"].save_pretrained(root / "image_encoder")
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    (root / "model_index.json").write_text(
        '{"infuse_family": "tabletop", "unet": ["diffusers", "UNet2DConditionModel"]}'
    )
    return root


@pytest.mark.slow
def test_a_diffusers_folder_gives_the_same_record(tmp_path: Path) -> None:
    _, made = checkpoint("sd1")
    made["eye"] = ldm.random(CLIPVisionModelWithProjection(CLIPVisionConfig(hidden_size=32, intermediate_size=64, image_size=28,
                             num_hidden_layers=2, num_attention_heads=2, patch_size=14, projection_dim=16)))  # fmt: skip
    parts = load_base(folder(tmp_path / "m", made))
    outlined(parts)
    same(parts.image_encoder, made["eye"])
    assert parts.feature_extractor.crop_size["height"] == 28
    same(parts.unet, made["unet"])
    same(parts.text_encoders[0], made["texts"][0])
    assert parts.spec.prediction == "v_prediction" and parts.spec.family == "tabletop"
    assert parts.tokenizers[0].pad_token_id == 49407


@pytest.mark.slow
def test_a_folder_as_the_hub_has_had_it_since_2022(tmp_path: Path) -> None:
    """Old attention names in the VAE, `text_model.` and position ids in the text encoder, vocab.json and merges.txt."""
    _, made = checkpoint("sd1")
    root = folder(tmp_path / "m", made)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    vae = made["vae"].state_dict()
    for new, name in old.items():
        vae = {k.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for k, v in vae.items()}
    ldm.save(root / "vae" / "diffusion_pytorch_model.safetensors", vae)
    text = ldm.hf_text(made["texts"][0]) | {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    ldm.save(root / "text_encoder" / "model.safetensors", text)
    vocab, merges = vocabulary()
    (root / "tokenizer").mkdir()
    (root / "tokenizer" / "vocab.json").write_text(json.dumps(vocab))
    (root / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    said = {
        "model_max_length": 77,
        "tokenizer_class": "CLIPTokenizer",
        "pad_token": "<|endoftext|>",
        "do_lower_case": True,
    }
    (root / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(said))
    parts = load_base(root)
    same(parts.vae, made["vae"])
    same(parts.text_encoders[0], made["texts"][0])
    got = parts.tokenizers[0]("a photo of a cat", padding="max_length").input_ids
    assert got == clip_tokenizer()("a photo of a cat", padding="max_length").input_ids


def test_a_pipeline_of_another_family_is_named(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(WeightsError, match="is a FluxPipeline"):
        load_base(tmp_path)


@pytest.mark.slow
def test_a_folder_may_leave_components_to_another(tmp_path: Path) -> None:
    _, made = checkpoint("sd1")
    whole = Source("base", folder(tmp_path / "base", made))
    ldm.tiny_unet("sd1", 9).save_pretrained(tmp_path / "inpaint" / "unet")
    parts = load_base(Source("inpaint", tmp_path / "inpaint", fallback=whole))
    assert parts.spec.in_channels == 9 and parts.spec.prediction == "v_prediction"
    same(parts.vae, made["vae"])


@pytest.mark.slow
def test_a_folder_with_a_cut_file_is_refused(tmp_path: Path) -> None:
    _, made = checkpoint("sd1")
    root = folder(tmp_path / "m", made)
    weights = root / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="cut short"):
        load_base(root)

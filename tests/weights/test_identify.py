"""Full-size headers of every public form are told apart, by shapes alone."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from some import in_turn

from infuse.errors import RecipeError, WeightsError
from infuse.weights.estimate import estimate
from infuse.weights.identify import identify
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.layouts import ldm_configs, ldm_keys

from . import full, ldm

BASES = {
    "sd15": ("sd1", "", 4, "epsilon"), "sd15-inpaint": ("sd1", "inpaint", 9, "epsilon"),
    "pix2pix": ("sd1", "pix2pix", 8, "epsilon"), "sd21": ("sd2", "", 4, "v_prediction"),
    "sd2-inpaint": ("sd2", "inpaint", 9, "epsilon"), "sd2-depth": ("sd2", "depth", 5, "epsilon"),
    "unclip": ("sd2", "unclip", 4, "v_prediction"), "upscaler": ("sd2", "upscaler", 7, "v_prediction"),
    "sdxl": ("sdxl", "", 4, "epsilon"), "sdxl-inpaint": ("sdxl", "inpaint", 9, "epsilon"),
    "refiner": ("width 1280", "refiner", 4, "epsilon"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", BASES)
def test_bases(name: str) -> None:
    found = identify(full.header(full.checkpoint(name)))
    assert (found.kind, found.layout) == ("base", "ldm")
    assert (found.family, found.variant, found.in_channels, found.prediction) == BASES[name]
    assert found.evidence == ("assumed" if name == "sd21" else "family")
    assert bool(found.notes) == (name in ("sd21", "unclip"))
    bare = identify(full.header(full.unet(name).state_dict()))
    assert (bare.kind, bare.layout, bare.family, bare.variant if name != "refiner" else "refiner") == (
        "unet", "diffusers", found.family, found.variant)  # fmt: skip


@pytest.mark.parametrize("name", [n for n in BASES if n != "refiner"])
def test_configs_read_off_tensors_are_the_published_ones(name: str) -> None:
    stored = full.header(full.checkpoint(name)).shapes("model.diffusion_model.")
    vector = "class_embedding" if name == "unclip" else "add_embedding"
    shapes = {new: stored[old] for old, new in ldm_keys.trunk(stored, vector).items()}
    assert shapes == {k: tuple(v.shape) for k, v in full.unet(name).state_dict().items()}
    ours, theirs = ldm_configs.unet(shapes), full.CONFIGS[name]
    for key, value in ours.items():
        want = full.unet(name).config[key]
        if key in ("transformer_layers_per_block", "attention_head_dim", "only_cross_attention", "sample_size"):
            continue
        assert (list(value) if isinstance(value, list) else value) == (
            list(want) if isinstance(want, tuple) else want
        ), key
    heads = theirs["attention_head_dim"]
    assert ours["attention_head_dim"] == (list(heads) if isinstance(heads, tuple) else heads)
    assert ours["transformer_layers_per_block"] == ([1, 2, 10] if "sdxl" in name else 1)


@pytest.mark.parametrize(("metadata", "says"), [
    ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
    ({"modelspec.prediction_type": "epsilon"}, "epsilon"), ({"modelspec.prediction_type": "v"}, "v_prediction"),
    ({"ss_v_parameterization": "False"}, "epsilon"), ({"ss_v_parameterization": "True"}, "v_prediction"),
])  # fmt: skip
def test_metadata_tells_what_sd2_predicts(metadata: dict[str, str], says: str) -> None:
    header = full.header(full.checkpoint("sd21"), **metadata)
    assert identify(header).prediction == says and not identify(header).notes
    assert identify(header, prediction="sample").prediction == "sample"


def test_marker_keys_beat_metadata() -> None:
    state = {**full.checkpoint("sdxl"), "v_pred": (0,), "ztsnr": (0,)}
    found = identify(full.header(state, **{"modelspec.prediction_type": "epsilon"}))
    assert found.prediction == "v_prediction" and "zero terminal SNR" in found.notes[0]


CONTROLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("sd15", {}, {"family": "sd1", "hint_channels": 3, "variant": "full"}),
    ("sd15", {"conditioning_channels": 4}, {"hint_channels": 4}),
    ("sd21", {}, {"family": "sd2"}),
    ("sdxl", {}, {"family": "sdxl", "variant": "full"}),
    ("sdxl", {"down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"), "transformer_layers_per_block": 1},
     {"family": "sdxl", "variant": "mid"}),
    ("sdxl", {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"},
     {"family": "sdxl", "variant": "small"}),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "prefix"),
    in_turn(range(len(CONTROLS)), ["", "control_model.", "module.", "module.control_model."]),
)
def test_controlnets(number: int, prefix: str) -> None:
    name, more, want = CONTROLS[number]
    net = full.controlnet(name, **more)
    for layout, state in (("diffusers", net.state_dict()), ("ldm", ldm.ldm_controlnet(net))):
        found = identify(full.header(ldm.prefixed(prefix, state)))
        assert (found.kind, found.layout, found.prefix) == ("controlnet", layout, prefix)
        assert {k: getattr(found, k) for k in want} == want
    stored = full.header(ldm.ldm_controlnet(net)).shapes()
    shapes = {new: stored[old] for old, new in ldm_keys.controlnet(stored).items()}
    assert shapes == {k: tuple(v.shape) for k, v in net.state_dict().items()}
    config = ldm_configs.controlnet(shapes)
    assert config["conditioning_embedding_out_channels"] == [16, 32, 96, 256]
    assert config["cross_attention_dim"] == net.config["cross_attention_dim"]


def test_a_full_controlnet_checkpoint_is_the_controlnet_and_difference_is_marked() -> None:
    state = {**full.checkpoint("sd15"), **ldm.prefixed("control_model.", ldm.ldm_controlnet(full.controlnet("sd15")))}
    assert identify(full.header(state)).prefix == "control_model."
    bare = {**ldm.ldm_controlnet(full.controlnet("sd15")), "difference": (1,)}
    assert identify(full.header(bare)).variant == "difference"
    assert identify(full.header({**bare, "lora_controlnet": (0,)})).kind == "control_lora"


RESAMPLER = {"latents": (1, 16, 768), "proj_in.weight": (768, 1280), "proj_out.weight": (768, 768)}
IP = {
    "ip-adapter_sd15": (768, {"proj.weight": (3072, 1024)}, ("plain", 4, 1024)),
    "ip-adapter_sd15_vit-G": (768, {"proj.weight": (3072, 1280)}, ("plain", 4, 1280)),
    "ip-adapter-plus_sd15": (768, RESAMPLER, ("plus", 16, 1280)),
    "ip-adapter-full-face_sd15": (768, {"proj.0.weight": (1280, 1280), "proj.2.weight": (768, 1280), "proj.3.weight": (768,)},
                                  ("full", 257, 1280)),
    "ip-adapter_sdxl": (2048, {"proj.weight": (8192, 1280)}, ("plain", 4, 1280)),
    "ip-adapter_sdxl_vit-h": (2048, {"proj.weight": (8192, 1024)}, ("plain", 4, 1024)),
    "ip-adapter-plus_sdxl_vit-h": (2048, {"latents": (1, 16, 1280), "proj_in.weight": (1280, 1280)}, ("plus", 16, 1280)),
    "ip-adapter-faceid_sd15": (768, {"proj.0.weight": (1024, 512), "proj.2.weight": (3072, 1024), "norm.weight": (768,)},
                               ("faceid", 4, 512)),
    "ip-adapter-faceid-portrait_sd15": (768, {"proj.0.weight": (1024, 512), "proj.2.weight": (12288, 1024),
                                              "norm.weight": (768,)}, ("faceid", 16, 512)),
    "ip-adapter-faceid-plus_sd15": (768, {"proj.0.weight": (1024, 512), "proj.2.weight": (3072, 1024), "norm.weight": (768,),
                                          "perceiver_resampler.proj_in.weight": (768, 1280)}, ("faceid_plus", 4, 1280)),
    "instantid": (2048, {"latents": (1, 16, 1280), "proj_in.weight": (1280, 512)}, ("instantid", 16, 512)),
}  # fmt: skip


@pytest.mark.parametrize("name", IP)
def test_ip_adapters(name: str) -> None:
    context, proj, want = IP[name]
    layers = 70 if context == 2048 else 16
    found = identify(full.header(full.ip_adapter(context, proj, layers)))
    assert (found.kind, found.context_width, found.cross_layers) == ("ip_adapter", context, layers)
    assert (found.variant, found.tokens, found.encoder_width) == want


OTHERS: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "T2I sd1": ({"conv_in.weight": (320, 192, 3, 3), "body.0.block1.weight": (320, 320, 3, 3)},
                {"kind": "t2i_adapter", "variant": "full", "family": "sd1", "hint_channels": 3}),
    "T2I sd1 sketch": ({"conv_in.weight": (320, 64, 3, 3), "body.0.block1.weight": (320, 320, 3, 3)}, {"hint_channels": 1}),
    "T2I sdxl": ({"adapter.conv_in.weight": (320, 768, 3, 3), "adapter.body.0.resnets.0.block1.weight": (320, 320, 3, 3)},
                 {"kind": "t2i_adapter", "layout": "diffusers", "family": "sdxl", "hint_channels": 3}),
    "T2I light": ({"body.0.in_conv.weight": (80, 192, 1, 1), "body.0.body.0.block1.weight": (80, 80, 3, 3)},
                  {"kind": "t2i_adapter", "variant": "light", "hint_channels": 3}),
    "style": ({"style_embedding": (1, 8, 1024), "proj": (1024, 768)}, {"kind": "t2i_style", "family": "sd1"}),
    "LoRA kohya sd1": ({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768),
                        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (320, 8)},
                       {"kind": "lora", "layout": "kohya", "family": "sd1", "rank": 8}),
    "LoRA peft sdxl": ({"unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight": (16, 2048)},
                       {"kind": "lora", "layout": "peft", "family": "sdxl", "rank": 16}),
    "TI sd1": ({"emb_params": (4, 768)}, {"kind": "textual_inversion", "family": "sd1", "tokens": 4}),
    "TI token": ({"<cat-toy>": (1024,)}, {"kind": "textual_inversion", "family": "sd2", "tokens": 1}),
    "TI sdxl": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, {"kind": "textual_inversion", "family": "sdxl", "tokens": 2}),
    "FLUX": ({"double_blocks.0.img_attn.norm.key_norm.scale": (128,)}, {"kind": "foreign"}),
    "image encoder": ({"vision_model.embeddings.class_embedding": (1280,)}, {"kind": "image_encoder"}),
    "nothing known": ({"a": (1,), "b": (2,)}, {"kind": "unknown", "family": ""}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_kinds(name: str) -> None:
    state, want = OTHERS[name]
    found = identify(full.header(state))
    assert {k: getattr(found, k) for k in want} == want, asdict(found)


def test_a_vae_alone_in_both_layouts() -> None:
    state = {k.removeprefix("first_stage_model."): v for k, v in full.checkpoint("sd15").items() if "first_stage" in k}
    assert identify(full.header(state)).kind == "vae"
    assert identify(full.header({"vae." + k: v for k, v in state.items()})).kind == "vae"


def test_letters_name_both_families() -> None:
    edges = Identity("controlnet", context_width=2048)
    letter = wrong_kind("conditions.1.model", edges, "controlnet", name="canny", base=768)
    assert isinstance(letter, RecipeError)
    assert str(letter).startswith(
        'conditions.1.model: "canny" was trained for SDXL (context width 2048), this recipe\'s base is'
    )
    other = wrong_kind("model", Identity("lora", context_width=768), "base", name="style")
    assert isinstance(other, WeightsError) and "is a LoRA for SD 1.x" in str(other)


def test_estimates_are_the_published_sizes() -> None:
    def parameters(name: str) -> float:
        header = full.header(full.checkpoint(name))
        return estimate(header, "bfloat16", identify(header)) / 2e6

    assert parameters("sd15") == pytest.approx(1066, rel=0.01)  # UNet 860 M, VAE 84 M, ViT-L 123 M
    assert parameters("sdxl") == pytest.approx(3469, rel=0.01)  # UNet 2567 M, VAE 84 M, ViT-L 123 M, bigG 695 M

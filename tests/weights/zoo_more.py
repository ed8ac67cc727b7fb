"""More of the zoo: LoRAs of every algebra and naming, parts on their own, motion modules, and files of other families."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import diffusers
from diffusers.models.unets.unet_motion_model import MotionAdapter
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
    T5Config,
    T5EncoderModel,
)

from . import full, ldm
from .zoo import Case, Shapes, made, original_motion, shapes, under, unet

CASES: dict[str, Case] = {}

# ── LoRAs ───────────────────────────────────────────────────────────────────────────────────────────────────────────

ATTENDED = re.compile(r"\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2)\.weight$")
RESNETS = re.compile(r"\.(conv1|conv2|conv_shortcut|time_emb_proj|conv)\.weight$")


@cache
def modules(name: str, layout: str = "diffusers", resnets: bool = False) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """(path, shape) of what kohya trains in a UNet: everything linear in its transformers, and the resnets for a LoCon."""
    state = shapes(ldm.ldm_unet(unet(name)) if layout == "ldm" else unet(name).state_dict())
    wanted = [ATTENDED] + [
        RESNETS,
        re.compile(r"\.(in_layers\.2|out_layers\.3|skip_connection|emb_layers\.1|op)\.weight$"),
    ] * resnets
    return tuple((k.removesuffix(".weight"), s) for k, s in state.items() if any(w.search(k) for w in wanted))


@cache
def words(width: int, layers: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The same of a text encoder."""
    sides = {
        **{f"self_attn.{p}_proj": (width, width) for p in ("q", "k", "v", "out")},
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    return tuple((f"text_model.encoder.layers.{n}.{k}", s) for n in range(layers) for k, s in sides.items())


def low(module: str, shape: tuple[int, ...], rank: int, down: str, up: str) -> Shapes:
    """The two halves of one module's difference."""
    ones = (1,) * len(shape[2:])
    return {f"{module}{down}": (rank, *shape[1:]), f"{module}{up}": (shape[0], rank, *ones)}


def flat(head: str, path: str) -> str:
    return f"{head}_{path.replace('.', '_')}"


def kohya(
    name: str,
    rank: int = 16,
    layout: str = "diffusers",
    resnets: bool = False,
    alpha: bool = True,
    text: bool = True,
    head: str = "lora_unet",
) -> Shapes:
    out: Shapes = {}
    for path, shape in modules(name, layout, resnets):
        out |= low(flat(head, path), shape, rank, ".lora_down.weight", ".lora_up.weight")
    towers = {
        "sd15": (("lora_te", 768, 12),),
        "sd21": (("lora_te", 1024, 23),),
        "sdxl": (("lora_te1", 768, 12), ("lora_te2", 1280, 32)),
    }
    for tower, width, layers in towers[name] if text else ():
        for path, shape in words(width, layers):
            out |= low(flat(tower, path), shape, rank, ".lora_down.weight", ".lora_up.weight")
    return out | {f"{k.partition('.')[0]}.alpha": () for k in out if alpha}


def dotted(
    name: str, head: str, down: str, up: str, layout: str = "diffusers", rank: int = 8, text: str = ""
) -> Shapes:
    out: Shapes = {}
    for path, shape in modules(name, layout):
        out |= low(head + path, shape, rank, down, up)
    for path, shape in words(768, 12) if text else ():
        out |= low(text + path, shape, rank, down, up)
    return out


def processors(name: str) -> Shapes:
    """diffusers' first: in the attention processors, without proj and feed-forward."""
    out: Shapes = {}
    for path, shape in modules(name):
        if m := re.fullmatch(r"(.*attn\d)\.(to_[qkv]|to_out)(\.0)?", path):
            out |= low(f"{m[1]}.processor.{m[2]}_lora", shape, 4, ".down.weight", ".up.weight")
    return out


def algebra(name: str, make: Any, layout: str = "diffusers", head: str = "lora_unet", resnets: bool = False) -> Shapes:
    out: Shapes = {}
    for path, shape in modules(name, layout, resnets):
        out |= {f"{flat(head, path)}.{k}": s for k, s in make(shape).items()}
    return out


def flatten(shape: tuple[int, ...]) -> tuple[int, int]:
    rest = 1
    for n in shape[1:]:
        rest *= n
    return shape[0], rest


def loha(shape: tuple[int, ...], r: int = 8) -> Shapes:
    o, i = flatten(shape)
    return {"hada_w1_a": (o, r), "hada_w1_b": (r, i), "hada_w2_a": (o, r), "hada_w2_b": (r, i), "alpha": ()}


def lokr(shape: tuple[int, ...], r: int = 0) -> Shapes:
    o, i = flatten(shape)
    second: Shapes = {"lokr_w2_a": (o // 8, r), "lokr_w2_b": (r, i // 8)} if r else {"lokr_w2": (o // 8, i // 8)}
    return {"lokr_w1": (8, 8), **second, "alpha": ()}


def dora(shape: tuple[int, ...], r: int = 8) -> Shapes:
    return {
        **{k[1:]: s for k, s in low("", shape, r, ".lora_down.weight", ".lora_up.weight").items()},
        "alpha": (),
        "dora_scale": (shape[0], 1),
    }


def numbered() -> Shapes:
    return {f"unet:{n}:{p}": (320, 4) if p == "up" else (4, 320) for n in range(64) for p in ("up", "down")}


def temporal(count: int = 21) -> Shapes:
    return {f"down_blocks.{b}.motion_modules.{m}.temporal_transformer.transformer_blocks.0.attention_blocks.{i}.processor.{p}_lora.{h}.weight": s
            for b in range(4) for m in range(2) for i in range(2) for p in ("to_q", "to_k", "to_v", "to_out")
            for h, s in (("down", (64, 320)), ("up", (320, 64)))}  # fmt: skip


LORA = {"kind": "lora"}
SD1, SD2, XL = ({"family": f} for f in ("sd1", "sd2", "sdxl"))
CASES |= {
    "LoRA kohya SD 1.5": Case(lambda: kohya("sd15"), {**LORA, **SD1, "layout": "kohya", "variant": "", "rank": 16}),
    "LoRA kohya SD 1.5 without alphas": Case(lambda: kohya("sd15", 4, alpha=False), {**LORA, **SD1, "variant": "", "rank": 4}),
    "LoRA kohya SD 1.5, UNet only": Case(lambda: kohya("sd15", 128, text=False), {**LORA, **SD1, "variant": "", "rank": 128}),
    "LoRA kohya SD 2": Case(lambda: kohya("sd21"), {**LORA, **SD2, "variant": ""}),
    "LoRA kohya SDXL": Case(lambda: kohya("sdxl", 32, "ldm"), {**LORA, **XL, "variant": "", "rank": 32}),
    "LoRA kohya SDXL, diffusers' paths": Case(lambda: kohya("sdxl", text=False), {**LORA, **XL, "variant": ""}),
    "LoRA of LyCORIS, by itself": Case(lambda: kohya("sd15", text=False, head="lycoris"), {**LORA, **SD1, "layout": "kohya"}),
    "LoRA with words bundled": Case(
        lambda: kohya("sdxl", 8, "ldm") | {"bundle_emb.cat.clip_l": (2, 768), "bundle_emb.cat.clip_g": (2, 1280)}, {**LORA, **XL}
    ),
    "LoRA of the text encoder only": Case(
        lambda: {k: s for k, s in kohya("sd21").items() if k.startswith("lora_te")}, {**LORA, **SD2, "variant": ""}
    ),
    "LoRA diffusers, processors": Case(lambda: processors("sd15"), {**LORA, **SD1, "layout": "diffusers", "variant": "", "rank": 4}),
    "LoRA diffusers, SDXL": Case(lambda: dotted("sdxl", "unet.", ".lora.down.weight", ".lora.up.weight"), {**LORA, **XL, "layout": "diffusers"}),
    "LoRA peft, SD 1.5": Case(
        lambda: dotted("sd15", "unet.", ".lora_A.weight", ".lora_B.weight", text="text_encoder."), {**LORA, **SD1, "layout": "peft", "rank": 8}
    ),
    "LoRA peft's own folder": Case(lambda: dotted("sd15", "base_model.model.", ".lora_A.weight", ".lora_B.weight"), {**LORA, **SD1, "layout": "peft"}),
    "LoRA peft with an adapter's name": Case(lambda: dotted("sdxl", "unet.", ".lora_A.default.weight", ".lora_B.default.weight"), {**LORA, **XL}),
    "LoRA ComfyUI's": Case(lambda: dotted("sdxl", "diffusion_model.", ".lora_A.weight", ".lora_B.weight", "ldm"), {**LORA, **XL, "layout": "comfy"}),
    "LoCon SD 1.5": Case(lambda: kohya("sd15", resnets=True), {**LORA, **SD1, "variant": "locon"}),
    "LoCon SDXL": Case(lambda: kohya("sdxl", 8, "ldm", resnets=True), {**LORA, **XL, "variant": "locon"}),
    "LoHa SD 1.5": Case(lambda: algebra("sd15", loha), {**LORA, **SD1, "variant": "loha", "rank": 8}),
    "LoHa SDXL": Case(lambda: algebra("sdxl", loha, "ldm"), {**LORA, **XL, "variant": "loha"}),
    "LoKr SD 1.5": Case(lambda: algebra("sd15", lambda s: lokr(s, 4)), {**LORA, **SD1, "variant": "lokr"}),
    "LoKr SDXL, whole factors": Case(lambda: algebra("sdxl", lokr, "ldm"), {**LORA, **XL, "variant": "lokr"}),
    "LoKr SD 2 of the stand-alone wrapper": Case(lambda: algebra("sd21", lokr, head="lycoris"), {**LORA, **SD2, "variant": "lokr"}),
    "DoRA SD 1.5": Case(lambda: algebra("sd15", dora), {**LORA, **SD1, "variant": "dora", "rank": 8}),
    "DoRA over LoHa": Case(lambda: algebra("sd15", lambda s: loha(s) | {"dora_scale": (s[0], 1)}), {**LORA, **SD1, "variant": "dora+loha"}),
    "DoRA of peft": Case(
        lambda: dotted("sdxl", "unet.", ".lora_A.weight", ".lora_B.weight") | {f"unet.{p}.lora_magnitude_vector": (s[0],) for p, s in modules("sdxl")},
        {**LORA, **XL, "variant": "dora"},
    ),
    "OFT of kohya": Case(lambda: algebra("sdxl", lambda s: {"oft_blocks": (4, s[0] // 4, s[0] // 4), "alpha": ()}, "ldm", "oft_unet"), {**LORA, **XL, "variant": "oft"}),
    "BOFT": Case(lambda: algebra("sdxl", lambda s: {"oft_blocks": (3, 4, s[0] // 4, s[0] // 4)}), {**LORA, **XL, "variant": "boft"}),
    "IA3": Case(lambda: algebra("sdxl", lambda s: {"weight": (s[0],), "on_input": ()}, "ldm"), {**LORA, **XL, "variant": "ia3"}),
    "GLoRA": Case(
        lambda: algebra("sd15", lambda s: {"a1.weight": (s[1], 4), "a2.weight": (4, s[1]), "b1.weight": (s[0], 4), "b2.weight": (4, s[1])}), {**LORA, "variant": "glora"}
    ),
    "full differences": Case(lambda: algebra("sd15", lambda s: {"diff": s, "diff_b": (s[0],)}), {**LORA, **SD1, "variant": "full"}),
    "LoHa and LoRA mixed": Case(lambda: kohya("sd15", text=False) | algebra("sd15", loha, head="lycoris"), {**LORA, **SD1, "variant": "loha+lora"}),
    "norms beside a LoRA": Case(lambda: kohya("sd15") | {"lora_unet_down_blocks_0_resnets_0_norm1.w_norm": (320,)}, {**LORA, **SD1, "variant": ""}),
    "LoRA with numbers for names": Case(numbered, {**LORA, "layout": "numbered", "rank": 4, "modules": 64}),
    "motion LoRA": Case(temporal, {**LORA, **SD1, "variant": "motion", "rank": 64}),
    "AnimateDiff v3's domain adapter": Case(lambda: processors("sd15"), {**LORA, **SD1}),
    "FaceID's LoRA by its adapter's numbers": Case(
        lambda: {f"{n}.{p}_lora.{h}.weight": (128, 320) if h == "down" else (320, 128) for n in range(32) for p in ("to_q", "to_k", "to_v", "to_out") for h in ("down", "up")},
        {**LORA, "variant": "faceid", "rank": 128},
    ),
    "FaceID's LoRA for webuis": Case(
        lambda: {k: s for k, s in kohya("sd15", 128, text=False, alpha=False).items() if "_attn" in k}, {**LORA, **SD1, "rank": 128}
    ),
}  # fmt: skip


def elsewhere(names: list[str], down: str = ".lora_A.weight", up: str = ".lora_B.weight") -> Shapes:
    return {f"{n}{h}": (16, 3072) if h == down else (3072, 16) for n in names for h in (down, up)}


KOHYA = (".lora_down.weight", ".lora_up.weight")
for what, names, ends in (
    ("FLUX", ["transformer.single_transformer_blocks.0.attn.to_q", "transformer.transformer_blocks.0.attn.to_k"], ()),
    ("FLUX or HunyuanVideo", ["lora_unet_double_blocks_0_img_attn_proj", "lora_unet_single_blocks_3_linear1"], KOHYA),
    ("SD3", ["transformer.transformer_blocks.0.attn.add_q_proj", "transformer.transformer_blocks.0.attn.to_q"], ()),
    ("SD3", ["lora_unet_joint_blocks_0_context_block_attn_qkv"], KOHYA),
    ("Wan", ["diffusion_model.blocks.0.self_attn.q", "diffusion_model.blocks.0.cross_attn.k"], ()),
    ("Wan", ["lora_unet_blocks_0_self_attn_o"], KOHYA),
    ("Qwen-Image", ["transformer.transformer_blocks.0.img_mod.1", "transformer.transformer_blocks.0.attn.add_q_proj"], ()),
    ("Z-Image or Lumina 2", ["diffusion_model.layers.0.attention.to_q", "diffusion_model.layers.0.feed_forward.w1"], ()),
    ("PixArt or LTX-Video", ["transformer.transformer_blocks.0.attn1.to_q", "transformer.transformer_blocks.0.attn2.to_k"], ()),
    ("FLUX or HunyuanVideo", ["lora_unet_double_blocks_0_img_attn_proj", "lora_te1_text_model_encoder_layers_0_mlp_fc1"], KOHYA),
):  # fmt: skip
    CASES[f"LoRA of {what}: {names[0]} {names[-1]}"] = Case(
        lambda names=names, ends=ends: elsewhere(list(names), *ends),
        {"kind": "foreign", "variant": f"a LoRA for {what}"},
    )

# ── parts on their own ──────────────────────────────────────────────────────────────────────────────────────────────


def vae(layout: str = "diffusers", **more: Any) -> Shapes:
    with full.numberless():
        net = diffusers.AutoencoderKL(**(full.VAE | more))
    return shapes(ldm.ldm_vae(net) if layout == "ldm" else net.state_dict())


@cache
def tiny(channels: int = 4) -> Shapes:
    return shapes(made("AutoencoderTiny", latent_channels=channels))


def bare(half: str, channels: int = 4) -> Shapes:
    """As madebyollin's: numbers alone."""
    head = f"{half}.layers."
    shift = 1 if half == "decoder" else 0  # diffusers has no module for the clamp before the first convolution
    state = {k.removeprefix(head): s for k, s in tiny(channels).items() if k.startswith(head)}
    return {f"{int(k.partition('.')[0]) + shift}.{k.partition('.')[2]}": s for k, s in state.items()}


APPROXIMATION = {
    f"conv{i}.weight": s for i, s in enumerate([(8, 4, 7, 7), (16, 8, 5, 5), *[(64, 32, 3, 3)] * 5, (3, 8, 3, 3)], 1)
}


def vision(width: int, layers: int, projection: int) -> Shapes:
    with full.numberless():
        config = CLIPVisionConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            projection_dim=projection,
            patch_size=14,
            num_attention_heads=16,
            intermediate_size=4 * width,
        )
        return shapes(CLIPVisionModelWithProjection(config).state_dict())


def text(config: dict[str, Any], projected: bool = False) -> Shapes:
    with full.numberless():
        net = (CLIPTextModelWithProjection if projected else CLIPTextModel)(CLIPTextConfig(**config))
    return shapes(ldm.hf_text(net))


def open_clip(config: dict[str, Any]) -> Shapes:
    with full.numberless():
        return shapes(ldm.open_clip_text(CLIPTextModelWithProjection(CLIPTextConfig(**config)), spare_layer=True))


VISUAL = {
    "visual.class_embedding": (1280,),
    "visual.positional_embedding": (257, 1280),
    "visual.proj": (1280, 1024),
    "visual.conv1.weight": (1280, 3, 14, 14),
}
EYE = {"kind": "image_encoder"}
CASES |= {
    "VAE, diffusers": Case(vae, {"kind": "vae", "layout": "diffusers"}),
    "VAE, LDM": Case(lambda: vae("ldm"), {"kind": "vae", "layout": "ldm"}),
    "VAE, LDM, as in a checkpoint": Case(lambda: under("first_stage_model.", vae("ldm")), {"kind": "vae", "prefix": "first_stage_model."}),
    "VAE, its decoder only": Case(lambda: {k: s for k, s in vae("ldm").items() if "decoder" in k}, {"kind": "vae", "variant": "decoder"}),
    "VAE of the x4 upscaler": Case(
        lambda: vae("ldm", block_out_channels=(128, 256, 512), down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3), {"kind": "vae"}
    ),
    "TAESD, both halves": Case(tiny, {"kind": "taesd", "variant": "", "layout": "diffusers"}),
    "TAESD decoder": Case(lambda: bare("decoder"), {"kind": "taesd", "variant": "decoder", "layout": "original"}),
    "TAESD encoder": Case(lambda: bare("encoder"), {"kind": "taesd", "variant": "encoder", "in_channels": 4}),
    "TAESD, both, in one file": Case(
        lambda: under("taesd_encoder.", bare("encoder")) | under("taesd_decoder.", bare("decoder")), {"kind": "taesd", "variant": "", "layout": "original"}
    ),
    "TAESD of other latents": Case(lambda: bare("decoder", 16), {"kind": "foreign", "variant": "a TAESD of SD3 or FLUX"}),
    "TAESD encoder of other latents": Case(lambda: bare("encoder", 16), {"kind": "foreign", "variant": "a TAESD of SD3 or FLUX"}),
    "webui's previewer": Case(lambda: APPROXIMATION, {"kind": "taesd", "variant": "approximation"}),
    "image encoder L": Case(lambda: vision(1024, 24, 768), {**EYE, "encoder_width": 1024}),
    "image encoder H": Case(lambda: vision(1280, 32, 1024), {**EYE, "encoder_width": 1280}),
    "image encoder bigG": Case(lambda: vision(1664, 48, 1280), {**EYE, "encoder_width": 1664}),
    "image encoder H, OpenCLIP": Case(lambda: VISUAL, {**EYE, "layout": "open_clip", "encoder_width": 1280}),
    "CLIP L, both towers": Case(lambda: vision(1024, 24, 768) | text(full.VIT_L), {**EYE, "encoder_width": 1024}),
    "text encoder L": Case(lambda: text(full.VIT_L), {"kind": "text_encoder", "encoder_width": 768}),
    "text encoder H": Case(lambda: text(full.VIT_H), {"kind": "text_encoder", "encoder_width": 1024}),
    "text encoder bigG": Case(lambda: text(full.BIG_G, True), {"kind": "text_encoder", "encoder_width": 1280}),
    "text encoder H, OpenCLIP": Case(lambda: open_clip(full.VIT_H), {"kind": "text_encoder", "layout": "open_clip", "encoder_width": 1024}),
    "PowerPaint's task encoder": Case(lambda: full.wrapped_clip(), {"kind": "text_encoder", "variant": "powerpaint"}),
    "PowerPaint's task encoder, dev": Case(
        lambda: {k: ((49438, 768) if "token_embedding" in k else tuple(t.shape)) for k, t in full.clip().items()}, {"kind": "text_encoder", "variant": "powerpaint"}
    ),
    "safety checker": Case(
        lambda: under("vision_model.", vision(1024, 2, 768)) | {"concept_embeds": (17, 768), "special_care_embeds": (3, 768)}, {"kind": "safety_checker"}
    ),
    "a checkpoint without its UNet": Case(
        lambda: {k: v for k, v in full.checkpoint("sd15").items() if not k.startswith("model.")}, {"kind": "parts", "parts": ("vae", "text_encoder")}
    ),
    "ESRGAN": Case(lambda: {"model.0.weight": (64, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (32, 64, 3, 3)}, {"kind": "upscaler"}),
    "Real-ESRGAN": Case(lambda: {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}, {"kind": "upscaler"}),
    "of no known kind": Case(lambda: {"a.weight": (4, 4), "b.weight": (4, 4)}, {"kind": "unknown"}),
    "one matrix": Case(lambda: {"layer.weight": (768, 768)}, {"kind": "unknown"}),
}  # fmt: skip

# ── motion ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@cache
def motion(layout: str, frames: int = 32, middle: bool = False, sdxl: bool = False) -> Shapes:
    widths = (320, 640, 1280) if sdxl else (320, 640, 1280, 1280)
    with full.numberless():
        net = MotionAdapter(block_out_channels=widths, motion_max_seq_length=frames, use_motion_mid_block=middle)
    return original_motion(net.state_dict()) if layout == "original" else shapes(net.state_dict())


def hotshot() -> Shapes:
    return {k.replace("motion_modules.", "temporal_attentions.").replace(".temporal_transformer", "").replace("pos_encoder.pe", "pos_encoder.positional_encoding"): s
            for k, s in motion("original", 24, sdxl=True).items()}  # fmt: skip


for layout in ("original", "diffusers"):
    for what, more, want in (
        ("v1", {"frames": 24}, {"family": "sd1", "frames": 24, "modules": 20}), ("v2", {"middle": True}, {"family": "sd1", "frames": 32, "modules": 21}),
        ("v3", {}, {"family": "sd1", "frames": 32, "modules": 20}), ("sdxl", {"sdxl": True}, {"family": "sdxl", "modules": 15}),
    ):  # fmt: skip
        CASES[f"AnimateDiff {what}, {layout}"] = Case(
            lambda layout=layout, more=more: motion(layout, **more),
            {"kind": "motion", "variant": what, "layout": layout, **want},
        )
CASES |= {
    "HotShot-XL": Case(hotshot, {"kind": "motion", "variant": "hotshot_xl", "family": "sdxl"}),
    "AnimateLCM": Case(lambda: {k: s for k, s in motion("original", 64, True).items() if ".pe" not in k}, {"kind": "motion", "variant": "animatelcm"}),
    "PIA": Case(lambda: motion("original") | {"conv_in.weight": (320, 9, 3, 3), "conv_in.bias": (320,)}, {"kind": "motion", "variant": "pia", "family": "sd1"}),
    "AnimateDiff in a whole UNet": Case(lambda: shapes(made("UNetMotionModel", cross_attention_dim=768)), {"kind": "motion", "family": "sd1"}),
}  # fmt: skip

# ── other families ──────────────────────────────────────────────────────────────────────────────────────────────────

KANDINSKY: dict[str, Any] = {
    "cross_attention_dim": 768, "addition_embed_type": "image", "encoder_hid_dim": 1280, "encoder_hid_dim_type": "image_proj", "out_channels": 8,
    "down_block_types": ("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3), "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"), "attention_head_dim": 64,
}  # fmt: skip
FLOYD: dict[str, Any] = {
    "in_channels": 3, "out_channels": 6, "cross_attention_dim": 768, "encoder_hid_dim": 4096, "addition_embed_type": "text", "addition_embed_type_num_heads": 64,
    "down_block_types": ("ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3), "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": (*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"), "attention_head_dim": 64,
}  # fmt: skip
REAL = {
    "FLUX.1": "FluxTransformer2DModel", "FLUX.2": "Flux2Transformer2DModel", "SD3": "SD3Transformer2DModel", "Qwen-Image": "QwenImageTransformer2DModel",
    "Wan": "WanTransformer3DModel", "HunyuanVideo or HunyuanImage": "HunyuanVideoTransformer3DModel", "LTX-Video": "LTXVideoTransformer3DModel",
    "PixArt or Allegro": "PixArtTransformer2DModel", "Sana": "SanaTransformer2DModel", "AuraFlow": "AuraFlowTransformer2DModel",
    "CogVideoX or CogView": "CogVideoXTransformer3DModel", "Lumina 2 or Z-Image": "Lumina2Transformer2DModel", "Z-Image": "ZImageTransformer2DModel",
    "Stable Cascade, stage B": "StableCascadeUNet", "an unCLIP prior (Karlo, Kandinsky)": "PriorTransformer", "Kandinsky 3": "Kandinsky3UNet",
    "Stable Video Diffusion": "UNetSpatioTemporalConditionModel", "I2VGen-XL": "I2VGenXLUNet", "Mochi": "MochiTransformer3DModel",
    "Cosmos": "CosmosTransformer3DModel", "Chroma": "ChromaTransformer2DModel", "LTX-2": "LTX2VideoTransformer3DModel",
    "Kandinsky 5 or 6": "Kandinsky5Transformer3DModel", "Stable Audio": "StableAudioDiTModel", "FLUX.1 or a relative of it": "BriaTransformer2DModel",
    "the VAE of Wan or Qwen-Image": "AutoencoderKLWan", "the VAE of a film model": "AutoencoderKLHunyuanVideo", "the VAE of Sana (DC-AE)": "AutoencoderDC",
    "the VAE of Stable Video Diffusion": "AutoencoderKLTemporalDecoder", "the VAE of FLUX.2": "AutoencoderKLFlux2",
    "a VQ autoencoder (Kandinsky, early latent diffusion)": "VQModel",
    "a ControlNet of a transformer (SD3, FLUX, Qwen-Image and the like)": "FluxControlNetModel",
}  # fmt: skip
ORIGINAL: dict[str, list[str]] = {
    "FLUX.1": ["model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
               "model.diffusion_model.vector_in.in_layer.weight", "model.diffusion_model.img_in.weight"],
    "FLUX.2": ["double_stream_modulation_img.lin.weight", "double_blocks.0.img_attn.norm.key_norm.scale", "img_in.weight"],
    "Chroma": ["distilled_guidance_layer.in_proj.bias", "double_blocks.0.img_attn.norm.key_norm.scale"],
    "SD3": ["model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight", "model.diffusion_model.x_embedder.proj.weight"],
    "Wan": ["head.modulation", "patch_embedding.weight", "blocks.0.self_attn.q.weight", "blocks.0.cross_attn.k.weight"],
    "Qwen-Image": ["txt_norm.weight", "img_in.weight", "proj_out.weight", "transformer_blocks.0.attn.add_q_proj.weight"],
    "HunyuanVideo or HunyuanImage": ["txt_in.individual_token_refiner.blocks.0.norm1.weight", "double_blocks.0.img_attn_qkv.weight"],
    "HunyuanDiT": ["mlp_t5.0.weight", "x_embedder.proj.weight"],
    "LTX-Video": ["model.diffusion_model.patchify_proj.weight", "model.diffusion_model.adaln_single.emb.timestep_embedder.linear_1.bias",
                  "vae.per_channel_statistics.mean-of-means"],
    "PixArt": ["t_block.1.weight", "y_embedder.y_proj.fc1.weight", "blocks.0.cross_attn.q_linear.weight"],
    "Stable Cascade, stage C": ["clip_txt_mapper.weight", "clf.1.weight"], "Stable Cascade, stage B": ["clip_mapper.weight", "effnet_mapper.0.weight", "clf.1.weight"],
    "AuraFlow": ["double_layers.0.attn.w1q.weight", "cond_seq_linear.weight"], "Mochi": ["t5_yproj.weight"],
    "Stable Video Diffusion": ["model.diffusion_model.input_blocks.1.0.time_stack.in_layers.0.weight", "model.diffusion_model.input_blocks.0.0.weight",
                               "model.diffusion_model.out.2.weight"],
    "HiDream": ["double_stream_blocks.0.block.adaLN_modulation.1.bias", "caption_projection.0.linear.weight"],
    "Cosmos": ["net.blocks.block0.blocks.0.block.attn.to_q.0.weight", "net.x_embedder.proj.1.weight"],
    "Lumina 2 or Z-Image": ["cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight"], "Krea 2": ["txtfusion.projector.weight"],
    "the VAE of Wan or Qwen-Image": ["decoder.middle.0.residual.0.gamma"],
}  # fmt: skip
for name, cls in REAL.items():
    CASES[f"{name}, diffusers"] = Case(lambda cls=cls: made(cls), {"kind": "foreign", "variant": name})
for name, keys in ORIGINAL.items():
    CASES[f"{name}, original"] = Case(
        lambda keys=keys: dict.fromkeys(keys, (64, 64)), {"kind": "foreign", "variant": name}
    )


def encoder(cls: Any, config: Any) -> Shapes:
    with full.numberless():
        return shapes(cls(config).state_dict())


CASES |= {
    "Kandinsky 2.2": Case(lambda: made("UNet2DConditionModel", **KANDINSKY), {"kind": "foreign", "variant": "Kandinsky 2"}),
    "DeepFloyd IF": Case(lambda: made("UNet2DConditionModel", **FLOYD), {"kind": "foreign", "variant": "DeepFloyd IF"}),
    "Kolors": Case(lambda: shapes(unet("sdxl", encoder_hid_dim=4096, encoder_hid_dim_type="text_proj").state_dict()), {"kind": "foreign", "variant": "Kolors"}),
    "VAE of SD3 or FLUX.1": Case(lambda: vae(latent_channels=16), {"kind": "foreign", "variant": "the VAE of SD3 or FLUX.1"}),
    "VAE of SD3 or FLUX.1, LDM": Case(lambda: vae("ldm", latent_channels=16), {"kind": "foreign", "variant": "the VAE of SD3 or FLUX.1"}),
    "T5": Case(lambda: encoder(T5EncoderModel, T5Config(num_layers=2)), {"kind": "foreign", "variant": "a T5 text encoder"}),
    "SigLIP": Case(lambda: encoder(SiglipVisionModel, SiglipVisionConfig(num_hidden_layers=2)), {"kind": "foreign", "variant": "a SigLIP image encoder"}),
}  # fmt: skip

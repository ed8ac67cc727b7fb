"""One file of every kind that people keep, as keys and shapes: built from the real networks at their real sizes, without memory.

Each case makes a table and says what must be told of it. Nothing here is told by a name.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import diffusers
from diffusers.models.controlnets.controlnet_sparsectrl import SparseControlNetModel
from diffusers.models.controlnets.controlnet_union import ControlNetUnionModel
from diffusers.models.controlnets.controlnet_xs import ControlNetXSAdapter, UNetControlNetXSModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from . import full, ldm

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    make: Callable[[], Any]
    want: dict[str, Any] = field(default_factory=dict)


def shapes(state: dict[str, Any]) -> Shapes:
    return {k: tuple(getattr(v, "shape", v)) for k, v in state.items()}


def under(prefix: str, state: dict[str, Any]) -> Shapes:
    return {prefix + k: s for k, s in shapes(state).items()}


@cache
def unet(name: str, **more: Any) -> UNet2DConditionModel:
    with full.numberless():
        return UNet2DConditionModel(**(full.CONFIGS[name] | more))


# ── bases ───────────────────────────────────────────────────────────────────────────────────────────────────────────

LATENT_UPSCALER: dict[str, Any] = {
    "in_channels": 8, "out_channels": 5, "act_fn": "gelu", "attention_head_dim": 64, "block_out_channels": (384, 384, 768, 768),
    "conv_in_kernel": 1, "conv_out_kernel": 1, "cross_attention_dim": 768, "mid_block_type": None, "norm_num_groups": None,
    "down_block_types": ("KDownBlock2D", *["KCrossAttnDownBlock2D"] * 3), "layers_per_block": 4, "time_cond_proj_dim": 896,
    "up_block_types": (*["KCrossAttnUpBlock2D"] * 3, "KUpBlock2D"), "resnet_time_scale_shift": "scale_shift",
    "time_embedding_type": "fourier", "timestep_post_act": "gelu",
}  # fmt: skip


def folder(name: str, **more: Any) -> Shapes:
    """A diffusers pipeline, as its parts are merged into one table."""
    with full.numberless():
        vae = diffusers.AutoencoderKL(**full.VAE).state_dict()
    return under("unet/", unet(name, **more).state_dict()) | under("vae/", vae) | under("text_encoder/", full.clip())


def ldm_base(name: str, **more: Any) -> Shapes:
    rest = {k: v for k, v in full.checkpoint(name).items() if not k.startswith("model.diffusion_model.")}
    return under("model.diffusion_model.", ldm.ldm_unet(unet(name, **more))) | shapes(rest)


def bare_ldm(name: str, **more: Any) -> Shapes:
    return under("model.diffusion_model.", ldm.ldm_unet(unet(name, **more)))


def with_averages(name: str) -> Shapes:
    state = shapes(full.checkpoint(name))
    head = "model.diffusion_model."
    ema = {
        f"model_ema.diffusion_model{k[len(head) :].replace('.', '')}": s for k, s in state.items() if k.startswith(head)
    }
    return state | ema | {"model_ema.decay": (), "model_ema.num_updates": ()}


BASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "SD 1.5": ("sd15", {}, {"family": "sd1", "variant": "", "in_channels": 4}),
    "SD 1.5 inpainting": ("sd15", {"in_channels": 9}, {"family": "sd1", "variant": "inpaint"}),
    "InstructPix2Pix": ("sd15", {"in_channels": 8}, {"family": "sd1", "variant": "pix2pix"}),
    "LCM of SD 1.5": ("sd15", {"time_cond_proj_dim": 256}, {"family": "sd1", "variant": "lcm"}),
    "SD 2": ("sd21", {}, {"family": "sd2", "variant": ""}),
    "SD 2 inpainting": ("sd21", {"in_channels": 9}, {"family": "sd2", "variant": "inpaint"}),
    "SD 2 depth": ("sd21", {"in_channels": 5}, {"family": "sd2", "variant": "depth"}),
    "unCLIP h": ("unclip", {}, {"family": "sd2", "variant": "unclip", "encoder_width": 1024}),
    "unCLIP l": ("unclip", {"projection_class_embeddings_input_dim": 1536}, {"variant": "unclip", "encoder_width": 768}),
    "x4 upscaler": ("upscaler", {}, {"family": "sd2", "variant": "upscaler", "in_channels": 7}),
    "SDXL": ("sdxl", {}, {"family": "sdxl", "variant": ""}),
    "SDXL inpainting": ("sdxl", {"in_channels": 9}, {"family": "sdxl", "variant": "inpaint"}),
    "SDXL edit": ("sdxl", {"in_channels": 8}, {"family": "sdxl", "variant": "pix2pix"}),
    "LCM of SDXL": ("sdxl", {"time_cond_proj_dim": 256}, {"family": "sdxl", "variant": "lcm"}),
    "SDXL refiner": ("refiner", {}, {"context_width": 1280, "variant": "refiner"}),
}  # fmt: skip
CASES: dict[str, Case] = {}
for what, (name, more, want) in BASES.items():
    CASES[f"{what}, one file"] = Case(
        lambda name=name, more=more: ldm_base(name, **more), {"kind": "base", "layout": "ldm", **want}
    )
    CASES[f"{what}, its UNet in diffusers' layout"] = Case(
        lambda name=name, more=more: unet(name, **more).state_dict(), {"kind": "unet", "layout": "diffusers", **want}
    )
for what in ("SD 1.5", "LCM of SD 1.5", "InstructPix2Pix", "SD 2 depth"):
    name, more, want = BASES[what]
    CASES[f"{what}, a folder"] = Case(
        lambda name=name, more=more: folder(name, **more), {"kind": "base", "layout": "diffusers", **want}
    )
    CASES[f"{what}, its UNet in the first layout"] = Case(
        lambda name=name, more=more: bare_ldm(name, **more), {"kind": "unet", "layout": "ldm", **want}
    )
CASES["SD 1.5 with its averages"] = Case(lambda: with_averages("sd15"), {"kind": "base", "family": "sd1"})
CASES["x2 latent upscaler"] = Case(
    lambda: made("UNet2DConditionModel", **LATENT_UPSCALER), {"kind": "unet", "variant": "latent_upscaler", "in_channels": 8}
)  # fmt: skip
CASES["PowerPaint 1"] = Case(
    lambda: under("unet/", unet("sd15", in_channels=9).state_dict()) | under("text_encoder/", full.wrapped_clip()),
    {"kind": "base", "variant": "powerpaint", "family": "sd1"},
)


def made(cls: str, **more: Any) -> dict[str, Any]:
    """A network of diffusers without memory; of those that are large, as few blocks as it takes."""
    asked = inspect.signature(getattr(diffusers, cls).__init__).parameters
    few = {k: 1 for k in ("num_layers", "num_single_layers", "num_mmdit_layers", "num_single_dit_layers", "num_refiner_layers",
                          "n_layers", "n_refiner_layers", "num_visual_blocks", "num_text_blocks") if k in asked}  # fmt: skip
    with full.numberless():
        return getattr(diffusers, cls)(**(few | more)).state_dict()


# ── beside the network ──────────────────────────────────────────────────────────────────────────────────────────────


def control(name: str, layout: str, **more: Any) -> Shapes:
    net = full.controlnet(name, **more)
    return shapes(net.state_dict() if layout == "diffusers" else ldm.ldm_controlnet(net))


def union(types: int) -> Shapes:
    config = {k: v for k, v in full.SDXL.items() if k not in ("up_block_types", "sample_size")}
    with full.numberless():
        net = ControlNetUnionModel(
            **config, num_control_type=types, conditioning_embedding_out_channels=(16, 32, 96, 256)
        )
    return shapes(net.state_dict())


def control_lora(name: str, rank: int) -> Shapes:
    """As Stability's: low ranks for what the base has, all else whole, and the marker."""
    out: Shapes = {"lora_controlnet": ()}
    for key, shape in control(name, "ldm").items():
        if (
            key.endswith(".weight")
            and len(shape) > 1
            and not key.startswith(("input_hint", "zero_convs", "middle_block_out"))
        ):
            out |= {
                key.replace(".weight", ".down"): (rank, *shape[1:]),
                key.replace(".weight", ".up"): (shape[0], rank, *[1] * len(shape[2:])),
            }
        else:
            out[key] = shape
    return out


def sparse(hint: int) -> Shapes:
    with full.numberless():
        net = SparseControlNetModel(
            conditioning_channels=hint, use_simplified_condition_embedding=hint == 4, cross_attention_dim=768
        )
    return shapes(net.state_dict())


def original_motion(state: dict[str, Any]) -> Shapes:
    """diffusers' names of temporal modules as AnimateDiff writes them."""
    out: Shapes = {}
    for key, shape in shapes(state).items():
        if "motion_modules." not in key:
            out[key] = shape
            continue
        key = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", key)
        for ours, theirs in (("attn1.", "attention_blocks.0."), ("attn2.", "attention_blocks.1."), ("norm1.", "norms.0."),
                             ("norm2.", "norms.1."), ("norm3.", "ff_norm."), ("pos_embed.pe", "attention_blocks.0.pos_encoder.pe")):  # fmt: skip
            key = re.sub(rf"(transformer_blocks\.0\.){re.escape(ours)}", rf"\g<1>{theirs}", key)
        out[key] = shape
    return out


@cache
def xs(name: str, whole: bool = False) -> Shapes:
    with full.numberless():
        if whole:
            return shapes(UNetControlNetXSModel(cross_attention_dim=768).state_dict())
        return shapes(ControlNetXSAdapter.from_unet(unet(name), size_ratio=0.1).state_dict())


def t2i(kind: str, channels: int, layout: str) -> Shapes:
    with full.numberless():
        net = diffusers.T2IAdapter(in_channels=channels, adapter_type=kind, channels=[320, 640, 1280] if "light" in kind else [320, 640, 1280, 1280], num_res_blocks=4 if "light" in kind else 2,
                                   downscale_factor=16 if "xl" in kind else 8)  # fmt: skip
    if layout == "diffusers":
        return shapes(net.state_dict())
    out: Shapes = {}
    for key, shape in shapes(net.state_dict()).items():
        key = key.removeprefix("adapter.")
        if "light" in kind:
            key = key.replace(".resnets.", ".body.")
        else:
            key = re.sub(r"body\.(\d+)\.resnets\.(\d+)", lambda m: f"body.{2 * int(m[1]) + int(m[2])}", key)
            key = re.sub(r"body\.(\d+)\.in_conv", lambda m: f"body.{2 * int(m[1])}.in_conv", key)
        out[key] = shape
    return out


def blocks(head: str, count: int, width: int) -> Shapes:
    """Residual attention as OpenAI's CLIP spells it."""
    one = {"attn.in_proj_weight": (3 * width, width), "attn.in_proj_bias": (3 * width,), "attn.out_proj.weight": (width, width),
           "ln_1.weight": (width,), "ln_2.weight": (width,), "mlp.c_fc.weight": (4 * width, width), "mlp.c_proj.weight": (width, 4 * width)}  # fmt: skip
    return {f"{head}.{i}.{k}": s for i in range(count) for k, s in one.items()}


def style() -> Shapes:
    ends = {f"{n}.{p}": (1024,) for n in ("ln_pre", "ln_post") for p in ("weight", "bias")}
    return {"style_embedding": (1, 8, 1024), "proj": (1024, 768), **blocks("transformer_layes", 3, 1024), **ends}


def fuser() -> Shapes:
    widths = (320, 640, 1280, 1280)
    maps = {f"spatial_feat_mapping.{j}.1.weight": (768, w) for j, w in enumerate(widths)}
    maps |= {f"spatial_ch_projs.{j}.weight": (w, 768) for j, w in enumerate(widths)}
    return {
        "task_embedding": (16, 768),
        "positional_embedding": (4, 768),
        "seq_proj": (768, 768),
        **blocks("transformer_layes", 3, 768),
        **maps,
    }


def lllite(name: str, blocks: str = r"input_blocks|middle", only: str = "") -> Shapes:
    """Modules before the projections of every transformer block that matches, as kohya's trainer makes them."""
    out: Shapes = {}
    for key, shape in shapes(ldm.ldm_unet(unet(name))).items():
        m = re.match(rf"((?:{blocks})\S*\.1\.transformer_blocks\.\d+)\.(attn1\.to_[qkv]|attn2\.to_q)\.weight$", key)
        if not m or (only and only not in key):
            continue
        level = int(key.split(".")[1]) if key.startswith("input") else 9
        depth = 1 if level < 3 else 2 if level < 6 else 3
        module = "lllite_unet_" + f"{m[1]}.{m[2]}".replace(".", "_")
        out |= {f"{module}.conditioning1.0.weight": (16, 3, 4, 4), f"{module}.down.0.weight": (64, shape[1]),
                f"{module}.mid.0.weight": (64, 96), f"{module}.up.0.weight": (shape[1], 64)}  # fmt: skip
        out |= (
            {f"{module}.conditioning1.2.weight": (32, 16, 2, 2)}
            if depth == 1
            else {f"{module}.conditioning1.2.weight": (32, 16, 4, 4)}
        )
        if depth == 3:
            out |= {f"{module}.conditioning1.4.weight": (32, 32, 2, 2)}
    return out | {k.replace(".weight", ".bias"): (s[0],) for k, s in out.items()}


def ctrlora(condition: bool, rank: int = 128) -> Shapes:
    out: Shapes = {}
    for key, shape in control("sd15", "ldm").items():
        if key.startswith("input_hint"):
            continue
        linear = len(shape) == 2 and not key.startswith("zero_convs")
        if condition and linear:
            stem = key.removesuffix("weight") + "lora_layer."
            out |= {f"{stem}down.weight": (rank, shape[1]), f"{stem}up.weight": (shape[0], rank)}
        elif not condition or key.startswith(("zero_convs", "middle_block_out")) or "norm" in key:
            out[key] = shape
            if linear:
                stem = key.removesuffix("weight") + "lora_layer."
                out |= {f"{stem}down.weight": (rank, shape[1]), f"{stem}up.weight": (shape[0], rank)}
    return under("control_model.", out)


MID: dict[str, Any] = {
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": 1,
}
SMALL: dict[str, Any] = {"down_block_types": ("DownBlock2D",) * 3, "mid_block_type": "UNetMidBlock2D"}
for what, name, more, want in (
    ("SD 1.5", "sd15", {}, {"family": "sd1"}), ("SD 2", "sd21", {}, {"family": "sd2"}), ("SDXL", "sdxl", {}, {"family": "sdxl"}),
    ("SDXL, mid", "sdxl", MID, {"family": "sdxl", "variant": "mid"}), ("SDXL, small", "sdxl", SMALL, {"family": "sdxl", "variant": "small"}),
    ("a hint of 4 channels", "sd15", {"conditioning_channels": 4}, {"hint_channels": 4}),
):  # fmt: skip
    for layout in ("ldm", "diffusers"):
        CASES[f"ControlNet for {what}, {layout}"] = Case(
            lambda name=name, layout=layout, more=more: control(name, layout, **more), {"kind": "controlnet", "layout": layout, **want}
        )  # fmt: skip
XS = {"kind": "controlnet_xs", "hint_channels": 3}
CASES |= {
    "ControlNet 1.0, the whole model around it": Case(
        lambda: shapes(full.checkpoint("sd15")) | under("control_model.", control("sd15", "ldm")), {"kind": "controlnet", "family": "sd1", "prefix": "control_model."}
    ),
    "ControlNet 1.1, stripped": Case(lambda: under("control_model.", control("sd15", "ldm")), {"kind": "controlnet", "prefix": "control_model."}),
    "ControlNet as a difference": Case(lambda: control("sd15", "ldm") | {"difference": ()}, {"kind": "controlnet", "variant": "difference"}),
    "Union": Case(lambda: union(6), {"kind": "controlnet_union", "family": "sdxl", "types": 6, "hint_channels": 3}),
    "Union ProMax": Case(lambda: union(8), {"kind": "controlnet_union", "family": "sdxl", "types": 8}),
    "Union, first layout": Case(
        lambda: control("sdxl", "ldm") | {"task_embedding": (6, 320), "control_add_embedding.linear_1.weight": (1280, 1536), **blocks("transformer_layes", 1, 320)},
        {"kind": "controlnet_union", "layout": "ldm", "types": 6, "family": "sdxl"},
    ),
    "Control-LoRA SDXL 128": Case(lambda: control_lora("sdxl", 128), {"kind": "control_lora", "family": "sdxl", "rank": 128}),
    "Control-LoRA SDXL 256": Case(lambda: control_lora("sdxl", 256), {"kind": "control_lora", "family": "sdxl", "rank": 256}),
    "Control-LoRA SD 1.5": Case(lambda: control_lora("sd15", 64), {"kind": "control_lora", "family": "sd1", "rank": 64, "hint_channels": 3}),
    "Control-LoRA without its marker": Case(
        lambda: {k: s for k, s in control_lora("sdxl", 128).items() if k != "lora_controlnet"}, {"kind": "control_lora", "family": "sdxl"}
    ),
    "XS SD 1.5": Case(lambda: xs("sd15"), {**XS, "family": "sd1"}),
    "XS SD 2": Case(lambda: xs("sd21"), {**XS, "family": "sd2"}),
    "XS SDXL": Case(lambda: xs("sdxl"), {**XS, "family": "sdxl"}),
    "XS inside of its UNet": Case(lambda: xs("sd15", True), {**XS, "family": "sd1"}),
    "SparseCtrl RGB": Case(lambda: sparse(4), {"kind": "sparsectrl", "variant": "rgb", "hint_channels": 5, "family": "sd1"}),
    "SparseCtrl scribble": Case(lambda: sparse(3), {"kind": "sparsectrl", "variant": "scribble", "hint_channels": 4, "family": "sd1"}),
    "SparseCtrl RGB, as released": Case(lambda: under("module.", original_motion(sparse(4))), {"kind": "sparsectrl", "variant": "rgb"}),
    "LLLite SDXL": Case(lambda: lllite("sdxl"), {"kind": "lllite", "family": "sdxl", "modules": 136, "rank": 64}),
    "LLLite SDXL, the light ones": Case(lambda: lllite("sdxl", only="attn1.to_q"), {"kind": "lllite", "family": "sdxl", "modules": 34}),
    "LLLite SDXL, shallow blocks": Case(lambda: lllite("sdxl", r"input_blocks\.[45]"), {"kind": "lllite", "family": "sdxl"}),
    "LLLite SD 1.5": Case(lambda: lllite("sd15"), {"kind": "lllite", "family": "sd1"}),
    "CtrLoRA base": Case(lambda: ctrlora(False), {"kind": "ctrlora", "variant": "base", "family": "sd1"}),
    "CtrLoRA condition": Case(lambda: ctrlora(True), {"kind": "ctrlora", "variant": "condition", "family": "sd1", "rank": 128}),
    "BrushNet SD 1.5": Case(lambda: full.brushnet("sd15", False), {"kind": "brushnet", "variant": "plain", "family": "sd1"}),
    "BrushNet SDXL": Case(lambda: full.brushnet("sdxl", False), {"kind": "brushnet", "variant": "plain", "family": "sdxl"}),
    "PowerPaint 2": Case(lambda: full.brushnet("sd15", True), {"kind": "brushnet", "variant": "powerpaint", "family": "sd1"}),
    "T2I style": Case(style, {"kind": "t2i_style", "family": "sd1", "tokens": 8, "encoder_width": 1024}),
    "CoAdapter fuser": Case(fuser, {"kind": "coadapter_fuser", "family": "sd1", "types": 16}),
}  # fmt: skip
for what, kind, channels, family in (
    ("full", "full_adapter", 3, "sd1"), ("full of one channel", "full_adapter", 1, "sd1"), ("light", "light_adapter", 3, "sd1"),
    ("XL", "full_adapter_xl", 3, "sdxl"), ("XL of one channel", "full_adapter_xl", 1, "sdxl"),
):  # fmt: skip
    for layout in ("original", "diffusers"):
        CASES[f"T2I {what}, {layout}"] = Case(
            lambda kind=kind, channels=channels, layout=layout: t2i(kind, channels, layout),
            {
                "kind": "t2i_adapter",
                "layout": layout,
                "variant": "light" if "light" in kind else "full",
                "family": family,
                "hint_channels": channels,
            },
        )
CASES["T2I full, wrapped"] = Case(
    lambda: under("adapter.", t2i("full_adapter", 3, "original")),
    {"kind": "t2i_adapter", "variant": "full", "prefix": "adapter."},
)

# ── attended ────────────────────────────────────────────────────────────────────────────────────────────────────────


def ip(context: int, proj: Shapes, low: int = 0) -> Shapes:
    layers = 70 if context == 2048 else 16
    out = shapes(full.ip_adapter(context, proj, layers))
    for n in range(2 * layers if low else 0):
        for p in ("to_q", "to_k", "to_v", "to_out"):
            out |= {
                f"ip_adapter.{n}.{p}_lora.down.weight": (low, 320),
                f"ip_adapter.{n}.{p}_lora.up.weight": (320, low),
            }
    return out


def trainer(context: int) -> Shapes:
    """As its trainer saves it: the projection and the K and V of each layer, under names of its own, and the whole UNet."""
    out = {"image_proj_model.proj.weight": (4 * context, 1024), "image_proj_model.norm.weight": (context,)}
    out |= {f"adapter_modules.{2 * n + 1}.to_{p}_ip.weight": (320, context) for n in range(16) for p in "kv"}
    return out | under("unet.", unet("sd15").state_dict())


def face(tokens: int, context: int) -> Shapes:
    return {"proj.0.weight": (1024, 512), "proj.2.weight": (tokens * context, 1024), "norm.weight": (context,)}


def resampler(width: int, reads: int, context: int) -> Shapes:
    return {"latents": (1, 16, width), "proj_in.weight": (width, reads), "proj_out.weight": (context, width)}


PLUS = {"perceiver_resampler.proj_in.weight": (768, 1280)}
PLUS_XL = {"perceiver_resampler.proj_in.weight": (2048, 1280)}
for what, state, variant, tokens, width in (
    ("SD 1.5", lambda: ip(768, {"proj.weight": (3072, 1024)}), "plain", 4, 1024),
    ("SD 1.5, bigG", lambda: ip(768, {"proj.weight": (3072, 1280)}), "plain", 4, 1280),
    ("SDXL", lambda: ip(2048, {"proj.weight": (8192, 1280)}), "plain", 4, 1280),
    ("SDXL, ViT-H", lambda: ip(2048, {"proj.weight": (8192, 1024)}), "plain", 4, 1024),
    ("plus SD 1.5", lambda: ip(768, resampler(768, 1280, 768)), "plus", 16, 1280),
    ("plus SDXL", lambda: ip(2048, resampler(1280, 1280, 2048)), "plus", 16, 1280),
    ("full face", lambda: ip(768, {"proj.0.weight": (1280, 1280), "proj.2.weight": (768, 1280), "proj.3.weight": (768,)}), "full", 257, 1280),
    ("FaceID SD 1.5", lambda: ip(768, face(4, 768), 128), "faceid", 4, 512),
    ("FaceID SDXL", lambda: ip(2048, face(4, 2048), 128), "faceid", 4, 512),
    ("FaceID without its LoRA", lambda: ip(768, face(4, 768)), "faceid", 4, 512),
    ("FaceID portrait", lambda: ip(768, face(16, 768)), "faceid", 16, 512),
    ("FaceID portrait SDXL", lambda: ip(2048, face(16, 2048)), "faceid", 16, 512),
    ("FaceID plus", lambda: ip(768, face(4, 768) | PLUS, 128), "faceid_plus", 4, 1280),
    ("FaceID plus SDXL", lambda: ip(2048, face(4, 2048) | PLUS_XL, 128), "faceid_plus", 4, 1280),
    ("InstantID or unnorm", lambda: ip(2048, resampler(1280, 512, 2048)), "instantid", 16, 512),
    ("its trainer's checkpoint", lambda: trainer(768), "plain", 4, 1024),
):  # fmt: skip
    low = 128 if what.startswith("FaceID") and "portrait" not in what and "without" not in what else None
    CASES[f"IP-Adapter: {what}"] = Case(
        state, {"kind": "ip_adapter", "variant": variant, "tokens": tokens, "encoder_width": width, "rank": low}
    )


def gligen(kind: str, layout: str, grounding: Shapes, whole: bool = True, channels: int = 4) -> Shapes:
    net = unet("sd15", attention_type=kind, in_channels=channels)
    state = shapes(net.state_dict())
    own = {k: s for k, s in state.items() if "position_net." in k}
    trunk = (
        shapes(ldm.ldm_unet(net)) if layout == "ldm" else {k: s for k, s in state.items() if "position_net." not in k}
    )
    if not whole:
        trunk = {k: s for k, s in trunk.items() if ".fuser." in k}
    return trunk | (grounding or own)


KEYPOINTS = {"position_net.person_embeddings": (8, 768), "position_net.keypoint_embeddings": (17, 768), "position_net.null_person_feature": (768,),
             "position_net.linears.0.weight": (512, 800)}  # fmt: skip
MAP = {"position_net.convnext_tiny_backbone.downsample_layers.0.0.weight": (96, 3, 4, 4), "position_net.pos_embedding": (1, 64, 768),
       "position_net.linears.0.weight": (512, 768), "downsample_net.layers.0.weight": (4, 1, 4, 4)}  # fmt: skip
SEMANTIC = MAP | {"position_net.in_conv.weight": (3, 152, 3, 3)}
GLIGEN = {"kind": "gligen", "family": "sd1", "modules": 16}
CASES |= {
    "GLIGEN text, diffusers": Case(lambda: gligen("gated", "diffusers", {}), {**GLIGEN, "variant": "text", "layout": "diffusers"}),
    "GLIGEN text, original": Case(lambda: under("model.", gligen("gated", "ldm", {})), {**GLIGEN, "variant": "text", "layout": "ldm", "prefix": "model."}),
    "GLIGEN text, ComfyUI's": Case(lambda: gligen("gated", "ldm", {}, whole=False), {**GLIGEN, "variant": "text"}),
    "GLIGEN text, inpainting": Case(lambda: gligen("gated", "ldm", {}, channels=9), {**GLIGEN, "variant": "text", "in_channels": 9}),
    "GLIGEN text and image": Case(lambda: gligen("gated-text-image", "diffusers", {}), {**GLIGEN, "variant": "text_image"}),
    "GLIGEN text and image, original": Case(lambda: gligen("gated-text-image", "ldm", {}), {**GLIGEN, "variant": "text_image"}),
    "GLIGEN keypoints": Case(lambda: gligen("gated", "ldm", KEYPOINTS), {**GLIGEN, "variant": "keypoints"}),
    "GLIGEN canny": Case(lambda: gligen("gated", "ldm", MAP, channels=12), {**GLIGEN, "variant": "map", "in_channels": 12}),
    "GLIGEN hed": Case(lambda: gligen("gated", "ldm", MAP, channels=5), {**GLIGEN, "variant": "map", "in_channels": 5}),
    "GLIGEN semantic": Case(lambda: gligen("gated", "ldm", SEMANTIC, channels=12), {**GLIGEN, "variant": "semantic"}),
    "words of the webui": Case(
        lambda: {"string_to_param.*": (8, 768), "string_to_token.*": ()}, {"kind": "textual_inversion", "family": "sd1", "tokens": 8, "layout": "webui"}
    ),
    "words of the webui, SD 2": Case(lambda: {"string_to_param.*": (3, 1024)}, {"kind": "textual_inversion", "family": "sd2", "tokens": 3}),
    "words in one table": Case(lambda: {"emb_params": (4, 768)}, {"kind": "textual_inversion", "family": "sd1", "tokens": 4}),
    "a word of diffusers": Case(lambda: {"<cat-toy>": (768,)}, {"kind": "textual_inversion", "layout": "diffusers", "family": "sd1", "tokens": 1}),
    "words of diffusers": Case(lambda: {"<a>": (2, 1024), "<b>": (1024,)}, {"kind": "textual_inversion", "family": "sd2", "tokens": 3}),
    "words of SDXL": Case(lambda: {"clip_l": (2, 768), "clip_g": (2, 1280)}, {"kind": "textual_inversion", "family": "sdxl", "tokens": 2}),
}  # fmt: skip

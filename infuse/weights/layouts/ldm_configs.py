"""A network's shape is in its tensors: widths, levels, depth and context are read off them, never off a file name.

All functions take `{diffusers key: shape}` of one component and answer the diffusers config that builds exactly it.
Three numbers are not in any tensor and come from the family: the count of attention heads (SD 1.x has 8 everywhere,
SD 2.x and SDXL have heads of width 64), the VAE's scaling factor, and the size it was trained at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from infuse.errors import WeightsError

Shapes = Mapping[str, tuple[int, ...]]
SCALING = {"sd1": 0.18215, "sd2": 0.18215, "sdxl": 0.13025, "upscaler": 0.08333}
"""Factor from VAE latents to what the UNet sees (LDM configs `scale_factor`)."""
VECTOR_PARTS = {2816: 1280, 2560: 1280}
"""Input of SDXL's vector embedding -> how much of it is the pooled text; the rest is 6 (refiner: 5) sinusoids of 256."""


def unet(shapes: Shapes, *, pooled: int | None = None, sample_size: int | None = None) -> dict[str, Any]:
    """Config of the UNet2DConditionModel with these tensors.

    `pooled` is the width of the second text encoder's projection, needed only to split a vector of unusual width.
    Raises WeightsError for a network that diffusers' class cannot express (a middle block of its own depth).
    """
    config = _trunk(shapes, pooled)
    levels = len(config["block_out_channels"])
    up = [_depth(shapes, f"up_blocks.{b}") for b in range(levels)]
    down = [_depth(shapes, f"down_blocks.{b}") for b in range(levels)]
    if up[::-1] != down:  # cut down, as SSD-1B is: the decoder's depths are its own
        config["reverse_transformer_layers_per_block"] = [d or 1 for d in up]
    config |= {
        "out_channels": shapes["conv_out.weight"][0],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in up],
        "sample_size": sample_size or (128 if config["cross_attention_dim"] == 2048 else 64),
        "mid_block_type": _mid(shapes),
    }
    if "time_embedding.cond_proj.weight" in shapes:  # LCM: guidance scale as an embedding
        config["time_cond_proj_dim"] = shapes["time_embedding.cond_proj.weight"][1]
    return config


def controlnet(shapes: Shapes, *, pooled: int | None = None) -> dict[str, Any]:
    """Config of the ControlNetModel with these tensors, in any released hint encoder's widths."""
    config = _trunk(shapes, pooled)
    hint = "controlnet_cond_embedding"
    steps = 1 + max(_numbers(shapes, rf"{hint}\.blocks\.(\d+)\."), default=-1)
    widths = [shapes[f"{hint}.blocks.{i}.weight"][0] for i in range(1, steps, 2)]
    config |= {
        "conditioning_channels": shapes[f"{hint}.conv_in.weight"][1],
        "conditioning_embedding_out_channels": [shapes[f"{hint}.conv_in.weight"][0], *widths],
        "mid_block_type": _mid(shapes),
    }
    return config


def _trunk(shapes: Shapes, pooled: int | None) -> dict[str, Any]:
    levels = 1 + max(_numbers(shapes, r"down_blocks\.(\d+)\."))
    widths = [shapes[f"down_blocks.{b}.resnets.0.conv1.weight"][0] for b in range(levels)]
    depth = [_depth(shapes, f"down_blocks.{b}") for b in range(levels)]
    context = context_width(shapes) or (2048 if "add_embedding.linear_1.weight" in shapes else widths[-1])
    linear = any(k.endswith(".proj_in.weight") and len(s) == 2 for k, s in shapes.items())
    linear = {768: False, 1024: True, 2048: True}.get(context, linear)  # mixed files store SD1's 1x1 conv as a matrix
    only_cross = [_attends_only_context(shapes, f"down_blocks.{b}", context, w) for b, w in enumerate(widths)]
    in_channels = shapes["conv_in.weight"][1]
    config: dict[str, Any] = {
        "in_channels": in_channels,
        "block_out_channels": widths,
        "layers_per_block": 1 + max(_numbers(shapes, r"down_blocks\.0\.resnets\.(\d+)\.")),
        "down_block_types": ["CrossAttnDownBlock2D" if d else "DownBlock2D" for d in depth],
        "transformer_layers_per_block": _layers(depth, _depth(shapes, "mid_block")),
        "cross_attention_dim": context,
        "use_linear_projection": linear,
        # diffusers' field of this name holds the COUNT of heads; the x4 upscaler has 8, as SD 1.x
        "attention_head_dim": [max(1, w // 64) for w in widths] if linear and in_channels != 7 else 8,
        "norm_num_groups": 32 if all(w % 32 == 0 for w in widths) else math.gcd(*widths),
    }
    if any(only_cross):
        config["only_cross_attention"] = only_cross
    return config | _vector(shapes, pooled)


def _vector(shapes: Shapes, pooled: int | None) -> dict[str, Any]:
    if "class_embedding.weight" in shapes:
        return {"num_class_embeds": shapes["class_embedding.weight"][0]}
    if "class_embedding.linear_1.weight" in shapes:
        width = shapes["class_embedding.linear_1.weight"][1]
        return {"class_embed_type": "projection", "projection_class_embeddings_input_dim": width}
    if "add_embedding.linear_1.weight" not in shapes:
        return {}
    width = shapes["add_embedding.linear_1.weight"][1]
    text, ids = VECTOR_PARTS.get(width, pooled or width - 6 * 256), 5 if width == 2560 else 6
    if text <= 0 or (width - text) % ids:
        raise WeightsError("", f"the vector embedding takes {width} numbers, which is no pooled text and six sinusoids. "
                               "Give the folder layout with its config.json, which says how they are divided.")  # fmt: skip
    return {"addition_embed_type": "text_time", "addition_time_embed_dim": (width - text) // ids,
            "projection_class_embeddings_input_dim": width}  # fmt: skip


def context_width(shapes: Shapes) -> int | None:
    """Width of the context that cross-attention reads; None for a network without any (SDXL "small" ControlNets)."""
    return next((s[1] for k, s in shapes.items() if k.endswith(".attn2.to_k.weight")), None)


Depth = int | list[int]


def _depth(shapes: Shapes, block: str) -> Depth:
    """Transformer blocks per attention of one level, as a list where they differ (SSD-1B); 0 without attention."""
    depths = [
        1 + max(_numbers(shapes, rf"{re.escape(block)}\.attentions\.{a}\.transformer_blocks\.(\d+)\."), default=-1)
        for a in sorted(set(_numbers(shapes, rf"{re.escape(block)}\.attentions\.(\d+)\.")))
    ]
    return depths if len(set(depths)) > 1 else depths[0] if depths else 0


def _layers(depth: list[Depth], mid: Depth) -> Depth | list[Depth]:
    """diffusers takes the middle's depth from the last level, also where that level has no attention (SD 1.x)."""
    depth = depth if depth[-1] or not mid else [*depth[:-1], mid]
    last = depth[-1]
    if mid and mid != (last[0] if isinstance(last, list) else last):
        raise WeightsError("", f"the middle block has depth {mid}, the last level {last}; infuse has no such network. Choose the full "
                               "model that this one was cut from.")  # fmt: skip
    filled = [d or 1 for d in depth]
    same = isinstance(filled[0], int) and all(d == filled[0] for d in filled)
    return filled[0] if same else filled


def _mid(shapes: Shapes) -> str | None:
    if not any(k.startswith("mid_block.") for k in shapes):
        return None
    return "UNetMidBlock2DCrossAttn" if _depth(shapes, "mid_block") else "UNetMidBlock2D"


def _attends_only_context(shapes: Shapes, block: str, context: int, width: int) -> bool:
    inner = shapes.get(f"{block}.attentions.0.transformer_blocks.0.attn1.to_k.weight")
    return inner is not None and inner[1] == context != width


def _numbers(names: Iterable[str], pattern: str) -> list[int]:
    compiled = re.compile(pattern)
    return [int(m[1]) for name in names if (m := compiled.match(name))]


def vae(shapes: Shapes, *, family: str, sample_size: int = 512) -> dict[str, Any]:
    """Config of the AutoencoderKL with these tensors; `family` decides only its scaling factor."""
    levels = 1 + max(_numbers(shapes, r"encoder\.down_blocks\.(\d+)\."))
    widths = [shapes[f"encoder.down_blocks.{b}.resnets.0.conv1.weight"][0] for b in range(levels)]
    return {
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": 1 + max(_numbers(shapes, r"encoder\.down_blocks\.0\.resnets\.(\d+)\.")),
        "norm_num_groups": 32 if all(w % 32 == 0 for w in widths) else math.gcd(*widths),
        "scaling_factor": SCALING.get(family, 0.18215),
        "force_upcast": family == "sdxl",  # its activations overflow half precision
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "sample_size": sample_size,
    }


def text(shapes: Shapes, *, act: str, heads: int | None = None) -> dict[str, Any]:
    """Config of the CLIP text tower with these tensors. `act`: quick_gelu for OpenAI's ViT-L, gelu for OpenCLIP's."""
    vocabulary, width = shapes["text_model.embeddings.token_embedding.weight"]
    return {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["text_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": 1 + max(_numbers(shapes, r"text_model\.encoder\.layers\.(\d+)\.")),
        "num_attention_heads": heads or max(1, width // 64),
        "max_position_embeddings": shapes["text_model.embeddings.position_embedding.weight"][0],
        "hidden_act": act,
        "projection_dim": shapes.get("text_projection.weight", (width,))[0],
        "bos_token_id": vocabulary - 2, "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1,
    }  # fmt: skip


def vision(shapes: Shapes, *, act: str = "gelu") -> dict[str, Any]:
    """Config of the CLIP image tower with these tensors. `act`: gelu for OpenCLIP's, quick_gelu for OpenAI's."""
    embeddings = "vision_model.embeddings"
    width, patch = shapes[f"{embeddings}.patch_embedding.weight"][::3]
    grid = math.isqrt(shapes[f"{embeddings}.position_embedding.weight"][0] - 1)
    return {
        "hidden_size": width,
        "intermediate_size": shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": 1 + max(_numbers(shapes, r"vision_model\.encoder\.layers\.(\d+)\.")),
        "num_attention_heads": 16 if width >= 1024 else max(1, width // 64),  # ViT-L, H, g and bigG all have 16
        "image_size": grid * patch,
        "patch_size": patch,
        "hidden_act": act,
        "projection_dim": shapes["visual_projection.weight"][0],
    }


def scheduler(
    family: str, prediction: str, *, zero_snr: bool = False, lcm: bool = False, upscaler: bool = False
) -> dict[str, Any]:
    """The noise schedule that all SD models were trained with, and the sampler their Hub folders name.

    `family` is sd1 (PNDM), sd2 (DDIM) or sdxl (Euler); steps are spaced from the end ("leading"), offset by one. lcm: the
    network was distilled to few steps. upscaler: the x4 upscaler has a schedule of its own (x4-upscaling.yaml).
    """
    config: dict[str, Any] = {
        "_class_name": {"sd1": "PNDMScheduler", "sd2": "DDIMScheduler"}.get(family, "EulerDiscreteScheduler"),
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000,
        "prediction_type": "v_prediction" if prediction == "v_prediction" else "epsilon",
        "steps_offset": 1, "clip_sample": False, "set_alpha_to_one": False, "timestep_spacing": "leading",
    }  # fmt: skip
    if family == "sd1":
        config["skip_prk_steps"] = True
    if upscaler:
        config |= {"beta_start": 1e-4, "beta_end": 0.02}
    if lcm:  # as the Hub folder of LCM_Dreamshaper_v7 has it
        config |= {"_class_name": "LCMScheduler", "steps_offset": 0, "set_alpha_to_one": True}
    if zero_snr:  # "Common diffusion noise schedules and sample steps are flawed": the last step must be pure noise
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        config["_class_name"] = "DDIMScheduler" if family == "sd1" else config["_class_name"]  # PNDM has no such option
    return config

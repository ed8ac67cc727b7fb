"""What is heard through attention: IP-Adapters, GLIGEN's boxes, style tokens, textual inversions.

Source of the layouts: tencent-ailab/IP-Adapter @ 62e4af9d, gligen/GLIGEN @ f9dccb9c, TencentARC/T2I-Adapter @ 16bba674.
"""

from __future__ import annotations

import re

from infuse.weights.kinds import Identity
from infuse.weights.looks.table import Table

WEBUI, PAIR = "string_to_param.", ("clip_l", "clip_g")
"""Before the webui's words; SDXL's two encoders."""
NAMELESS = re.compile(
    r"learned_embeds([-_].*)?|embeds?|embeddings?|(pytorch_|diffusion_pytorch_)?model|checkpoint|", re.IGNORECASE
)
"""Names that trainers give to any file."""
TWINS = "v1 and v2 have the same tensors; v2 adds a shortcut that the recipe must ask for"
WIDTHS = (768, 1024, 1280)
"""Of the token tables of CLIP's ViT-L, ViT-H and ViT-bigG."""


def ip_adapter(table: Table) -> Identity | None:
    """An IP-Adapter of any kind: by how its projection begins."""
    header = table.header
    layers = [k for k in header if k.endswith("to_k_ip.weight")]
    if not layers:
        return None
    context = header[layers[0]].shape[1]
    proj = header.shapes("image_proj.")
    width = tokens = None
    if "proj.weight" in proj:
        variant, (out, width) = "plain", proj["proj.weight"]
        tokens = out // context
    elif "proj.3.weight" in proj:
        variant, width, tokens = "full", proj["proj.0.weight"][1], 257
    elif "perceiver_resampler.proj_in.weight" in proj:
        variant, width = "faceid_plus", proj["perceiver_resampler.proj_in.weight"][1]
        tokens = proj["proj.2.weight"][0] // context
    elif "proj.2.weight" in proj:
        variant, width, tokens = "faceid", proj["proj.0.weight"][1], proj["proj.2.weight"][0] // context
    elif "latents" in proj:
        width, tokens = proj["proj_in.weight"][1], proj["latents"][1]
        variant = "instantid" if width == 512 else "plus"
    else:
        variant = "foreign"
    notes = (TWINS,) * (variant == "faceid_plus")
    ranks = [e.shape[0] for k, e in header.items() if k.endswith("_lora.down.weight")]
    if any("_lora." in k for k in header):
        notes += ("a LoRA for the attention layers is inside",)
    if any("image_proj_model." in k for k in header.stored.values()):
        notes += ("a checkpoint of its trainer; only the adapter is read",)
    return Identity("ip_adapter", "ip_adapter", variant, "", context, tokens=tokens, encoder_width=width,
                    cross_layers=len(layers), rank=ranks[0] if ranks else None, notes=notes)  # fmt: skip


GROUNDINGS = (
    ("keypoints", ("position_net.person_embeddings",)),
    ("text_image", ("position_net.linears_text.0.weight",)),
    ("semantic", ("position_net.in_conv.weight",)),
    ("map", ("position_net.convnext_tiny_backbone.downsample_layers.0.0.weight",)),
    ("map", ("position_net.pos_embedding",)),
    ("text", ("position_net.null_positive_feature",)),
    ("text", ("position_net.linears.0.weight",)),
)
"""What its boxes, points or maps are said with -> keys that only this kind has, from the most to the least specific."""


def gligen(table: Table) -> Identity | None:
    """A GLIGEN: what projects its grounding, and the fusers; alone, or inside of the whole UNet they were trained in."""
    for variant, markers in GROUNDINGS:
        if (prefix := table.before(*markers)) is None:
            continue
        fusers = sum(k.endswith("fuser.alpha_attn") for k in table.header)
        first = f"{prefix}input_blocks.0.0.weight", f"{prefix}conv_in.weight"
        channels = next((c for f in first if (c := table.dim(f, 1))), None)
        layout = "ldm" if table.any(r"put_blocks\.\d+\.1\.") else "diffusers"
        context = table.context(prefix) or _grounded(table, prefix)
        notes = ("inside of a whole UNet; only its grounding and fusers are read",) * (channels is not None)
        if channels == 9:
            notes += ("it was trained to fill boxes: its first convolution reads 9 channels",)
        return Identity("gligen", layout, variant, prefix, context, channels, modules=fusers, notes=notes)
    return None


def _grounded(table: Table, prefix: str) -> int | None:
    """Width of the grounding tokens, which is the text's (SD 1.4)."""
    fuser = next((e.shape for k, e in table.header.items() if k.endswith("fuser.linear.weight")), ())
    return fuser[1] if len(fuser) > 1 else None


def style(table: Table) -> Identity | None:
    """A T2I style adapter: tokens that are appended to the text's."""
    prefix = table.before("style_embedding")
    if prefix is None or f"{prefix}proj" not in table.header:
        return None
    tokens, context = table.dim(f"{prefix}style_embedding", 1), table.dim(f"{prefix}proj", 1)
    reads = table.dim(f"{prefix}proj", 0)
    return Identity("t2i_style", "original", "", prefix, context, tokens=tokens, encoder_width=reads)


def word_of(key: str) -> str:
    """The word that a textual inversion's key gives its vectors; "" for the names that trainers and programs give to any."""
    said = key.removeprefix(WEBUI).strip()
    return "" if key in ("emb_params", *PAIR) or not said.strip("* ") or NAMELESS.fullmatch(said) else said


def inversion(table: Table) -> Identity | None:
    """A textual inversion: vectors for new words, one table for each text encoder. Asked last, since any tensor could be one."""
    header = table.header
    pair = [k for k in PAIR if k in header]
    if len(pair) == 2:
        return Identity("textual_inversion", "sdxl", context_width=2048, tokens=table.dim("clip_g", 0))
    if any(k.startswith(WEBUI) for k in header):
        keys, layout = [k for k in header if k.startswith(WEBUI)], "webui"
    elif "emb_params" in header:
        keys, layout = ["emb_params"], "webui"
    elif pair and all(
        k.removesuffix("_out") in pair for k in header
    ):  # OneTrainer saves what is said beside what is heard
        keys, layout = pair, "sdxl"
    elif len(header) == 1 or all(k.startswith("<") for k in header):
        keys, layout = [k for k in header if not k.endswith((".weight", ".bias"))], "diffusers"
    else:
        return None
    shapes = [header[k].shape for k in keys]
    if not shapes or any(len(s) not in (1, 2) for s in shapes):
        return None
    called = all(
        k.startswith("<") and k.endswith(">") for k in keys
    )  # nothing else is: of any base, the tabletop's too
    if not called and {s[-1] for s in shapes}.isdisjoint(WIDTHS):
        return None
    if len({s[-1] for s in shapes}) > 1:
        return None
    tokens = sum(s[0] if len(s) == 2 else 1 for s in shapes)
    notes = (f"{len(keys)} words",) * (len(keys) > 1)
    if keys == ["clip_l"] or keys == ["clip_g"]:
        layout, notes = "sdxl", ("for one of the text encoders only",)
    words = tuple(w for k in keys if (w := word_of(k)))
    return Identity("textual_inversion", layout, context_width=shapes[0][-1], tokens=tokens, words=words, notes=notes)

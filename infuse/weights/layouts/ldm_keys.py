"""One key of an original (LDM, SGM, OpenCLIP) checkpoint in, its diffusers name out. Names only, no tensors.

Every function takes the keys of one component with its prefix removed and answers `{stored key: diffusers key}`; a key
that has no place in diffusers is not in the answer, so that the caller can report it. Source of the map: the layouts
themselves (CompVis/stable-diffusion, Stability-AI/generative-models, mlfoundations/open_clip); inner transformer
names are the same on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

RESNET = {
    "in_layers.0": "norm1", "in_layers.2": "conv1", "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2", "out_layers.3": "conv2", "skip_connection": "conv_shortcut",
}  # fmt: skip
EMBEDDINGS = {"time_embed.0": "time_embedding.linear_1", "time_embed.2": "time_embedding.linear_2",
              "time_embed.cond_proj": "time_embedding.cond_proj"}  # fmt: skip
ENDS = {"input_blocks.0.0": "conv_in", "out.0": "conv_norm_out", "out.2": "conv_out"}
MIDDLE = {"0": "mid_block.resnets.0", "1": "mid_block.attentions.0", "2": "mid_block.resnets.1"}
LABELS = {"label_emb.0.0": ".linear_1", "label_emb.0.2": ".linear_2"}
"""Behind the name that the vector's embedding has in diffusers."""
HINT_LAYERS = 8  # 3x3 convolutions 0, 2, ..., 14 of the released hint encoder (ControlNet, cldm.py)


def flat(vector: str) -> dict[str, str]:
    """Modules outside of the blocks: LDM name -> diffusers name. `vector` as in `trunk`."""
    labels = {old: vector + new for old, new in LABELS.items()}
    return {**EMBEDDINGS, **ENDS, **labels, "label_emb": "class_embedding"}  # x4 upscaler: one row per noise level


def trunk(keys: Iterable[str], vector: str = "add_embedding") -> dict[str, str]:
    """UNet, or the encoder and middle of one (ControlNet): LDM key -> diffusers key.

    `vector` is where `label_emb.0` goes: `add_embedding` (SDXL) or `class_embedding` (SD 2 unCLIP).
    """
    keys = list(keys)
    per = encoder_resnets(keys)
    outside = flat(vector)
    found: dict[str, str] = {}
    for key in keys:
        module, _, leaf = key.rpartition(".")
        if module in outside:
            found[key] = f"{outside[module]}.{leaf}"
        elif name := _block(key, per):
            found[key] = name
    return found


def encoder_resnets(keys: Iterable[str]) -> int:
    """Resnets per level, read off the first downsampler: `input_blocks.3.0.op` means two."""
    down = [int(m[1]) for k in keys if (m := re.match(r"input_blocks\.(\d+)\.0\.op\.", k))]
    if down:
        return min(down) - 1
    blocks = [int(m[1]) for k in keys if (m := re.match(r"input_blocks\.(\d+)\.", k))]
    return max(blocks, default=2)


def _block(key: str, per: int) -> str:
    side, _, rest = key.partition(".")
    index, _, rest = rest.partition(".")
    if side == "middle_block" and index in MIDDLE:
        return _inner(MIDDLE[index], rest)
    if side not in ("input_blocks", "output_blocks") or not index.isdecimal():
        return ""
    part, _, rest = rest.partition(".")
    encoder = side == "input_blocks"
    level, at = divmod(int(index) - encoder, per + 1)
    block = f"{'down' if encoder else 'up'}_blocks.{level}"
    if encoder and rest.startswith("op."):
        return f"{block}.downsamplers.0.conv.{rest[3:]}"
    if not encoder and rest.startswith("conv."):  # slot 1 when the block has no attention, else 2
        return f"{block}.upsamplers.0.conv.{rest[5:]}"
    kind = {"0": "resnets", "1": "attentions"}.get(part)
    return _inner(f"{block}.{kind}.{at}", rest) if kind else ""


def _inner(block: str, rest: str) -> str:
    if ".resnets." not in block:
        return f"{block}.{rest}"
    module, _, leaf = rest.rpartition(".")
    return f"{block}.{RESNET[module]}.{leaf}" if module in RESNET else ""


def controlnet(keys: Iterable[str]) -> dict[str, str]:
    """ControlNet (cldm): the trunk, its zero convolutions and its hint encoder."""
    keys = list(keys)
    found = trunk(keys)
    hint = sorted({int(m[1]) for k in keys if (m := re.match(r"input_hint_block\.(\d+)\.", k))})
    places = {i: f"controlnet_cond_embedding.blocks.{n - 1}" for n, i in enumerate(hint)}
    if hint:
        places |= {hint[0]: "controlnet_cond_embedding.conv_in", hint[-1]: "controlnet_cond_embedding.conv_out"}
    for key in keys:
        module, _, leaf = key.rpartition(".")
        if m := re.fullmatch(r"zero_convs\.(\d+)\.0", module):
            found[key] = f"controlnet_down_blocks.{m[1]}.{leaf}"
        elif module == "middle_block_out.0":
            found[key] = f"controlnet_mid_block.{leaf}"
        elif m := re.fullmatch(r"input_hint_block\.(\d+)", module):
            found[key] = f"{places[int(m[1])]}.{leaf}"
    return found


def vae(keys: Iterable[str]) -> dict[str, str]:
    """AutoencoderKL: decoder levels are counted from the picture in LDM, from the latents in diffusers."""
    keys = list(keys)
    ups = 1 + max((int(m[1]) for k in keys if (m := re.match(r"decoder\.up\.(\d+)\.", k))), default=0)
    found: dict[str, str] = {}
    for key in keys:
        side, _, rest = key.partition(".")
        if side in ("quant_conv", "post_quant_conv"):
            found[key] = key
        elif side in ("encoder", "decoder") and (name := _vae_inner(rest, ups)):
            found[key] = f"{side}.{name}"
    return found


VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
VAE_SLIPS = ("to_q", "to_k", "to_v", "to_out.0")
"""Of early converters back from diffusers, kept alive by merges: its names in LDM's place."""
SHORTCUT = {"nin_shortcut": "conv_shortcut"}


def _vae_inner(rest: str, ups: int) -> str:
    if rest.startswith(("conv_in.", "conv_out.")):
        return rest
    if m := re.fullmatch(r"norm_out\.(\w+)", rest):
        return f"conv_norm_out.{m[1]}"
    if m := re.fullmatch(r"mid\.block_([12])\.(\w+)\.(\w+)", rest):
        return f"mid_block.resnets.{int(m[1]) - 1}.{SHORTCUT.get(m[2], m[2])}.{m[3]}"
    if (m := re.fullmatch(r"mid\.attn_1\.(.+)\.(\w+)", rest)) and m[1] in (*VAE_ATTENTION, *VAE_SLIPS):
        return f"mid_block.attentions.0.{VAE_ATTENTION.get(m[1], m[1])}.{m[2]}"
    m = re.fullmatch(r"(down|up)\.(\d+)\.(?:block\.(\d+)\.(\w+)|(downsample|upsample)\.conv)\.(\w+)", rest)
    if not m:
        return ""
    level = int(m[2]) if m[1] == "down" else ups - 1 - int(m[2])
    if m[5]:
        return f"{m[1]}_blocks.{level}.{m[5]}rs.0.conv.{m[6]}"
    return f"{m[1]}_blocks.{level}.resnets.{m[3]}.{SHORTCUT.get(m[4], m[4])}.{m[6]}"


OPEN_CLIP = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",  # stored (width, projection): transposed by the caller
}
OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}  # fmt: skip


def open_clip(keys: Iterable[str], layers: int) -> dict[str, str]:
    """OpenCLIP text tower -> transformers names, of the first `layers` layers.

    `attn.in_proj_{weight,bias}` maps to `...self_attn.{q,k,v}_proj.*` with the three in braces: one tensor, three names.
    """
    found: dict[str, str] = {}
    for key in keys:
        m = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key)
        if not m:
            if key in OPEN_CLIP:
                found[key] = OPEN_CLIP[key]
            continue
        if int(m[1]) >= layers:
            continue
        layer, (module, _, leaf) = f"text_model.encoder.layers.{m[1]}", m[2].rpartition(".")
        if name := _open_clip_layer(layer, module, leaf):
            found[key] = name
    return found


def _open_clip_layer(layer: str, module: str, leaf: str) -> str:
    if module in OPEN_CLIP_LAYER:
        return f"{layer}.{OPEN_CLIP_LAYER[module]}.{leaf}"
    return f"{layer}.self_attn.{{q,k,v}}_proj.{leaf.removeprefix('in_proj_')}" if leaf.startswith("in_proj_") else ""


def open_clip_layers(keys: Iterable[str]) -> int:
    """Layers of an OpenCLIP tower."""
    numbers = (int(m[1]) for k in keys if (m := re.match(r"transformer\.resblocks\.(\d+)\.", k)))
    return 1 + max(numbers, default=-1)


def open_clip_heard(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The part of an OpenCLIP text tower that SD 2.x and its video networks hear: all layers but the last, no projection.

    ViT-H has 24 layers, of which the 23rd is heard; files converted back from diffusers hold only those 23.
    """
    layers, width = open_clip_layers(shapes), shapes["token_embedding.weight"][1]
    names = open_clip(shapes, layers if (layers, width) == (23, 1024) else layers - 1)
    return {k: n for k, n in names.items() if k != "text_projection"}


OPEN_CLIP_VISUAL = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # spelled so in transformers
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",  # stored (width, projection): transposed by the caller
}


def open_clip_visual(keys: Iterable[str]) -> dict[str, str]:
    """OpenCLIP image tower (what stands behind `visual.`) -> names of transformers' CLIPVisionModelWithProjection.

    As in `open_clip`, one in-projection makes three names, and the layers are named alike.
    """
    found: dict[str, str] = {}
    for key in keys:
        if m := re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key):
            module, _, leaf = m[2].rpartition(".")
            name = _open_clip_layer(f"vision_model.encoder.layers.{m[1]}", module, leaf)
        else:
            name = OPEN_CLIP_VISUAL.get(key, "")
        if name:
            found[key] = name
    return found


def clip(keys: Iterable[str]) -> dict[str, str]:
    """CLIP text tower in transformers' own names; some merges lost the `text_model.` in front."""
    names = {k: k if k.startswith(("text_model.", "text_projection.")) else f"text_model.{k}" for k in keys}
    known = ("text_model.embeddings.", "text_model.encoder.", "text_model.final_layer_norm.", "text_projection.")
    return {k: n for k, n in names.items() if n.startswith(known) and not n.endswith("position_ids")}

"""Tiny random networks, and how the original repositories would have written them: the inverse map, by hand.

Deliberately written the other way round from `infuse.weights.layouts.ldm_keys` (a walk over the modules, not a map of names), so
that a slip in one is seen by the other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

State = dict[str, Tensor]
RES = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
       "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip


def put(out: State, prefix: str, module: nn.Module) -> None:
    out |= {f"{prefix}.{k}": v for k, v in module.state_dict().items()}


def put_resnet(out: State, prefix: str, resnet: nn.Module) -> None:
    for key, value in resnet.state_dict().items():
        module, _, leaf = key.rpartition(".")
        out[f"{prefix}.{RES[module]}.{leaf}"] = value


def encoder(net: Any) -> State:
    out: State = {}
    put(out, "time_embed.0", net.time_embedding.linear_1)
    put(out, "time_embed.2", net.time_embedding.linear_2)
    if getattr(net.time_embedding, "cond_proj", None) is not None:
        put(out, "time_embed.cond_proj", net.time_embedding.cond_proj)
    if getattr(net, "add_embedding", None) is not None:
        put(out, "label_emb.0.0", net.add_embedding.linear_1)
        put(out, "label_emb.0.2", net.add_embedding.linear_2)
    if isinstance(net.class_embedding, nn.Embedding):
        put(out, "label_emb", net.class_embedding)
    elif net.class_embedding is not None:
        put(out, "label_emb.0.0", net.class_embedding.linear_1)
        put(out, "label_emb.0.2", net.class_embedding.linear_2)
    put(out, "input_blocks.0.0", net.conv_in)
    i = 1
    for block in net.down_blocks:
        for j, resnet in enumerate(block.resnets):
            put_resnet(out, f"input_blocks.{i}.0", resnet)
            if hasattr(block, "attentions"):
                put(out, f"input_blocks.{i}.1", block.attentions[j])
            i += 1
        if block.downsamplers:
            put(out, f"input_blocks.{i}.0.op", block.downsamplers[0].conv)
            i += 1
    if net.mid_block is None:
        return out
    put_resnet(out, "middle_block.0", net.mid_block.resnets[0])
    if len(net.mid_block.resnets) > 1:
        put(out, "middle_block.1", net.mid_block.attentions[0])
        put_resnet(out, "middle_block.2", net.mid_block.resnets[1])
    return out


def ldm_unet(net: UNet2DConditionModel) -> State:
    out, i = encoder(net), 0
    for block in net.up_blocks:
        for j, resnet in enumerate(block.resnets):
            slot = 1
            put_resnet(out, f"output_blocks.{i}.0", resnet)
            if hasattr(block, "attentions"):
                put(out, f"output_blocks.{i}.1", block.attentions[j])
                slot = 2
            if block.upsamplers and j == len(block.resnets) - 1:
                put(out, f"output_blocks.{i}.{slot}.conv", block.upsamplers[0].conv)
            i += 1
    put(out, "out.0", net.conv_norm_out)
    put(out, "out.2", net.conv_out)
    return out


def ldm_controlnet(net: ControlNetModel) -> State:
    out = encoder(net)
    for i, conv in enumerate(net.controlnet_down_blocks):
        put(out, f"zero_convs.{i}.0", conv)
    put(out, "middle_block_out.0", net.controlnet_mid_block)
    hint = net.controlnet_cond_embedding
    for i, conv in enumerate([hint.conv_in, *hint.blocks, hint.conv_out]):
        put(out, f"input_hint_block.{2 * i}", conv)
    return out


def ldm_vae(net: AutoencoderKL) -> State:
    out: State = {}
    for side, module in (("encoder", net.encoder), ("decoder", net.decoder)):
        put(out, f"{side}.conv_in", module.conv_in)
        put(out, f"{side}.conv_out", module.conv_out)
        put(out, f"{side}.norm_out", module.conv_norm_out)
        for n in (0, 1):
            put_vae_resnet(out, f"{side}.mid.block_{n + 1}", module.mid_block.resnets[n])
        attention = module.mid_block.attentions[0]
        put(out, f"{side}.mid.attn_1.norm", attention.group_norm)
        for ours, theirs in (
            (attention.to_q, "q"),
            (attention.to_k, "k"),
            (attention.to_v, "v"),
            (attention.to_out[0], "proj_out"),
        ):
            out[f"{side}.mid.attn_1.{theirs}.weight"] = ours.weight.detach()[:, :, None, None].clone()
            out[f"{side}.mid.attn_1.{theirs}.bias"] = ours.bias.detach()
    for level, block in enumerate(net.encoder.down_blocks):
        for j, resnet in enumerate(block.resnets):
            put_vae_resnet(out, f"encoder.down.{level}.block.{j}", resnet)
        if block.downsamplers:
            put(out, f"encoder.down.{level}.downsample.conv", block.downsamplers[0].conv)
    for level, block in enumerate(reversed(net.decoder.up_blocks)):
        for j, resnet in enumerate(block.resnets):
            put_vae_resnet(out, f"decoder.up.{level}.block.{j}", resnet)
        if block.upsamplers:
            put(out, f"decoder.up.{level}.upsample.conv", block.upsamplers[0].conv)
    put(out, "quant_conv", net.quant_conv)
    put(out, "post_quant_conv", net.post_quant_conv)
    return out


def put_vae_resnet(out: State, prefix: str, resnet: nn.Module) -> None:
    out |= {f"{prefix}.{k.replace('conv_shortcut', 'nin_shortcut')}": v for k, v in resnet.state_dict().items()}


def hf_text(net: nn.Module) -> State:
    """A CLIP text tower in the names that SD 1.x and SDXL checkpoints use."""
    state = {k if k.startswith("text_") else f"text_model.{k}": v for k, v in net.state_dict().items()}
    return {k: v for k, v in state.items() if not k.startswith("text_projection")}


def open_clip_text(net: Any, spare_layer: bool) -> State:
    """A CLIP text tower in OpenCLIP's names; `spare_layer` appends the last layer that SD 2.x never reads."""
    body = getattr(net, "text_model", net)
    out: State = {
        "positional_embedding": body.embeddings.position_embedding.weight.detach(),
        "token_embedding.weight": body.embeddings.token_embedding.weight.detach(),
        "logit_scale": torch.tensor(4.6),
    }
    put(out, "ln_final", body.final_layer_norm)
    layers = [*body.encoder.layers, *([body.encoder.layers[-1]] if spare_layer else [])]
    for i, layer in enumerate(layers):
        to, attn = f"transformer.resblocks.{i}", layer.self_attn
        put(out, f"{to}.ln_1", layer.layer_norm1)
        put(out, f"{to}.ln_2", layer.layer_norm2)
        put(out, f"{to}.mlp.c_fc", layer.mlp.fc1)
        put(out, f"{to}.mlp.c_proj", layer.mlp.fc2)
        put(out, f"{to}.attn.out_proj", attn.out_proj)
        projections = (attn.q_proj, attn.k_proj, attn.v_proj)
        out[f"{to}.attn.in_proj_weight"] = torch.cat([p.weight.detach() for p in projections])
        out[f"{to}.attn.in_proj_bias"] = torch.cat([p.bias.detach() for p in projections])
    projection = getattr(net, "text_projection", None)
    out["text_projection"] = projection.weight.detach().T if projection is not None else torch.zeros(64, 64)
    return out


def tiny_unet(kin: str = "sd1", channels: int = 4, **more: Any) -> UNet2DConditionModel:
    """Two levels of 64 and 128; heads as the family counts them, so that a loaded network computes the same."""
    config: dict[str, Any] = {
        "in_channels": channels, "out_channels": 4, "block_out_channels": (64, 128), "layers_per_block": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 48, "attention_head_dim": 8, "sample_size": 64,
    }  # fmt: skip
    if kin != "sd1":
        config |= {"use_linear_projection": True, "attention_head_dim": (1, 2)}
    if kin == "sdxl":
        config |= {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"), "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 3), "addition_embed_type": "text_time", "addition_time_embed_dim": 16,
            "projection_class_embeddings_input_dim": 32 + 6 * 16, "cross_attention_dim": 96,
        }  # fmt: skip
    return random(UNet2DConditionModel(**(config | more)))


def tiny_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    return random(ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(16, 32, 32, 64)))


def tiny_vae() -> AutoencoderKL:
    return random(AutoencoderKL(block_out_channels=(32, 64), layers_per_block=1, latent_channels=4,
                                down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2))  # fmt: skip


def tiny_text(width: int, act: str, projection: int | None = None, layers: int = 2) -> Any:
    config = CLIPTextConfig(vocab_size=49408, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
                            num_attention_heads=max(1, width // 64), hidden_act=act, projection_dim=projection or width)  # fmt: skip
    return random((CLIPTextModelWithProjection if projection else CLIPTextModel)(config))


def random(net: Any) -> Any:
    generator = torch.Generator().manual_seed(7)
    for p in net.parameters():
        p.data.copy_(torch.randn(p.shape, generator=generator) * 0.05)
    return net.eval().requires_grad_(False)


def save(path: Path, state: State, **prefixes: State) -> Path:
    """One file from a bare state and others under prefixes (`_` in a keyword means the dot)."""
    whole = dict(state)
    for prefix, part in prefixes.items():
        whole |= {f"{prefix}.{k}": v for k, v in part.items()}
    save_file({k: v.detach().clone().contiguous() for k, v in whole.items()}, str(path))
    return path


def prefixed(prefix: str, state: State) -> State:
    return {prefix + k: v for k, v in state.items()}

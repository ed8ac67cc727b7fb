"""Models of other families are named, not guessed: by tensors that only their networks have.

One row a family: its name, and what its keys must end with, all behind one prefix. Rows are read from top to bottom, so
that a successor stands before what it grew from. Source of the names: diffusers 0.42.1, loaders/single_file_utils.py;
Comfy-Org/ComfyUI @ 0b61ce5b, comfy/model_detection.py. Imports no torch.
"""

from __future__ import annotations

import re

from infuse.weights.kinds import Identity
from infuse.weights.looks.table import Table

FAMILIES: tuple[tuple[str, tuple[str, ...]], ...] = (
    # what stands beside transformers
    ("a ControlNet of a transformer (SD3, FLUX, Qwen-Image and the like)", ("controlnet_blocks.0.weight",)),
    # transformers of double and single blocks
    ("FLUX.3", ("early_stream_modulations.image.lin.weight",)), ("FLUX.3", ("ref_time_in.in_layer.weight",)),
    ("FLUX.2", ("double_stream_modulation_img.lin.weight",)), ("FLUX.2", ("double_stream_modulation_img.linear.weight",)),
    ("FLUX.2", ("single_stream_modulation.lin.weight",)),
    ("Chroma", ("distilled_guidance_layer.in_proj.bias",)), ("Chroma", ("distilled_guidance_layer.in_proj.weight",)),
    ("HunyuanVideo or HunyuanImage", ("txt_in.individual_token_refiner.blocks.0.norm1.weight",)),
    ("HunyuanVideo or HunyuanImage", ("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias",)),
    ("HunyuanVideo or HunyuanImage", ("context_embedder.token_refiner.refiner_blocks.0.attn.to_q.weight",)),
    ("Hunyuan3D", ("latent_in.weight", "cond_in.weight")),
    ("Hunyuan3D 2.1", ("t_embedder.mlp.2.weight", "blocks.0.attn1.k_norm.weight")),
    ("FLUX.1", ("double_blocks.0.img_attn.qkv.weight", "vector_in.in_layer.weight")), ("FLUX.1", ("double_blocks.0.img_attn.norm.key_norm.scale", "vector_in.in_layer.weight")),
    ("FLUX.1 or a relative of it", ("double_blocks.0.img_attn.norm.key_norm.scale",)),
    ("FLUX.1 or a relative of it", ("double_blocks.0.img_attn.norm.key_norm.weight",)),
    ("FLUX.1 or a relative of it", ("double_blocks.0.img_attn.qkv.weight",)),
    ("FLUX.1", ("single_transformer_blocks.0.attn.to_q.weight", "time_text_embed.text_embedder.linear_1.weight", "x_embedder.weight")),
    ("FLUX.1 or a relative of it", ("single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight", "context_embedder.weight")),
    ("AuraFlow", ("double_layers.0.attn.w1q.weight",)), ("AuraFlow", ("joint_transformer_blocks.0.norm1_context.linear.weight",)),
    ("SD3", ("joint_blocks.0.context_block.adaLN_modulation.1.bias",)), ("SD3", ("joint_blocks.0.context_block.attn.qkv.weight",)),
    ("Stable Audio", ("transformer.rotary_pos_emb.inv_freq", "to_cond_embed.0.weight")),
    ("Stable Audio", ("cross_attention_proj.0.weight", "preprocess_conv.weight")),
    # one stream, other text encoders
    ("Qwen-Image 2.1", ("txt_in.text_norm.weight", "img_in.weight")),
    ("Krea 2", ("txtfusion.projector.weight",)),
    ("Ideogram 4", ("embed_image_indicator.weight", "input_proj.weight")),
    ("Lens", ("transformer_blocks.0.attn.norm_added_q.weight", "transformer_blocks.0.img_mlp.w1.weight")),
    ("Qwen-Image", ("txt_norm.weight", "img_in.weight")),
    ("Qwen-Image", ("transformer_blocks.0.img_mod.1.weight",)),
    ("SD3", ("transformer_blocks.0.norm1_context.linear.weight", "pos_embed.proj.weight")),
    ("HiDream", ("double_stream_blocks.0.block.adaLN_modulation.1.bias",)), ("HiDream", ("caption_projection.0.linear.weight",)),
    ("Z-Image", ("all_x_embedder.2-1.weight",)), ("Z-Image", ("control_all_x_embedder.2-1.weight",)),
    ("Lumina 2 or Z-Image", ("noise_refiner.0.attention.k_norm.weight",)),
    ("Lumina 2 or Z-Image", ("noise_refiner.0.attn.norm_k.weight",)), ("Lumina 2", ("cap_embedder.0.weight",)),
    ("OmniGen 2", ("time_caption_embed.timestep_embedder.linear_1.bias",)),
    ("Sana", ("blocks.0.mlp.inverted_conv.conv.weight",)), ("Sana", ("transformer_blocks.0.ff.conv_inverted.weight",)),
    ("PixArt", ("t_block.1.weight", "y_embedder.y_proj.fc1.weight")),
    ("PixArt or Allegro", ("adaln_single.emb.timestep_embedder.linear_1.bias", "pos_embed.proj.weight")),
    ("HunyuanDiT", ("mlp_t5.0.weight",)), ("HunyuanDiT", ("text_embedding_padding",)),
    # films
    ("Wan", ("patch_embedding.weight", "head.modulation")), ("Wan", ("vace_blocks.0.after_proj.bias",)),
    ("Wan", ("condition_embedder.text_embedder.linear_1.weight", "patch_embedding.weight")),
    ("LTX-2", ("av_cross_attn_audio_v2a_gate.emb.timestep_embedder.linear_1.weight",)),
    ("LTX-2", ("av_ca_a2v_gate_adaln_single.emb.timestep_embedder.linear_1.weight",)),
    ("LTX-Video", ("patchify_proj.weight",)), ("LTX-Video", ("adaln_single.emb.timestep_embedder.linear_1.bias",)),
    ("LTX-Video", ("time_embed.emb.timestep_embedder.linear_1.weight", "caption_projection.linear_1.weight")),
    ("Mochi", ("t5_yproj.weight",)), ("Mochi", ("blocks.0.attn.qkv_x.weight",)), ("Mochi", ("pos_frequencies",)),
    ("CogVideoX or CogView", ("blocks.0.norm1.linear.weight", "patch_embed.proj.weight")),
    ("CogVideoX or CogView", ("transformer_blocks.0.norm1.linear.weight", "patch_embed.text_proj.weight")),
    ("Cosmos", ("learnable_pos_embed.pos_emb_t", "time_embed.t_embedder.linear_1.weight")),
    ("Cosmos", ("blocks.block0.blocks.0.block.attn.to_q.0.weight",)),
    ("Anima", ("llm_adapter.blocks.0.cross_attn.q_proj.weight",)), ("Cosmos", ("blocks.0.mlp.layer1.weight", "x_embedder.proj.1.weight")),
    ("Kandinsky 5 or 6", ("visual_embeddings.in_layer.weight",)),
    ("MiniMax H3", ("video_patch_proj.weight",)), ("SeedVR2", ("blocks.31.mlp.all.proj_in_gate.weight",)),
    ("Stable Video Diffusion", ("input_blocks.1.0.time_stack.in_layers.0.weight",)),
    ("Stable Video Diffusion", ("down_blocks.0.resnets.0.spatial_res_block.conv1.weight",)),
    ("I2VGen-XL", ("image_latents_context_embedding.0.weight",)),
    # UNets that are not Stable Diffusion's, or hear something else
    ("Stable Cascade, stage C", ("clip_txt_mapper.weight",)), ("Stable Cascade, stage B", ("clip_mapper.weight", "effnet_mapper.0.weight")),
    ("Stable Cascade, stage B", ("down_blocks.1.0.channelwise.0.weight",)),
    ("Kandinsky 2", ("encoder_hid_proj.image_embeds.weight",)), ("Kandinsky 2", ("add_embedding.image_proj.weight",)),
    ("Kandinsky 2", ("add_embedding.image_norm.weight",)),
    ("DeepFloyd IF", ("add_embedding.pool.positional_embedding",)),
    ("Kolors", ("encoder_hid_proj.weight", "add_embedding.linear_1.weight")),
    ("Kandinsky 3", ("encoder_hid_proj.projection_linear.weight", "add_time_condition.attention.to_q.weight")),
    ("an unCLIP prior (Karlo, Kandinsky)", ("prd_embedding", "proj_to_clip_embeddings.weight")),
    ("Zero-1-to-3", ("cc_projection.weight",)), ("Paint by Example", ("learnable_vector", "proj_out.weight")),
    ("PhotoMaker", ("id_encoder.visual_projection_2.weight",)), ("PhotoMaker", ("id_encoder.fuse_module.mlp1.fc1.weight",)),
    ("PuLID", ("id_adapter_attn_layers.1.id_to_k.weight",)), ("PuLID", ("pulid_ca.0.norm1.weight",)),
    ("an IP-Adapter of FLUX", ("double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight",)),
    # autoencoders
    ("the VAE of Wan or Qwen-Image", ("decoder.middle.0.residual.0.gamma",)),
    ("the VAE of Wan or Qwen-Image", ("decoder.mid_block.resnets.0.norm1.gamma",)),
    ("the VAE of LTX-Video", ("per_channel_statistics.mean-of-means",)),
    ("the VAE of a film model", ("decoder.conv_in.conv.weight",)),
    ("the VAE of Stable Video Diffusion", ("decoder.mid_block.resnets.0.spatial_res_block.conv1.weight",)),
    ("the VAE of Stable Video Diffusion", ("decoder.up.0.block.0.time_stack.in_layers.0.weight",)),
    ("the VAE of Sana (DC-AE)", ("encoder.project_in.conv.bias",)), ("the VAE of Sana (DC-AE)", ("decoder.stages.1.op_list.0.main.conv.conv.bias",)), ("the VAE of Sana (DC-AE)", ("encoder.down_blocks.0.0.conv1.weight",)),
    ("the VQGAN of Stable Cascade", ("vquantizer.codebook.weight",)), ("a VQ autoencoder (Kandinsky, early latent diffusion)", ("quantize.embedding.weight",)),
    # text and image encoders
    ("a T5 text encoder", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    ("a language model, as newer families read prompts with", ("model.layers.0.self_attn.q_proj.weight", "embed_tokens.weight")),
    ("a SigLIP image encoder", ("head.probe", "embeddings.patch_embedding.bias")),
    ("a DINOv2 image encoder", ("embeddings.mask_token", "encoder.layer.0.attention.attention.query.weight")),
)  # fmt: skip
CASCADE = "Stable Cascade"
LORAS: tuple[tuple[str, str], ...] = (
    ("FLUX", r"(^|[._])single_transformer_blocks[._]\d"),
    ("Qwen-Image", r"transformer_blocks[._]\d+[._](img|txt)_m(od|lp)"),
    ("SD3", r"(^|[._])joint_blocks[._]\d|transformer_blocks[._]\d+[._]attn[._]add_[qkv]_proj"),
    ("HunyuanVideo", r"individual_token_refiner|token_refiner[._]refiner_blocks"),
    ("FLUX or HunyuanVideo", r"(^|[._])(double|single)_blocks[._]\d"),
    ("Wan", r"(^|[._])blocks[._]\d+[._](self_attn|cross_attn)[._][qkvo]([._]|$)"),
    ("Z-Image or Lumina 2", r"(^|[._])layers[._]\d+[._]attention[._]|noise_refiner|context_refiner"),
    ("Kandinsky 5 or 6", r"visual_transformer_blocks[._]\d"),
    (CASCADE, r"(down|up)_blocks[._]\d+[._]\d+[._](attention|kv_mapper|channelwise)"),
    ("PixArt or LTX-Video", r"(^|[._])transformer_blocks[._]\d+[._](attn[12]|ff)[._]"),
)  # fmt: skip
"""Whose modules a LoRA changes, by their names; asked only where none is of Stable Diffusion's."""
STABLE = re.compile(r"(down|up|mid)_blocks?[._]|(in|out)put_blocks[._]|middle_block[._]")
"""Modules of a UNet like Stable Diffusion's."""


def family(table: Table) -> Identity | None:
    """A network, encoder or adapter of another family."""
    for name, (first, *more) in FAMILIES:
        if (prefix := table.before(first)) is not None and table.under(prefix, *more):
            return Identity("foreign", variant=name, prefix=prefix)
    if (prefix := table.before("encoder_hid_proj.weight")) is not None and table.dim(f"{prefix}conv_in.weight", 1) in (
        3,
        6,
    ):
        return Identity(
            "foreign", variant="DeepFloyd IF", prefix=prefix
        )  # it works on pixels: 3, or 6 beside a small picture
    return None


def lora_of(keys: list[str]) -> str:
    """Whose LoRA: the family's name; "" if it changes modules of Stable Diffusion, or of nothing known."""
    own = [k for k in keys if not k.startswith("bundle_emb.")]
    stable = any(STABLE.search(k) for k in own)
    for name, pattern in LORAS:
        if (name == CASCADE or not stable) and any(re.search(pattern, k) for k in own):
            return name
    return ""

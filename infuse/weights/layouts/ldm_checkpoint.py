"""One original checkpoint (LDM for SD 1.x and 2.x, SGM for SDXL) becomes a base model's parts, without any config file.

Configs are read off the tensors (`ldm_configs`), each component's keys by their own map (`ldm_keys`), the tokenizer is
in the package. Tensors are memory-mapped and converted one by one, so a file needs little more memory than its network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor

from infuse.notices import note
from infuse.weights.build import assemble
from infuse.weights.formats import Header, read_keys
from infuse.weights.identify import VAE
from infuse.weights.kinds import Identity
from infuse.weights.layouts import ldm_configs, ldm_keys, unclip
from infuse.weights.outline import Plan, must_be_base, plan_unet, scheduler_of, spec_of
from infuse.weights.parts import BaseParts, Loading, vae_dtype
from infuse.weights.tokenizer import END, clip_tokenizer

SKIPPED = (
    "model_ema.", "model.model_ema.", "first_stage_model.model_ema.", "first_stage_model.loss.", "loss.",
    "control_model.", "depth_model.", "embedder.", "noise_augmentor.", "low_scale_model.", "denoiser.", "edm_vpred.",
    "cond_stage_model.logit_scale", "cond_stage_model.model.logit_scale", "cond_stage_model.model.text_projection",
    "cond_stage_model.model.attn_mask", "conditioner.embedders.0.model.logit_scale", "conditioner.embedders.0.model.text_projection",
    "conditioner.embedders.1.model.logit_scale", "conditioner.embedders.1.logit_scale",
)  # fmt: skip
"""Known passengers of checkpoints that no part of the network reads at this place."""
TRANSPOSED = ("text_projection", "proj")
"""OpenCLIP's projections, (width, projection)."""
SCHEDULES = ("betas", "alphas_", "sqrt_", "log_one_minus", "posterior_", "logvar", "scale_factor", "global_step",
             "v_pred", "ztsnr", "edm_mean", "edm_std", "lvlb_weights")  # fmt: skip


def from_checkpoint(loading: Loading, identity: Identity) -> BaseParts:
    """Read the UNet, VAE, text encoders and schedule of one file. Raises WeightsError for what `must_be_base` refuses."""
    source = loading.source
    must_be_base(source, identity)
    header, plan = source.header, plan_unet(source.header, identity, source.field)
    used: set[str] = set()
    encoders, tokenizers = _text_encoders(loading, header, used)
    unet = _unet(loading, header, plan, used)
    if identity.evidence == "assumed":
        identity = replace(identity, prediction=measured_prediction(unet), evidence="measured")
        loading.notes[:] = [n for n in loading.notes if "predicts" not in n]
        loading.notes.append(
            f"predicts {identity.prediction}, as measured by one step on noise; prediction= overrides it"
        )
    vae = read_vae(loading, header, "upscaler" if identity.variant == "upscaler" else plan.kin, used)
    _report_rest(loading, header, used)
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    spec = spec_of(source, dict(unet.config), factor, identity.prediction, sum(p.numel() for p in unet.parameters()))
    eye = processor = noise = None
    if "image_embeds" in spec.embedding_slots and (seeing := unclip.vision_config(header)):
        eye = read_open_clip_visual(loading, header, unclip.EYE, seeing["hidden_act"])
        processor, noise = image_processor(seeing["image_size"]), unclip.load_noise(source, seeing["projection_dim"])
    return BaseParts(source, unet, vae, encoders, tokenizers, spec, scheduler_of(plan.kin, identity, header), eye, processor,
                     force_zeros_for_empty_prompt=plan.kin == "sdxl", notes=tuple(loading.notes), image_noise=noise)  # fmt: skip


def take(header: Header, prefix: str, names: Mapping[str, str], used: set[str]) -> dict[str, Tensor]:
    """Tensors under their diffusers names; the stored keys are added to `used`. A name with braces is one stored tensor that makes three."""
    stored = read_keys(header, [prefix + k for k in names])
    used.update(stored)
    found: dict[str, Tensor] = {}
    for key, name in names.items():
        tensor = stored[prefix + key]
        if "{q,k,v}" in name:
            found |= {name.replace("{q,k,v}", p): t for p, t in zip("qkv", tensor.chunk(3), strict=True)}
        else:
            found[name] = tensor.T.contiguous() if key in TRANSPOSED else tensor
    return found


def image_processor(size: int) -> Any:
    """CLIP's own, in PIL's hands: what a picture says must not depend on whether torchvision is there."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {k: tuple(t.shape) for k, t in tensors.items()}


def _unet(loading: Loading, header: Header, plan: Plan, used: set[str]) -> UNet2DConditionModel:
    tensors = take(header, plan.prefix, plan.names, used)
    what = f'the UNet of "{loading.source.name}"'
    return assemble(
        lambda: UNet2DConditionModel(**plan.config), tensors, loading.dtype, loading.device, what, loading.source.field
    )


@torch.no_grad()
def measured_prediction(unet: UNet2DConditionModel) -> str:
    """epsilon or v_prediction, by one call on pure noise at the last timestep.

    There an epsilon network answers with its input (cosine near 1), a v network with minus its guess of the picture
    (cosine near 0), since v = sqrt(acp) eps - sqrt(1 - acp) x0 (arXiv:2202.00512) and acp is nearly 0.
    """
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    context = torch.zeros(1, 77, unet.config["cross_attention_dim"])
    answer = unet(x.to(unet.device, unet.dtype), 999, context.to(unet.device, unet.dtype)).sample.float().cpu()
    return "epsilon" if torch.cosine_similarity(answer.flatten(), x.flatten(), dim=0) > 0.5 else "v_prediction"


def read_vae(loading: Loading, header: Header, family: str, used: set[str]) -> AutoencoderKL:
    """The VAE of a checkpoint, or of a file of its own; `family` decides its scaling factor."""
    prefix = next((p for p in (VAE, "vae.") if any(k.startswith(p) for k in header)), "")
    names = ldm_keys.vae(k.removeprefix(prefix) for k in header if k.startswith(prefix))
    tensors = take(header, prefix, names, used)
    config = ldm_configs.vae(shapes_of(tensors), family=family)
    if {"edm_mean", "edm_std"} <= header.keys():  # playground 2.5 normalises its latents
        stats = read_keys(header, ["edm_mean", "edm_std"])
        config |= {"latents_mean": stats["edm_mean"].flatten().tolist(), "latents_std": stats["edm_std"].flatten().tolist(),
                   "scaling_factor": 0.5}  # fmt: skip
    dtype = vae_dtype(loading.dtype, config["force_upcast"])
    what = f'the VAE of "{loading.source.name}"'
    return assemble(lambda: AutoencoderKL(**config), tensors, dtype, loading.device, what, loading.source.field)


def _text_encoders(loading: Loading, header: Header, used: set[str]) -> tuple[list[Any], list[Any]]:
    """SD 1.x: ViT-L in transformers' names. SD 2.x (LDM or SGM): OpenCLIP ViT-H without its last layer. SDXL: ViT-L and bigG."""
    encoders, tokenizers = [], []
    for prefix in ("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."):
        keys = [k.removeprefix(prefix) for k in header if k.startswith(prefix)]
        if keys:
            tensors = take(header, prefix, ldm_keys.clip(keys), used)
            encoders.append(_clip(loading, tensors, "quick_gelu", projected=False))
            tokenizers.append(clip_tokenizer(END))
    for prefix in ("cond_stage_model.model.", "conditioner.embedders.0.model.", "conditioner.embedders.1.model."):
        if any(k.startswith(prefix) for k in header):
            encoders.append(read_open_clip(loading, header, prefix, used, whole="embedders.1." in prefix))
            tokenizers.append(clip_tokenizer("!"))
    return encoders, tokenizers


def read_open_clip(loading: Loading, header: Header, prefix: str, used: set[str], *, whole: bool = False) -> Any:
    """OpenCLIP's text tower: as SD 2.x and video networks hear it, or `whole` with its projection, as SDXL does."""
    shapes = header.shapes(prefix)
    layers = ldm_keys.open_clip_layers(shapes)
    names = ldm_keys.open_clip(shapes, layers) if whole else ldm_keys.open_clip_heard(shapes)
    tensors = take(header, prefix, names, used)
    used.update(k for k in header if k.startswith(f"{prefix}transformer.resblocks.{layers - 1}."))
    return _clip(loading, tensors, "gelu", projected=whole)


def read_open_clip_visual(loading: Loading, header: Header, prefix: str, act: str = "gelu") -> Any:
    """OpenCLIP's image tower, whose keys begin with `prefix`, as a CLIPVisionModelWithProjection. act: quick_gelu for OpenAI's."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    tensors = take(header, prefix, ldm_keys.open_clip_visual(header.shapes(prefix)), set())
    config = CLIPVisionConfig(**ldm_configs.vision(shapes_of(tensors), act=act))
    what = f'the image encoder of "{loading.source.name}"'
    return assemble(
        lambda: CLIPVisionModelWithProjection(config),
        tensors,
        loading.dtype,
        loading.device,
        what,
        loading.source.field,
    )


def _clip(loading: Loading, tensors: dict[str, Tensor], act: str, *, projected: bool) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(**ldm_configs.text(shapes_of(tensors), act=act))
    cls = CLIPTextModelWithProjection if projected else CLIPTextModel
    what = f'a text encoder of "{loading.source.name}"'
    return assemble(
        lambda: cls(config), tensors, loading.dtype, loading.device, what, loading.source.field, outer="text_model."
    )


def _report_rest(loading: Loading, header: Header, used: set[str]) -> None:
    known = ("position_ids", "attn_mask", "logit_scale")
    rest = [k for k in header if k not in used and not k.startswith((*SKIPPED, *SCHEDULES)) and not k.endswith(known)]
    if rest:
        text = f"{len(rest)} tensors belong to no part that infuse knows and are left out (first: {rest[0]})"
        loading.notes.append(text)
        note(f"{loading.source.name}: {text}")

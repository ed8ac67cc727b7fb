"""A base model in numbers before a tensor is read: its spec, schedule and image encoder, from headers and configs alone.

This is what a recipe is checked against, and the plan by which `checkpoint` then builds. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from infuse.errors import WeightsError
from infuse.network.spec import UPSCALER, NetworkSpec, is_video
from infuse.weights.formats import Header
from infuse.weights.identify import UNET, identify
from infuse.weights.kinds import Identity, wrong_kind
from infuse.weights.layouts import ldm_configs, ldm_keys, video_keys
from infuse.weights.layouts.composer_folder import told
from infuse.weights.layouts.powerpaint import tasks_of
from infuse.weights.layouts.unclip import vision_config
from infuse.weights.layouts.video_composer import unet_config as video_config
from infuse.weights.layouts.video_release import CLIP
from infuse.weights.source import Source, read_json


@dataclass(frozen=True)
class Outline:
    """What can be known of a base without loading it."""

    spec: NetworkSpec
    scheduler_config: Mapping[str, Any]
    vision_config: Mapping[str, Any] | None
    """config.json of its image encoder, if it has one."""
    identity: Identity


@dataclass(frozen=True)
class Plan:
    """How a checkpoint's UNet is built: its stored keys under diffusers names, and the config that fits them."""

    prefix: str
    names: Mapping[str, str]
    config: Mapping[str, Any]
    kin: str
    """sd1, sd2 or sdxl by construction, also for networks of unusual width."""


def outline(source: Source, *, prediction: str | None = None) -> Outline:
    """Read headers and configs of a base. Raises WeightsError if it is none, or lacks a part."""
    identity = identify(source.header, prediction=prediction)
    if source.release:
        config = release_config(source)
        names = video_keys.names(source.header.shapes(identity.prefix))
        parameters = sum(source.header[identity.prefix + k].numel for k in names)
        lent = source.fallback.config("image_encoder") if source.fallback else {}
        spec = spec_of(source, config, release_vae_factor(source), identity.prediction, parameters)
        return Outline(
            spec, scheduler_of("sd2", identity, source.header), source.release.vision_config() or lent or None, identity
        )
    if not (source.is_folder and source.component("unet")):
        must_be_base(source, identity)
        plan = plan_unet(source.header, identity, source.field)
        shapes = source.header.shapes()
        parameters = sum(prod(shapes[plan.prefix + k]) for k in plan.names)
        factor = _vae_factor({k.removeprefix("first_stage_model.").removeprefix("vae.") for k in shapes})
        if factor < 1:
            raise WeightsError(
                source.field, f'"{source.name}" is incomplete: its VAE has no encoder. Use the file with the whole VAE.'
            )
        spec = spec_of(source, plan.config, factor, identity.prediction, parameters)
        eye = vision_config(source.header) if "image_embeds" in spec.embedding_slots else None
        return Outline(spec, scheduler_of(plan.kin, identity, source.header), eye, identity)
    whole(source, identity)
    folders = {p: source.component(p) for p in ("vae", "image_encoder")}
    configs = {p: source.config(p) if f else {} for p, f in folders.items()}
    unet = unet_config(source)
    scheduler = schedule(source, unet, prediction)
    factor = 2 ** (len(configs["vae"].get("block_out_channels", (0,) * 4)) - 1)
    parameters = sum(e.numel for k, e in source.header.items() if k.startswith("unet/"))
    spec = spec_of(source, unet, factor, scheduler.get("prediction_type", "epsilon"), parameters)
    return Outline(spec, scheduler, configs["image_encoder"] or None, identity)


UNET_DEFAULTS: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1280, "attention_head_dim": 8, "sample_size": 64,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
"""What diffusers' UNet2DConditionModel takes for fields that an old config.json leaves out."""
VIDEO_UNET = "UNet3DConditionModel"
VIDEO_DEFAULTS: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 1024, "attention_head_dim": 64,
    "down_block_types": ("CrossAttnDownBlock3D",) * 3 + ("DownBlock3D",),
    "up_block_types": ("UpBlock3D",) + ("CrossAttnUpBlock3D",) * 3,
}  # fmt: skip
"""The same of its UNet3DConditionModel."""


def unet_config(source: Source) -> dict[str, Any]:
    """A folder's UNet config. Where that is another's (PowerPaint 1 has none), the input channels are the tensors' own.

    Raises WeightsError if there is none.
    """
    config = source.config("unet")
    if not config:
        raise WeightsError(source.field, f'"{source.name}" has no unet/config.json. Download the whole folder again.')
    first = source.header.get("unet/conv_in.weight")
    own = (source.path / "unet" / "config.json").is_file() or first is None
    defaults = VIDEO_DEFAULTS if config.get("_class_name") == VIDEO_UNET else UNET_DEFAULTS
    return {**defaults, **config, **({} if own or first is None else {"in_channels": first.shape[1]})}


def schedule(source: Source, unet: Mapping[str, Any], prediction: str | None = None) -> dict[str, Any]:
    """A folder's scheduler config, or its family's when it has none; `prediction` overrides what it says."""
    folder = source.component("scheduler")
    config = read_json(folder / "scheduler_config.json", source.field) if folder else {}
    second = unet.get("use_linear_projection") or is_video(unet)
    kin = "sdxl" if unet.get("addition_embed_type") else "sd2" if second else "sd1"
    upscaler = unet.get("in_channels") == UPSCALER
    usual = prediction or ("v_prediction" if upscaler else "epsilon")
    config = config or ldm_configs.scheduler(kin, usual, lcm=bool(unet.get("time_cond_proj_dim")), upscaler=upscaler)
    return config | ({"prediction_type": prediction} if prediction else {})


def scheduler_of(kin: str, identity: Identity, header: Header) -> dict[str, Any]:
    """A checkpoint's schedule: its family's, with what marker keys say."""
    lcm = any(k.endswith("cond_proj.weight") for k in header)
    upscaler = identity.variant == "upscaler"
    return ldm_configs.scheduler(kin, identity.prediction, zero_snr="ztsnr" in header, lcm=lcm, upscaler=upscaler)


def spec_of(source: Source, config: Mapping[str, Any], factor: int, prediction: str, parameters: int) -> NetworkSpec:
    """The network in numbers; a folder's model_index.json may say `infuse_family`, `infuse_guidance`, `infuse_frames`."""
    index = source.index if source.is_folder else {}
    compositions, style = told(source, config) if is_video(config) else ((), False)
    return NetworkSpec.from_unet_config(
        source.name, config, vae_factor=factor, prediction=prediction, family=index.get("infuse_family"),
        guidance=index.get("infuse_guidance"), parameters=parameters, tasks="" if source.release else tasks_of(source),
        frames=index.get("infuse_frames"), compositions=compositions, style=style,
    )  # fmt: skip


def release_config(source: Source) -> dict[str, Any]:
    """Config of a loose release's UNet, once it is clear that nothing is missing beside it.

    Raises WeightsError that names the missing files, or for a text encoder that the UNet does not listen to.
    """
    release, lender = source.release, source.fallback
    assert release is not None
    found = {p: bool(release.find(p)) or bool(lender and lender.component(p)) for p in ("vae", "text_encoder")}
    if not all(found.values()):
        names = {"vae": "VAE", "text_encoder": "text encoder"}
        raise release.missing(source.name, {p: names[p] for p, there in found.items() if not there})
    header = source.header
    config = video_config(header.shapes(identify(header).prefix), None, source.field)
    own = release.table("text_encoder").get("token_embedding.weight")
    width = own.shape[1] if own else lender.config("text_encoder").get("hidden_size") if lender else None
    if width != config["cross_attention_dim"]:
        raise WeightsError(source.field, f'"{source.name}" listens to words {config["cross_attention_dim"]} wide, but the text encoder '
                                         f"with it speaks {width}. Let an SD 2.1 folder lend one, or put {CLIP}.bin beside it.")  # fmt: skip
    return config


def release_vae_factor(source: Source) -> int:
    """Pixels per latent of a loose release's VAE, or of the one that is lent to it."""
    if source.release and (own := source.release.table("vae")):
        return _vae_factor(set(own))
    blocks = source.fallback.config("vae").get("block_out_channels") if source.fallback else None
    return 2 ** (len(blocks or (0,) * 4) - 1)


def must_be_base(source: Source, identity: Identity) -> None:
    """Raises WeightsError, with the remedy, unless the file holds a base model that can start a picture."""
    pipeline = source.index.get("_class_name") if source.is_folder else None
    if pipeline:
        raise WeightsError(source.field, f'"{source.name}" is a {pipeline} without a unet/ folder; infuse runs SD 1.x, SD 2.x and '
                                         "SDXL. Choose a model of these, or download the folder again.")  # fmt: skip
    if identity.kind == "unet" and identity.layout == "diffusers" and identity.parts:
        raise WeightsError(source.field, f'"{source.name}" holds a model\'s parts under diffusers\' names in one file. Save them as a '
                                         "folder with unet/, vae/ and text_encoder/, or use the original checkpoint.")  # fmt: skip
    if "unet" not in identity.parts or identity.layout != "ldm":
        raise wrong_kind(source.field, identity, "base", name=source.name)
    no_refiner(source, identity)
    both = "text_encoder_2" if identity.family == "sdxl" else "text_encoder"
    full = "Use the full checkpoint, or the model's diffusers folder"
    for part, what, remedy in (
        ("vae", "VAE", "Use the file with the VAE baked in, or save both together as a diffusers folder"),
        ("text_encoder", "text encoder", full), (both, "second text encoder", full),
    ):  # fmt: skip
        if part not in identity.parts:
            raise WeightsError(source.field, f'"{source.name}" has no {what} inside ({identity.described}). {remedy}.')


def whole(source: Source, identity: Identity) -> None:
    """Raises WeightsError, with the remedy, unless a pipeline's folder has all that is needed to start a picture."""
    no_refiner(source, identity)
    for part in ("vae", "text_encoder"):
        if source.component(part) is None:
            raise WeightsError(source.field, no_folder(source, part))


def no_folder(source: Source, part: str) -> str:
    return f'"{source.name}" has no {part}/ folder. Download the whole model again, or name another one.'


def no_refiner(source: Source, identity: Identity) -> None:
    if identity.variant == "refiner":
        raise WeightsError(source.field, f'"{source.name}" is the SDXL refiner, which continues another model\'s pictures and '
                                         "cannot start its own. Choose an SDXL base model.")  # fmt: skip


def plan_unet(header: Header, identity: Identity, field: str) -> Plan:
    """Names and config of a checkpoint's UNet. Raises WeightsError for forms that infuse has no network for."""
    prefix = UNET if any(k.startswith(UNET) for k in header) else identity.prefix
    vector = "class_embedding" if identity.context_width == 1024 else "add_embedding"
    stored = header.shapes(prefix)
    names = ldm_keys.trunk(stored, vector)
    if not any(new.startswith("down_blocks.") for new in names.values()) or "conv_in.weight" not in names.values():
        named = f"named as in no layout that infuse reads (first: {next(iter(stored))})" if stored else "not there"
        raise WeightsError(field, f"{header.path.name} is incomplete: the tensors of its UNet's encoder are {named}. Download it again, or "
                                  "save it as its trainer's documentation says.")  # fmt: skip
    pooled = next(
        (e.shape[-1] for k, e in header.items() if k.startswith("conditioner.") and k.endswith(".text_projection")),
        None,
    )
    size = 96 if identity.family == "sd2" and identity.prediction == "v_prediction" else None
    size = 128 if identity.variant == "upscaler" else size
    try:
        config = ldm_configs.unet({new: stored[old] for old, new in names.items()}, pooled=pooled, sample_size=size)
    except WeightsError as e:
        raise e.under(field) from e
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError) as e:
        lacks = f"lacks {e}" if isinstance(e, KeyError) else "has tensors of odd shapes"
        raise WeightsError(field, f"{header.path.name} is incomplete: its UNet {lacks}. Download it again.") from e
    kin = "sdxl" if "text_encoder_2" in identity.parts else "sd2" if config["use_linear_projection"] else "sd1"
    return Plan(prefix, names, config, kin)


def _vae_factor(keys: set[str]) -> int:
    return 2 ** (len({k.split(".")[2] for k in keys if k.startswith("encoder.down.")}) - 1)

"""Tiny random networks in the exact layout of SD 1.x, SD 2.x and SDXL: every law and parity runs on them in seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from moulds import copied, moulded
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from infuse.encoders.ip_adapter import Adapter, Plain, Resampler
from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network

SCHEDULE = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
}
CONTEXT = {"sd1": 32, "sd2": 32, "sdxl": 64}


def cast(module: nn.Module, dtype: torch.dtype) -> Any:
    """diffusers' own `to` warns of layers to keep in float32 even where there are none."""
    return nn.Module.to(module, dtype)


def randomized(module: nn.Module, seed: int) -> nn.Module:
    """No weight at zero: zero-initialised layers must carry signal, too."""
    g = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        if p.abs().sum() == 0:
            p.data = torch.randn(p.shape, generator=g, dtype=torch.float32).to(p) * 0.1
    return module.eval().requires_grad_(False)


@moulded
def unet(family: str, in_channels: int = 4) -> UNet2DConditionModel:
    torch.manual_seed(0)
    extra: dict[str, Any] = {}
    if family == "sd2":
        extra = {"use_linear_projection": True, "attention_head_dim": (4, 8)}
    if family == "sdxl":
        extra = {
            "use_linear_projection": True,
            "attention_head_dim": (4, 8),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 6 * 8,
            "transformer_layers_per_block": (1, 2),
        }
    net = UNet2DConditionModel(
        **{
            "sample_size": 16,
            "in_channels": in_channels,
            "block_out_channels": (32, 64),
            "layers_per_block": 1,
            "norm_num_groups": 8,
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            "cross_attention_dim": CONTEXT[family],
            "attention_head_dim": 4,
            **extra,
        }
    )
    return randomized(net, 1)  # type: ignore[return-value]


@moulded
def vae() -> AutoencoderKL:
    torch.manual_seed(2)
    net = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
    )
    return randomized(net, 2)  # type: ignore[return-value]


@cache
def tokenizer() -> Any:
    """The real CLIP tokenizer."""
    from infuse.weights.tokenizer import clip_tokenizer

    return clip_tokenizer()


@moulded
def text_encoder(width: int, projection: bool, seed: int) -> Any:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        hidden_size=width,
        intermediate_size=40,
        num_attention_heads=4,
        num_hidden_layers=3,
        projection_dim=32,
        vocab_size=49408,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=1,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval().requires_grad_(False)


def vision(projection: int = 24) -> tuple[Any, Any]:
    return _eye(projection), processor()


@moulded
def _eye(projection: int) -> Any:
    torch.manual_seed(5)
    config = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=64,
        num_attention_heads=4,
        num_hidden_layers=2,
        projection_dim=projection,
        image_size=32,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)


def processor() -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


@moulded
def controlnet(family: str, seed: int) -> ControlNetModel:
    torch.manual_seed(seed)
    net = ControlNetModel.from_unet(unet(family), conditioning_embedding_out_channels=(8, 16))
    return randomized(net, seed)  # type: ignore[return-value]


@moulded
def adapter(family: str, kind: str, seed: int) -> Adapter:
    torch.manual_seed(seed)
    spec = NetworkSpec.from_unet_config("tiny", unet(family).config)
    project = (
        Plain(24, 4, spec.context_width) if kind == "plain" else Resampler(48, 64, 6, 4, spec.context_width)
    )  # 4: all that diffusers loads
    widths = [w for _, w in spec.cross_layers]
    return randomized(Adapter(kind, project, len(widths), widths, spec.context_width), seed)  # type: ignore[return-value]


@dataclass
class Tiny:
    """A tiny model in one family: pristine diffusers parts beside the base that infuse uses."""

    family: str
    parts: dict[str, Any]
    base: Base


def base(
    family: str, in_channels: int = 4, dtype: torch.dtype = torch.float32, schedule: dict[str, Any] | None = None
) -> Tiny:
    schedule = SCHEDULE | ({"prediction_type": "v_prediction"} if family == "sd2" else {}) | (schedule or {})
    pristine, own = (cast(unet(family, in_channels), dtype) for _ in range(2))
    encoder = cast(vae(), dtype)
    texts: Sequence[Any] = (
        [text_encoder(32, False, 3)] if family != "sdxl" else [text_encoder(32, False, 3), text_encoder(32, True, 4)]
    )
    texts = [t.to(dtype) for t in texts]
    eye, prepare = vision()
    spec = NetworkSpec.from_unet_config(
        family, pristine.config, vae_factor=2, prediction=schedule["prediction_type"], family=family
    )
    ours = Base(
        family,
        Network(own, spec),
        encoder,
        TextEncoders(texts, [tokenizer()] * len(texts)),
        schedule,
        eye.to(dtype),
        prepare,
        silent_is_zero=family == "sdxl",
    )
    parts = {"unet": pristine, "vae": encoder, "text_encoder": texts[0], "tokenizer": tokenizer()}
    if family == "sdxl":
        parts |= {"text_encoder_2": texts[1], "tokenizer_2": tokenizer()}
    return Tiny(family, parts | {"image_encoder": eye.to(dtype), "feature_extractor": prepare}, ours)


def engine(tiny: Tiny, modules: dict[str, nn.Module] | None = None, own: bool = True, **options: Any) -> Engine:
    """Its modules are copies of its own, unless they are of its dtype already and nobody changes them."""
    store = ModelStore(dtype=tiny.base.network.dtype, device="cpu")
    store.add("tiny", tiny.base)
    for name, module in (modules or {}).items():
        store.add(name, cast(copied(module), tiny.base.network.dtype) if own else module)
    return Engine("tiny", store=store, **options)


def task_texts(generation: str, seed: int = 21, dtype: torch.dtype = torch.float32) -> Any:
    """The SD 1.x text encoder with random task tokens."""
    from infuse.encoders.generations import GENERATIONS
    from infuse.encoders.tasks import ROWS, TaskTexts, widened

    rows = torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(seed)) * 0.5
    model = widened(text_encoder(32, False, 3), rows).to(dtype).eval().requires_grad_(False)
    return TaskTexts(model, tokenizer(), GENERATIONS[generation])


def powerpaint1(generation: str = "v1", dtype: torch.dtype = torch.float32) -> Tiny:
    """A nine-channel SD 1.x whose text encoder has task tokens."""
    tiny = base("sd1", 9, dtype)
    texts = task_texts(generation, dtype=dtype)
    spec = replace(tiny.base.network.spec, tasks=generation)
    network = Network(tiny.base.network.unet, spec)
    encoders = TextEncoders([texts.model], [tokenizer()])
    return Tiny("sd1", tiny.parts, replace(tiny.base, network=network, texts=encoders, tasks=texts))


def brushnet(attention: bool = True, seed: int = 30, generation: str | None = None) -> Any:
    """A BrushNet beside the tiny SD 1.x, with task tokens if a generation (v2, dev2) is named."""
    return _brushnet(attention, seed, generation)


@moulded
def _brushnet(attention: bool, seed: int, generation: str | None) -> Any:
    from infuse.network.brushnet import BrushNet

    torch.manual_seed(seed)
    net = randomized(BrushNet.from_unet(unet("sd1"), attention=attention), seed)
    for p in net.parameters():  # untrained copies would speak too much alike
        p.data = p.data + 0.05 * torch.randn(p.shape)
    net.tasks = task_texts(generation) if generation else None  # type: ignore[assignment]
    return net


@moulded
def video_unet(in_channels: int = 4) -> Any:
    from diffusers import UNet3DConditionModel

    torch.manual_seed(40)
    net = UNet3DConditionModel(
        sample_size=16,
        in_channels=in_channels,
        block_out_channels=(32, 64),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=32,
        attention_head_dim=8,
    )
    return randomized(net, 41)


def video(in_channels: int = 4, dtype: torch.dtype = torch.float32, frames: int = 4) -> Tiny:
    """A tiny text-to-video model around the tiny SD 2.x's other parts."""
    from infuse.network.video import VideoNetwork

    still = base("sd1", dtype=dtype)
    unet, own = (cast(video_unet(in_channels), dtype) for _ in range(2))
    spec = NetworkSpec.from_unet_config("video", unet.config, vae_factor=2, family="sd1", frames=frames)
    ours = replace(still.base, name="video", network=VideoNetwork(own, spec))
    return Tiny("video", still.parts | {"unet": unet}, ours)


COMPOSITIONS = {"depth": 1, "sketch": 1, "single_sketch": 1, "motion": 2, "local_image": 3, "masked": 4}
"""VideoComposer's encoders and the channels of what they are shown."""


def videocomposer(dtype: torch.dtype = torch.float32, frames: int = 4) -> Tiny:
    """A tiny VideoComposer: twelve input channels, six condition encoders, a style network."""
    from infuse.network.stc import Composer, STCEncoder, StyleMLP

    plain = video(12, dtype, frames)
    torch.manual_seed(50)
    stc = nn.ModuleDict({name: STCEncoder(channels, 8) for name, channels in COMPOSITIONS.items()})
    composer = Composer(randomized(stc, 51), randomized(StyleMLP(32), 52)).to("cpu", dtype)  # type: ignore[arg-type]
    eye, prepare = vision(32)
    network = plain.base.network
    network.spec = replace(network.spec, compositions=tuple(COMPOSITIONS), style=True)
    ours = replace(
        plain.base, name="composer", composer=composer, image_encoder=eye.to(dtype), feature_extractor=prepare
    )
    return Tiny("video", plain.parts, ours)

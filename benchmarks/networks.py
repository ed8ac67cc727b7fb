"""Random networks in the sizes of released ones: what a step costs depends on shapes, and not on what the weights know.

Every weight is a draw from one pool of normal numbers, rounded to bfloat16, so that all dtypes hold the same numbers and
a difference between two results is one of arithmetic. Nothing is zero, also where training begins at zero. Weights are
scaled by 1 / sqrt(inputs), which keeps activations near 1.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from zlib import crc32

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from infuse.encoders.ip_adapter import Adapter, Plain
from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.weights.tokenizer import clip_tokenizer

SCHEDULE: Mapping[str, Any] = {
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
POOL = 2**25 + 39
"""Numbers in the pool: more than the largest tensor has."""


@dataclass(frozen=True)
class Sizes:
    """What networks there are, in numbers. `encoders`: widths of the text encoders; of SDXL two."""

    name: str
    side: int
    """Pixels of the square picture."""
    unet: Mapping[str, Any]
    hints: tuple[int, ...] = (16, 32, 96, 256)
    """Channels of a ControlNet's hint encoder."""
    texts: tuple[Mapping[str, Any], ...] = ()
    eye: Mapping[str, Any] = field(default_factory=dict)
    vae: Mapping[str, Any] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Is it an SDXL?"""
        return len(self.texts) > 1


_EYE = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "patch_size": 32}
_WORDS = {"num_hidden_layers": 2, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1}
_VAE = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
_XL = {
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}

SD15_STEPS = Sizes(
    "SD1.5",
    512,
    {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8},
    texts=({**_WORDS, "hidden_size": 768, "intermediate_size": 64, "num_attention_heads": 12},),
    eye={**_EYE, "projection_dim": 1024},
    vae={**_VAE, "block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4},
)
"""SD1.5's UNet and ControlNets beside small encoders and a small VAE: for benchmarks that time steps alone."""
SD15 = Sizes(
    "SD1.5",
    512,
    SD15_STEPS.unet,
    texts=({**_WORDS, "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12},),
    eye={"hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 16, "num_hidden_layers": 32, "patch_size": 14, "projection_dim": 1024},
    vae={**_VAE, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
)  # fmt: skip
"""The whole SD1.5: CLIP-L, ViT-H, the VAE."""
SDXL = Sizes(
    "SDXL",
    1024,
    {
        **_XL,
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    texts=(
        SD15.texts[0],
        {**_WORDS, "hidden_size": 1280, "intermediate_size": 5120, "num_attention_heads": 20, "num_hidden_layers": 32, "projection_dim": 1280},
    ),
    eye=SD15.eye,
    vae=SD15.vae,
)  # fmt: skip
TINY = Sizes(
    "tiny",
    64,
    {
        "sample_size": 8,
        "block_out_channels": (16, 16, 32, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "cross_attention_dim": 32,
        "attention_head_dim": 4,
    },
    hints=(8, 8, 8, 16),
    texts=({**_WORDS, "hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4},),
    eye={**_EYE, "hidden_size": 32, "projection_dim": 24, "image_size": 64},
    vae=SD15_STEPS.vae,
)
"""For tests of the benchmarks themselves."""
TINY_XL = Sizes(
    "tiny XL",
    64,
    {
        **_XL,
        "sample_size": 8,
        "block_out_channels": (16, 32, 32),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (2, 4, 4),
        "cross_attention_dim": 64,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 32 + 6 * 8,
    },
    hints=TINY.hints,
    texts=(TINY.texts[0], {**TINY.texts[0], "projection_dim": 32}),
    eye=TINY.eye,
    vae=SD15_STEPS.vae,
)


class World:
    """The networks of some sizes in one dtype on one device, each made when it is first asked for.

    Whoever runs them takes `twin`s: modules of their own, around the same memory.
    """

    def __init__(self, sizes: Sizes, dtype: torch.dtype = torch.float32, device: str = "cpu", seed: int = 0) -> None:
        self.sizes, self.dtype, self.device, self.seed = sizes, dtype, device, seed
        self._controls: dict[int, Any] = {}
        self._adapters: dict[int, Adapter] = {}
        self._like: World | None = None

    def cast(self, dtype: torch.dtype) -> World:
        """The same numbers in another dtype."""
        out = World(self.sizes, dtype, self.device, self.seed)
        out._like = self
        return out

    @cached_property
    def _pool(self) -> Tensor:
        generator = torch.Generator(self.device).manual_seed(self.seed)
        n = POOL if self.sizes.name in ("SD1.5", "SDXL") else 2**18 + 39
        return torch.randn(n, generator=generator, device=self.device).bfloat16()

    def _made(self, name: str, make: Any) -> Any:
        """A network whose weights are drawn where they will lie; or a cast of one that is there."""
        with torch.device("meta"):
            module = make()
        module = nn.Module.to(module, self.dtype).to_empty(device=self.device).eval().requires_grad_(False)
        pool = self._like._pool if self._like is not None else self._pool
        for path, p in module.named_parameters():
            fill(p, f"{name}.{path}", pool)
        return module

    @cached_property
    def unet(self) -> Any:
        return self._made("unet", lambda: UNet2DConditionModel(**self.sizes.unet))

    def controlnet(self, i: int) -> Any:
        """The i-th of as many ControlNets as are asked for."""
        if i not in self._controls:
            known = {k: v for k, v in dict(self.unet.config).items() if k in CONTROL}
            make = lambda: ControlNetModel(**known, conditioning_embedding_out_channels=self.sizes.hints)  # noqa: E731
            self._controls[i] = self._made(f"controlnet{i}", make)
        return self._controls[i]

    def adapter(self, i: int) -> Adapter:
        """The i-th IP-Adapter, of the plain kind: four tokens."""
        if i not in self._adapters:
            widths, context = [w for _, w in self.spec.cross_layers], self.spec.context_width
            make = lambda: Adapter("plain", Plain(self.sizes.eye["projection_dim"], 4, context), len(widths), widths, context)  # noqa: E731  # fmt: skip
            self._adapters[i] = self._made(f"adapter{i}", make)
        return self._adapters[i]

    @cached_property
    def spec(self) -> NetworkSpec:
        name = "sdxl" if self.sizes.wide else "sd1"
        config = self.unet.config
        factor = 2 ** (len(self.sizes.vae["block_out_channels"]) - 1)
        return NetworkSpec.from_unet_config("random", config, vae_factor=factor, family=name)

    @cached_property
    def vae(self) -> Any:
        scale = 0.13025 if self.sizes.wide else 0.18215
        return self._made(
            "vae", lambda: AutoencoderKL(**self.sizes.vae, latent_channels=4, sample_size=self.sizes.side, scaling_factor=scale)
        )  # fmt: skip

    @cached_property
    def texts(self) -> list[Any]:
        kinds = (CLIPTextModel, CLIPTextModelWithProjection)
        return [self._drawn(kind, CLIPTextConfig(**c)) for kind, c in zip(kinds, self.sizes.texts, strict=False)]

    @cached_property
    def eye(self) -> Any:
        return self._drawn(CLIPVisionModelWithProjection, CLIPVisionConfig(**self.sizes.eye))

    def _drawn(self, kind: Any, config: Any) -> Any:
        """transformers' own draws: its buffers want to be made, too."""
        with torch.random.fork_rng(devices=[]), torch.device(self.device):
            torch.manual_seed(self.seed)
            drawn = kind(config).eval().requires_grad_(False)
            return nn.Module.to(nn.Module.to(drawn, torch.bfloat16), self.dtype)

    @cached_property
    def tokenizer(self) -> Any:
        return clip_tokenizer()

    @cached_property
    def processor(self) -> Any:
        side = self.sizes.eye.get("image_size", 224)
        return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def parts(self) -> dict[str, Any]:
        """As diffusers names them, without UNet and ControlNets. The encoders are shared: nobody changes them."""
        out = {"vae": self.vae, "image_encoder": self.eye, "feature_extractor": self.processor}
        for end, text in zip(("", "_2"), self.texts, strict=False):
            out |= {f"text_encoder{end}": text, f"tokenizer{end}": self.tokenizer}
        return out

    def base(self) -> Base:
        """As infuse loads it."""
        texts = TextEncoders([twin(t) for t in self.texts], [self.tokenizer] * len(self.texts))
        network = Network(twin(self.unet), self.spec)
        return Base(
            "random", network, self.vae, texts, dict(SCHEDULE), self.eye, self.processor, silent_is_zero=self.sizes.wide
        )


CONTROL = (
    "in_channels",
    "flip_sin_to_cos",
    "freq_shift",
    "down_block_types",
    "mid_block_type",
    "only_cross_attention",
    "block_out_channels",
    "layers_per_block",
    "norm_num_groups",
    "norm_eps",
    "cross_attention_dim",
    "transformer_layers_per_block",
    "attention_head_dim",
    "use_linear_projection",
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
)
"""What a ControlNet has in common with its UNet."""


def fill(p: Tensor, name: str, pool: Tensor) -> None:
    """Draw a parameter from the pool: by its name, so that it is the same in every dtype and order."""
    if p.ndim < 2:  # norms and biases
        p.data.fill_(1.0 if name.endswith("weight") else 0.0)
        return
    n = p.numel()
    at = crc32(name.encode()) % (len(pool) - n) if n < len(pool) else 0
    drawn = pool[at : at + n] if n <= len(pool) else pool.repeat(n // len(pool) + 1)[:n]
    std = (n / p.shape[0]) ** -0.5
    p.data.copy_((drawn * std).bfloat16().view(p.shape))


def twin(module: nn.Module) -> Any:
    """A module of its own around the same memory: whoever converts or replaces its parameters changes nobody else's."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, memo)

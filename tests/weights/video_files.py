"""Video bases on the disk, tiny: the loose files of two releases, and the same base made from modules in memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from goldens.golden import Golden
from torch import Tensor, nn

import tiny
from infuse.encoders.kit import Base
from infuse.encoders.text import TextEncoders
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.network.stc import Composer
from infuse.network.video import VideoNetwork
from infuse.weights.base import load_base
from infuse.weights.layouts.video_composer import build, read
from infuse.weights.outline import outline
from infuse.weights.source import Source
from infuse.weights.tokenizer import clip_tokenizer

from . import ldm

ASKED = {"prompt": "a red cube moves", "steps": 2, "width": 32, "height": 32, "frames": 3, "scheduler": "DDIM"}


@cache
def golden() -> dict[str, Tensor]:
    """A tiny VideoComposer's file: seven conditions, style and frame rate."""
    return Golden("videocomposer_unet").weights()


def text_to_video() -> dict[str, Tensor]:
    """The same without what VideoComposer adds: ModelScope's file."""
    state = {k: t for k, t in golden().items() if "embedding" not in k and not k.startswith("pre_image")}
    return state | {"input_blocks.0.0.weight": state["input_blocks.0.0.weight"][:, :4].clone()}


class OpenClipVisual(nn.Module):
    """OpenCLIP's image tower as it is written there: fused projections, the class token first, a projection at the end."""

    def __init__(self, width: int = 128, layers: int = 2, patch: int = 8, side: int = 32, out: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.positional_embedding = nn.Parameter(torch.randn((side // patch) ** 2 + 1, width) * 0.1)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(Block(width) for _ in range(layers))})
        self.proj = nn.Parameter(torch.randn(width, out) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for block in self.transformer["resblocks"]:  # type: ignore[union-attr]
            x = block(x)
        return self.ln_post(x[:, 0]) @ self.proj


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // 64, batch_first=True)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 2 * width), "c_proj": nn.Linear(2 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp["c_proj"](nn.functional.gelu(self.mlp["c_fc"](self.ln_2(x))))


def visual() -> OpenClipVisual:
    torch.manual_seed(3)
    return tiny.randomized(OpenClipVisual(), 4)  # type: ignore[return-value]


def open_clip() -> dict[str, Tensor]:
    state = ldm.open_clip_text(ldm.tiny_text(32, "gelu"), spare_layer=True)
    return {**state, **ldm.prefixed("visual.", visual().state_dict())}


def release(folder: Path, unet: str = "non_ema_228000.pth", vae: str = "v2-1_512-ema-pruned.ckpt") -> Path:
    """VideoComposer's files as they were released, or ModelScope's."""
    folder.mkdir(parents=True)
    torch.save(golden() if unet.startswith("non_ema") else text_to_video(), folder / unet)
    whole = ldm.prefixed("first_stage_model.", ldm.ldm_vae(ldm.tiny_vae()))
    whole |= {"model.diffusion_model.input_blocks.0.0.bias": torch.zeros(99), "model_ema.decay": torch.zeros(1)}
    torch.save({"global_step": 1, "state_dict": whole}, folder / vae)
    torch.save(open_clip(), folder / "open_clip_pytorch_model.bin")
    for name in ("midas_v3_dpt_large.pth", "table5_pidinet.pth"):
        torch.save({"a": torch.zeros(2)}, folder / name)
    return folder


def engine() -> Engine:
    return Engine(store=ModelStore(dtype=torch.float32, device="cpu"))


def by_hand(state: dict[str, Tensor], folder: Path) -> Base:
    """The same base, put together from modules in memory."""
    made, text, vae = build(read(state), torch.float32), ldm.tiny_text(32, "gelu"), ldm.tiny_vae()
    spec = outline(Source("m", folder)).spec
    composer = Composer(made.stc, made.style) if made.style else None
    return Base(
        "m",
        VideoNetwork(made.unet, spec),
        vae,
        TextEncoders([text], [clip_tokenizer("!")]),
        tiny.SCHEDULE,
        composer=composer,
    )


def same(a: nn.Module, b: nn.Module) -> None:
    left, right = a.state_dict(), b.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[k], right[k]) for k in left)


def outlined(source: Source) -> Any:
    """Headers tell what loading finds, and how much memory it takes."""
    told, parts = outline(source), load_base(source)
    assert replace(told.spec, config={}) == replace(parts.spec, config={})
    assert told.scheduler_config == parts.scheduler_config
    assert (told.vision_config is None) == (parts.image_encoder is None)
    store = ModelStore(dtype=torch.float32, device="cpu")
    estimated = store.view(str(source.path)).memory
    store.base(str(source.path))
    assert store.view(str(source.path)).memory == estimated
    return parts


def lender(folder: Path, width: int = 32, eye: bool = True) -> Path:
    parts = {"vae": ldm.tiny_vae(), "text_encoder": ldm.tiny_text(width, "gelu"), "unet": ldm.tiny_unet("sd2")}
    parts |= {"tokenizer": clip_tokenizer("!")} | ({"image_encoder": tiny.vision()[0]} if eye else {})
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"prediction_type": "v_prediction"}')
    (folder / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DConditionModel"]}')
    return folder

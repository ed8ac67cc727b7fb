"""LoRAs of tiny networks as files, in the layouts that trainers write: written from modules, not through infuse's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from weights import ldm

LINEAR = re.compile(r"\.(to_[qkv]|to_out\.0|proj_in|proj_out|ff\.net\.0\.proj|ff\.net\.2|[qkv]_proj|out_proj|fc1|fc2)$")
ATTENDED = re.compile(r"attn\d\.(to_[qkv]|to_out\.0)$|(q|k|v|out)_proj$")
RESNETS = re.compile(r"\.(conv1|conv2|conv_shortcut|time_emb_proj|conv)$")
State = dict[str, Tensor]


@dataclass(frozen=True)
class Low:
    """One module's change: alpha / r B A."""

    part: str
    path: str
    """In diffusers; of a text encoder with `text_model.`, as all files have it."""
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def delta(self) -> Tensor:
        matrix = self.up.flatten(1) @ self.down.flatten(1) * (self.alpha / len(self.down))
        return matrix.reshape(len(self.up), *self.down.shape[1:])


def changes(
    unet: Any,
    texts: Sequence[Any] = (),
    rank: int = 4,
    alphas: Iterable[float] = (4.0,),
    pattern: re.Pattern[str] = LINEAR,
    seed: int = 0,
    size: float = 0.2,
) -> list[Low]:
    """Random ones of what kohya trains (`LINEAR`), attentions alone (`ATTENDED`), or resnets; alphas in turn."""
    g = torch.Generator().manual_seed(seed)
    alphas, found = list(alphas), list[Low]()
    for part, net in zip(("unet", "text_encoder", "text_encoder_2"), (unet, *texts), strict=False):
        for path, module in net.named_modules():
            if not pattern.search(path) or getattr(module, "weight", None) is None:
                continue
            shape = module.weight.shape
            down = torch.randn(rank, *shape[1:], generator=g) * size
            up = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=g) * size
            path = path if part == "unet" or path.startswith("text_model.") else f"text_model.{path}"
            found.append(Low(part, path, down, up, alphas[len(found) % len(alphas)]))
    return found


def kohya(
    lows: Sequence[Low], wide: bool = False, names: dict[str, str] | None = None, head: str = "lora_unet"
) -> State:
    """kohya's. wide: two text encoders. names: of UNet modules in original checkpoints, for SDXL's files."""
    out: State = {}
    heads = {"unet": head, "text_encoder": "lora_te1" if wide else "lora_te", "text_encoder_2": "lora_te2"}
    for low in lows:
        path = (names or {}).get(low.path, low.path) if low.part == "unet" else low.path
        name = f"{heads[low.part]}_{path.replace('.', '_')}"
        out |= {
            f"{name}.lora_down.weight": low.down,
            f"{name}.lora_up.weight": low.up,
            f"{name}.alpha": torch.tensor(low.alpha),
        }
    return out


def dotted(lows: Sequence[Low], down: str, up: str, text: tuple[str, str] | None = None) -> State:
    """diffusers' and peft's, which have no alphas; text: other ends for text encoders."""
    out: State = {}
    for low in lows:
        one, two = (down, up) if low.part == "unet" or text is None else text
        out |= {f"{low.part}.{low.path}.{one}": low.down, f"{low.part}.{low.path}.{two}": low.up}
    return out


def peft(lows: Sequence[Low]) -> State:
    return dotted(lows, "lora_A.weight", "lora_B.weight")


def middle_aged(lows: Sequence[Low]) -> State:
    ends = ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight")
    return dotted(lows, "lora.down.weight", "lora.up.weight", ends)


def oldest(lows: Sequence[Low]) -> State:
    """diffusers' first: in attention's processors. Of attentions alone."""
    out: State = {}
    for low in lows:
        at, _, name = low.path.removesuffix(".0").rpartition(".")
        if low.part != "unet":
            name = f"to_{name.removesuffix('_proj')}"
        stem = f"{low.part}.{at}.processor.{name}" if low.part == "unet" else f"{low.part}.{at}.{name}"
        out |= {f"{stem}_lora.down.weight": low.down, f"{stem}_lora.up.weight": low.up}
    return out


def comfy(lows: Sequence[Low], names: dict[str, str]) -> State:
    """OneTrainer's for ComfyUI: peft's ends with alphas, and original names."""
    heads = {"unet": "diffusion_model.", "text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer."}  # fmt: skip
    out: State = {}
    for low in lows:
        name = heads[low.part] + (names[low.path] if low.part == "unet" else low.path)
        out |= {
            f"{name}.lora_A.weight": low.down,
            f"{name}.lora_B.weight": low.up,
            f"{name}.alpha": torch.tensor(low.alpha),
        }
    return out


def originals(unet: Any) -> dict[str, str]:
    """Paths of a UNet's modules -> in original checkpoints: whose tensors are the same, says the writer of these."""
    stored = {t.data_ptr(): k.removesuffix(".weight") for k, t in ldm.ldm_unet(unet).items() if k.endswith(".weight")}
    return {p: stored[m.weight.data_ptr()] for p, m in unet.named_modules() if getattr(m, "weight", None) is not None}


def save(path: Path, state: State, metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: t.detach().clone().contiguous() for k, t in state.items()}, str(path), metadata=metadata)
    return path

"""A base learns by what is added to it: a product of two thin matrices on each weight, its small tensors whole.

What is saved is the difference alone, in the layout of `weights.layouts.difference`. Source: Hu et al. 2021 (LoRA), sec. 4.1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from infuse.encoders.kit import Base
from infuse.network.spec import NetworkSpec
from infuse.network.unet import Network
from infuse.weights.layouts.difference import NAMED
from infuse.weights.looks.differences import DOWN, UP

INSIDE = ".parametrizations.weight.0."


class LowRank(nn.Module):
    """W to W + up down. `up` begins at zero, so that nothing is changed; `down` with orthogonal rows."""

    def __init__(self, weight: Float[Tensor, "out ..."], rank: int) -> None:
        super().__init__()
        out, inside = weight.flatten(1).shape
        r = min(rank, out, inside)
        self.shape = weight.shape
        self.down = nn.Parameter(torch.linalg.qr(torch.randn(inside, r))[0].T.contiguous().to(weight))
        self.up = nn.Parameter(torch.zeros(out, r).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (self.up @ self.down).view(self.shape)

    def factors(self) -> dict[str, Tensor]:
        """As they are stored: (r in ...) and (out r ...)."""
        ones = [1] * (len(self.shape) - 2)
        return {DOWN: self.down.view(-1, *self.shape[1:]), UP: self.up.view(*self.up.shape, *ones)}


def learn_difference(module: nn.Module, rank: int, whole: tuple[str, ...] = ()) -> None:
    """Let factors of this rank learn, and biases, norms, embeddings and the tensors named `whole` as they are; all else is
    frozen."""
    module.requires_grad_(False)
    for path, part in list(module.named_modules()):
        for name, p in list(part.named_parameters(recurse=False)):
            if p.ndim < 2 or isinstance(part, nn.Embedding) or f"{path}.{name}" in whole:
                p.requires_grad_(True)
            elif name == "weight":
                register_parametrization(part, "weight", LowRank(p.detach(), rank))


def learn_look(unet: nn.Module, rank: int, conv_rank: int = 0) -> None:
    """A LoRA of a UNet: factors of this rank learn on every linear layer of its transformers, and of `conv_rank` (0 for none)
    on the 3 x 3 convolutions of its residual blocks; all else is frozen."""
    unet.requires_grad_(False)
    for path, part in list(unet.named_modules()):
        if isinstance(part, nn.Linear | nn.Conv2d) and ".attentions." in f".{path}":
            register_parametrization(part, "weight", LowRank(part.weight.detach(), rank))
        elif conv_rank and isinstance(part, nn.Conv2d) and path.endswith((".conv1", ".conv2")):
            register_parametrization(part, "weight", LowRank(part.weight.detach(), conv_rank))


def look(unet: nn.Module) -> dict[str, Tensor]:
    """What `learn_look` taught, under kohya's names: `lora_unet_` and the layer's path with underscores, `alpha` the rank."""
    out: dict[str, Tensor] = {}
    for path, found in unet.named_modules():
        if isinstance(found, LowRank):
            name = f"lora_unet_{path.removesuffix(INSIDE[:-1]).replace('.', '_')}"
            down, up = found.factors().values()
            out |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
            out[f"{name}.alpha"] = torch.tensor(float(down.shape[0]))
    return {k: t.detach() for k, t in out.items()}


def save_look(unet: nn.Module, path: Path, rank: int, conv_rank: int, description: str) -> None:
    """A LoRA in half precision as kohya's scripts write it, their metadata included, and its card."""
    from safetensors.torch import save_file

    told = {"ss_network_module": "networks.lora", "ss_network_dim": str(rank), "ss_network_alpha": str(rank)}
    if conv_rank:
        told["ss_network_args"] = json.dumps({"conv_dim": str(conv_rank), "conv_alpha": str(conv_rank)})
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: t.half().contiguous().clone() for k, t in look(unet).items()}, path, metadata=told)
    path.with_name(f"{path.stem}.card.json").write_text(json.dumps({"description": description}, indent=1), "utf-8")


def difference(module: nn.Module, part: str) -> dict[str, Tensor]:
    """What learned, under the names of a file; `part` is unet or text_encoder."""
    out: dict[str, Tensor] = {}
    for key, p in module.named_parameters():
        if p.requires_grad and INSIDE not in key:
            out[f"{part}.{key.removeprefix('text_model.')}"] = p.detach()
    for path, found in module.named_modules():
        if isinstance(found, LowRank):
            layer = path.removesuffix(INSIDE[:-1])
            out |= {
                f"{part}.{layer.removeprefix('text_model.')}{leaf}": t.detach() for leaf, t in found.factors().items()
            }
    return out


def save_difference(parts: Mapping[str, nn.Module], path: Path, base: str, description: str) -> None:
    """A safetensors file in half precision, and the card that names its base."""
    from safetensors.torch import save_file

    tensors = {k: t.half().contiguous().clone() for part, m in parts.items() for k, t in difference(m, part).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata={NAMED: base})
    card = {"description": description, NAMED: base}
    path.with_name(f"{path.stem}.card.json").write_text(json.dumps(card, indent=1), "utf-8")


def widened(base: Base, name: str, channels: int) -> Base:
    """The same model with more input channels; the new ones start at zero."""
    from diffusers import UNet2DConditionModel

    narrow: Any = base.network.unet
    config: dict[str, Any] = {k: v for k, v in narrow.config.items() if not k.startswith("_")}
    unet: Any = UNet2DConditionModel(**{**config, "in_channels": channels})
    unet = nn.Module.to(unet, base.network.device, base.network.dtype)
    state = narrow.state_dict()
    wide = torch.zeros_like(unet.conv_in.weight)
    wide[:, : narrow.config.in_channels] = state["conv_in.weight"]
    unet.load_state_dict(state | {"conv_in.weight": wide})
    spec = base.spec
    told = NetworkSpec.from_unet_config(
        name, {**spec.config, "in_channels": channels}, vae_factor=spec.vae_factor, prediction=spec.prediction, family=spec.family,
        parameters=spec.parameters, guidance=spec.guidance,
    )  # fmt: skip
    return replace(base, name=name, network=Network(unet, told))

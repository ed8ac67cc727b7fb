"""Random LoRAs of tiny bases, in memory, and bases that have them in their weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

import tiny
from infuse.encoders.text import TextEncoders
from infuse.network.lora import LoraNetwork, LowRank
from infuse.network.unet import Network

LAYERS = (nn.Linear, nn.Conv2d)


def parts(base: Any) -> dict[str, nn.Module]:
    texts = base.texts.models
    return {"unet": base.network.unet} | {f"text_encoder{'_2' * i}": m for i, m in enumerate(texts)}


def lora(base: Any, seed: int, rank: int = 3, only: str = "", texts: bool = True, bias: bool = False) -> LoraNetwork:
    """Something for every layer whose path has `only` in it."""
    g = torch.Generator().manual_seed(seed)
    dtype = base.network.dtype
    changes: dict[str, dict[str, Any]] = {}
    for part, network in parts(base).items():
        if part != "unet" and not texts:
            continue
        for path, layer in network.named_modules():
            if isinstance(layer, LAYERS) and only in path:
                out, *inside = layer.weight.shape
                down = (
                    torch.randn(rank, *inside, generator=g, dtype=torch.float64).to(dtype)
                    / layer.weight[0].numel() ** 0.5
                )
                up = torch.randn(out, rank, generator=g, dtype=torch.float64).to(dtype) * 0.3
                more = torch.randn(out, generator=g, dtype=torch.float64).to(dtype) * 0.1 if bias else None
                changes.setdefault(part, {})[path] = LowRank(down, up, more)
    return LoraNetwork(changes, name=f"lora{seed}")


def with_merged(tiny_base: tiny.Tiny, said: Sequence[tuple[LoraNetwork, float]], texts: bool = True) -> tiny.Tiny:
    """The same base with these in the weights of its network and of its text encoders."""
    base = tiny_base.base
    networks = {p: copy.deepcopy(m) for p, m in parts(base).items()}
    for part, network in networks.items():
        if part != "unet" and not texts:
            continue
        for path, layer in network.named_modules():
            for one, s in said:
                if (change := one.change(part, path)) is not None:
                    layer.weight.data = layer.weight + change.delta(layer, s).to(layer.weight)  # type: ignore[operator]
                    if change.bias is not None:
                        own = torch.zeros_like(change.bias) if layer.bias is None else layer.bias
                        layer.bias = nn.Parameter(own + s * change.bias, requires_grad=False)  # type: ignore[operator]
    ours = replace(
        base,
        network=Network(networks["unet"], base.spec),
        texts=TextEncoders([m for p, m in networks.items() if p != "unet"], base.texts.tokenizers),
    )
    return replace(tiny_base, base=ours)

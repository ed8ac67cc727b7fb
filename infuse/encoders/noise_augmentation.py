"""How much noise is in an image's embedding, and how much the network is told there is (unCLIP).

The embedding is brought to mean 0 and spread 1 by numbers stored with the model, noised like a picture, and brought back;
sinusoids of the level follow it. Source: Stability-AI/stablediffusion, CLIPEmbeddingNoiseAugmentation; diffusers'
StableUnCLIPImg2ImgPipeline (`noise_image_embeddings`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.ports import Posterior

LEVELS = 1000


def kept(level: int) -> float:
    """Share of the embedding's variance that is left at a level: diffusers' squaredcos_cap_v2 (Nichol & Dhariwal 2021, sec. 3.2)."""

    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    betas = (min(1 - bar((i + 1) / LEVELS) / bar(i / LEVELS), 0.999) for i in range(level + 1))
    return math.prod(1 - b for b in betas)


def sinusoids(level: float, width: int) -> Float[Tensor, " e"]:
    """Cosines, then sines, as a timestep is told to a network."""
    angles = level * torch.exp(-math.log(10_000) * torch.arange(width // 2, dtype=torch.float32) / (width // 2))
    return torch.cat([angles.cos(), angles.sin()])


@dataclass(frozen=True, eq=False)
class Followed(Posterior):
    """A distribution with numbers behind it that nobody draws."""

    tail: Float[Tensor, " e"]

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, " 2e"]:
        return torch.cat([super().draw(generator), self.tail])


class ImageNoise(nn.Module):
    """Mean and spread (e) of the embeddings that an unCLIP model was trained with."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " e"], std: Float[Tensor, " e"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.detach().float().flatten())
        self.register_buffer("std", std.detach().float().flatten())

    @torch.no_grad()
    def forward(self, embedding: Float[Tensor, " e"], level: int) -> Followed:
        """The class vector (2 e) of a pooled embedding at a level of noise, 0 to 999. Even 0 adds a little."""
        signal = kept(level)
        mean, std = self.mean.to(embedding.device), self.std.to(embedding.device)
        centre = math.sqrt(signal) * (embedding.float() - mean) + mean
        tail = sinusoids(level, len(mean)).to(embedding)
        return Followed(centre.to(embedding), (math.sqrt(1 - signal) * std).to(embedding), early=True, tail=tail)

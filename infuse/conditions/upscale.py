"""A small picture beside the latent, four times smaller than what is made of it (the x4 upscaler, 7 input channels).

The network is shown the picture itself, pixel for latent, under some noise, and told how much: what the noise hides it invents.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from infuse.conditions.base import Condition, Encoders, Route, View, brought
from infuse.errors import RecipeError
from infuse.media.fitting import Fit, shrunk
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Ports, Posterior, Sides, Vector

TIMES = 4
"""What is made is so many times larger than the picture, for a recipe that names no size."""
MOST_NOISE = 350
"""The highest level of noise that the released network was trained with."""
BETAS = 1e-4, 0.02, 1000
"""First, last and number of the noise schedule of the small picture; their roots are evenly spaced."""


class Upscale(Condition):
    """Upscale `image` by four, guided by the prompt.

    noise_level: how much noise lies over the picture, 0 to 350: more lets the network invent more. fit: what is done to an
    image of another shape than the picture to be made. weight: from 0 (no picture is shown) to 1.
    Source: Stability-AI/stablediffusion (x4-upscaling); diffusers' StableDiffusionUpscalePipeline.
    """

    kind: Literal["upscale"] = "upscale"
    image: Picture
    noise_level: int = 20
    fit: Fit = "stretch"

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net)
        self.part()
        if not any(s.name == "lowres" for s in net.channel_slots):
            raise RecipeError("", f"{net.name} has no input channels for a small picture. Use img2img at a larger width and height, or choose "
                                  "the x4 upscaler (7 channels) as model.")  # fmt: skip
        most = min(MOST_NOISE, (net.config.get("num_class_embeds") or MOST_NOISE + 1) - 1)
        if not 0 <= self.noise_level <= most:
            raise RecipeError("noise_level", f"{self.noise_level} is not between 0 and {most}, the levels that {net.name} was trained with. "
                                             "Give one of these; 20 is usual.")  # fmt: skip
        if self.applies_to != "both":
            raise RecipeError(
                "applies_to",
                "an upscaler hears its picture on both sides of guidance, which pulls words alone apart. Remove it.",
            )
        small = shrunk(view.size, net.vae_factor)
        warnings = tuple(brought(self.image.size, small, "image", "the small picture", self.fit))
        route = Route(
            "channels", "lowres (3 h w)", note=f"7-channel network; noise level {self.noise_level}", warnings=warnings
        )
        return [route, Route("embedding", "noise_level (1)")] if "noise_level" in net.embedding_slots else [route]

    def encode(self, kit: Encoders) -> Sides:
        import torch

        seen = 2 * kit.small(self.image, self.fit) - 1
        kept = signal(self.noise_level)
        noised = Posterior(kept**0.5 * seen, torch.full_like(seen, (1 - kept) ** 0.5), early=True)
        said = Ports(channels=(Channel("lowres", noised),))
        if "noise_level" in kit.spec.embedding_slots:  # in float32: half precision cannot count to 350
            level = torch.tensor([float(self.noise_level)], dtype=torch.float32, device=seen.device)
            said += Ports(embedding=(Vector("noise_level", level),))
        return Sides.both(said)

    def native(self) -> tuple[int, int]:
        return TIMES * self.image.size[0], TIMES * self.image.size[1]

    @property
    def grows(self) -> bool:
        return True


def signal(level: int) -> float:
    """How much of the small picture's variance is left at a level of noise."""
    first, last, count = BETAS
    betas = np.linspace(first**0.5, last**0.5, count) ** 2
    return float(np.cumprod(1 - betas)[level])

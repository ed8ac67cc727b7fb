"""A cheap look at a job under way: what its network takes the clean latent to be, as a small picture without the VAE.

A latent is nearly a picture: its channels are, to first order, a linear map away from colours, a different one for each
VAE. That shows what becomes of a job at every step for the price of a product with a 4 x 3 matrix.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

FAINTEST = 1e-4
"""Share of the signal (alpha_cumprod) below which noise is not divided out any further; SD 1.x ends at 0.0047."""
FACTOR, LONGEST = 8, 512
"""A preview has so many pixels per latent, but no side is longer than this: enough for a thumbnail that is watched."""


def denoised(
    x: Float[Tensor, "c *f h w"],
    timestep: Float[Tensor, ""] | float,
    answer: Float[Tensor, "c *f h w"],
    alphas_cumprod: Float[Tensor, " n"],
    prediction: str,
) -> Float[Tensor, "c *f h w"]:
    """The network's estimate of the clean latent, from its own input and its answer; finite wherever they are.

    x: what the network was shown, as `scale_model_input` left it: sqrt(a) x0 + sqrt(1 - a) eps in diffusers' schedulers
    of either kind. timestep: may lie between those of the schedule. prediction: epsilon, v_prediction or sample.
    At zero terminal SNR an epsilon says nothing of x0; what is returned then is noise, and v and sample are exact.
    """
    if prediction == "sample":
        return answer
    a = signal(alphas_cumprod, timestep).to(x.device, torch.float32)  # no number of x's own precision: 1 - a counts
    if prediction == "v_prediction":
        return a.sqrt() * x - (1 - a).sqrt() * answer
    if prediction == "epsilon":
        return (x - (1 - a).sqrt() * answer) / a.clamp(min=FAINTEST).sqrt()
    raise ValueError(f"nothing is known of networks that predict {prediction!r}: epsilon, v_prediction, sample.")


def signal(alphas_cumprod: Float[Tensor, " n"], timestep: Float[Tensor, ""] | float) -> Float[Tensor, ""]:
    """a = alpha_cumprod at any timestep, on a straight line between neighbours."""
    steps = alphas_cumprod.double()
    t = torch.as_tensor(timestep, dtype=torch.float64, device=steps.device).clamp(0, len(steps) - 1)
    low = t.floor().long()
    return torch.lerp(steps[low], steps[t.ceil().long()], t - low)


@dataclass(frozen=True)
class Colours:
    """(red green blue) in -1..1 = z @ factors + bias, for latents as the network sees them (scaled)."""

    factors: tuple[tuple[float, float, float], ...]
    bias: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, z: Float[Tensor, "c h w"]) -> Float[Tensor, "h w 3"]:
        z = z.float().movedim(0, -1)
        return (z @ z.new_tensor(self.factors) + z.new_tensor(self.bias)) / 2 + 0.5


SD = Colours((
    (0.3512, 0.2297, 0.3227),
    (0.3250, 0.4974, 0.2350),
    (-0.2829, 0.1762, 0.2721),
    (-0.2120, -0.2616, -0.7177),
))  # fmt: skip
"""Linear factors in common use for the SD VAE, which SD 2.x and the text-to-video networks share."""
SDXL = Colours((
    (0.3651, 0.4232, 0.4341),
    (-0.2533, -0.0042, 0.1068),
    (0.1076, 0.1111, -0.0362),
    (-0.3165, -0.2492, -0.2188),
), (0.1084, -0.0175, -0.0011))  # fmt: skip
"""Linear factors in common use for the SDXL VAE."""
TABLETOP = Colours((
    (0.1313, 0.2642, 0.1482),
    (0.1934, 0.0064, 0.0180),
    (0.0491, 0.0305, -0.1844),
    (-0.2045, -0.0679, -0.1601),
), (-0.0292, -0.1021, -0.1555))  # fmt: skip
"""Fitted by tabletop/making/preview_factors.py."""
COLOURS: Mapping[str, Colours] = {"sd1": SD, "sd2": SD, "sdxl": SDXL, "tabletop": TABLETOP}
"""Family -> how its latents look."""


def preview(z: Float[Tensor, "4 h w"] | Float[Tensor, "4 f h w"], family: str) -> Any:
    """A PIL image of a latent, of a clip's middle frame: 8 pixels per latent, at most 512 a side, in the job's aspect.

    A family that is not in `COLOURS`, or has other channels, is shown in shades of its first channel: shapes, no colours.
    """
    from PIL import Image

    if z.ndim == 4:
        z = z[:, z.shape[1] // 2]
    z = z.detach().cpu().float().nan_to_num(0.0, 0.0, 0.0)
    colours = COLOURS.get(family)
    rgb = shades(z[0]) if colours is None or len(colours.factors) != len(z) else colours(z)
    small = Image.fromarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    scale = min(FACTOR, LONGEST / max(small.size))
    size = (max(round(small.width * scale), 1), max(round(small.height * scale), 1))
    return small.resize(size, Image.Resampling.BILINEAR)


def shades(channel: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Grey at the mean; black and white two standard deviations away."""
    normal = (channel - channel.mean()) / channel.std(correction=0).clamp(min=1e-6)
    return (normal / 4 + 0.5)[..., None].expand(-1, -1, 3)

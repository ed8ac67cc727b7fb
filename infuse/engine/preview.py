"""A cheap look at a job under way: what its network takes the clean latent to be, as a small picture without the VAE.

A latent is nearly a picture: its channels are, to first order, a linear map away from colours, a different one for each
VAE. That shows what becomes of a job at every step for the price of a product with a 4 x 3 matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.errors import InfuseError
from infuse.network.spec import NetworkSpec
from infuse.weights.formats import SUFFIXES
from infuse.weights.layouts import taesd
from infuse.weights.source import Source

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


def preview(
    z: Float[Tensor, "4 h w"] | Float[Tensor, "4 f h w"], family: str, decoder: Callable[[Tensor], Tensor] | None = None
) -> Any:
    """A PIL image of a latent, of a clip's middle frame: 8 pixels per latent, at most 512 a side, in the job's aspect.

    decoder: a TAESD, asked instead of the linear map. A family that is not in `COLOURS`, or has other channels, is shown in
    shades of its first channel: shapes, no colours.
    """
    from PIL import Image

    if z.ndim == 4:
        z = z[:, z.shape[1] // 2]
    h, w = z.shape[-2:]
    z = z.detach().nan_to_num(0.0, 0.0, 0.0)
    colours = COLOURS.get(family)
    if decoder is not None:
        rgb = decoded(z, decoder)
    elif colours is None or len(colours.factors) != len(z):
        rgb = shades(z[0].cpu().float())
    else:
        rgb = colours(z.cpu())
    made = Image.fromarray((rgb.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    scale = min(FACTOR, LONGEST / max(h, w))
    size = (max(round(w * scale), 1), max(round(h * scale), 1))
    return made if made.size == size else made.resize(size, Image.Resampling.BILINEAR)


@torch.no_grad()
def decoded(z: Float[Tensor, "4 h w"], decoder: Callable[[Tensor], Tensor]) -> Float[Tensor, "height width 3"]:
    """What a TAESD makes of a scaled latent, 0-1."""
    at: Any = next(decoder.parameters())  # type: ignore[attr-defined]
    made = decoder(z[None].to(at.device, at.dtype))[0]
    return (made.float().nan_to_num(0.0, 0.0, 0.0).cpu() / 2 + 0.5).movedim(0, -1)


@dataclass(eq=False)
class Previews:
    """Which small decoder shows a base's latents, if any: one that is named, or one that lies beside the model.

    name: of a TAESD; None looks for `taesd*` in the model's folder, or beside its file. Raises WeightsError, under
    `preview`, for a name that leads to nothing of the kind.
    """

    store: Any
    name: str | None
    tell: Callable[[Iterable[str]], None]

    def __post_init__(self) -> None:
        if self.name is not None:
            taesd.checked(self.store.library.find(self.name, "preview"))

    def decoder(self, model: str, spec: NetworkSpec) -> Callable[[Tensor], Tensor] | None:
        """None for what only the linear map can show; a decoder that was named and does not fit is told of."""
        name = self.name or self._beside(model)
        if name is None:
            return None
        try:
            why = unfit(self.store.library.find(name, "preview"), spec)
            if not why:
                dtype = self.store.dtype
                return self.store._once("taesd", name, lambda place: taesd.load(place.source, dtype), "taesd")
        except InfuseError as error:  # it was replaced or removed meanwhile
            why = error.message
        if self.name is not None:
            self.tell([f"preview: {why} Previews are a linear map of the latent."])
        return None

    def _beside(self, model: str) -> str | None:
        if self.store.is_added(model):
            return None
        try:
            path = self.store.library.find(model).path
        except InfuseError:
            return None
        folder = path if path.is_dir() else path.parent
        found = sorted(p for p in folder.glob("taesd*") if p.is_dir() or p.suffix in SUFFIXES)
        found = [p for p in found if "encoder" not in p.stem]
        return str(found[0]) if found else None


def unfit(source: Source, spec: NetworkSpec) -> str:
    """Why a TAESD cannot show this base's latents; "" if it can. SDXL's is told from SD's by its name alone."""
    own = taesd.factor(taesd.checked(source)[1])
    if spec.latent_channels != taesd.CHANNELS or own != spec.vae_factor:
        return f'"{source.name}" makes {own} pixels of each place of a latent, and this base has {spec.vae_factor}.'
    named = "xl" in source.path.name.lower()
    if (
        spec.family in ("sd1", "sd2", "sdxl")
        and "taesd" in source.path.name.lower()
        and named != (spec.family == "sdxl")
    ):
        return f'"{source.name}" is by its name for {"SDXL" if named else "SD 1.x and 2.x"}.'
    return ""


def shades(channel: Float[Tensor, "h w"]) -> Float[Tensor, "h w 3"]:
    """Grey at the mean; black and white two standard deviations away."""
    normal = (channel - channel.mean()) / channel.std(correction=0).clamp(min=1e-6)
    return (normal / 4 + 0.5)[..., None].expand(-1, -1, 3)

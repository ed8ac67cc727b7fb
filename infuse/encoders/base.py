"""A loaded base model: its network, its VAE, its text encoders, and what else came with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders import room
from infuse.encoders.noise_augmentation import ImageNoise
from infuse.encoders.strips import Strips
from infuse.encoders.tasks import TaskTexts
from infuse.encoders.text import TextEncoders
from infuse.network.edits import listen
from infuse.network.spec import NetworkSpec
from infuse.network.stc import Composer
from infuse.network.unet import Network
from infuse.notices import note

T = TypeVar("T")


@dataclass(eq=False)
class Base:
    """A loaded base model: its network and its encoders. Never changed after loading."""

    name: str
    network: Network
    vae: Any
    texts: TextEncoders
    scheduler: Mapping[str, Any]
    """The model's own scheduler_config.json."""
    image_encoder: Any = None
    feature_extractor: Any = None
    silent_is_zero: bool = False
    """SDXL: no negative prompt means zeros."""
    digest: str = ""
    tasks: TaskTexts | None = None
    """PowerPaint 1: the same text encoder, with its task tokens."""
    composer: Composer | None = None
    """VideoComposer: its condition encoders and its style network."""
    image_noise: ImageNoise | None = None
    """unCLIP: the mean and spread of image embeddings, under which they are noised."""

    of: Base | None = None
    """The base that this one is, but for its VAE or text encoder."""

    def __post_init__(self) -> None:
        for i, model in enumerate(self.texts.models):
            if isinstance(model, nn.Module):
                listen(model, "text_encoder_2" if i else "text_encoder")

    @property
    def origin(self) -> Base:
        """Whose network this is: what is made for that one serves this one, too."""
        return self.of if self.of is not None and self.of.network is self.network else self

    @property
    def spec(self) -> NetworkSpec:
        return self.network.spec

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Latents to pixels in 0-1, in float32. A VAE that overflows in half precision, as SDXL's does, is asked again in
        float32; what is NaN after that comes out as NaN. Where the memory of it is not free, layer by layer in strips: the same to rounding."""
        made = self._decoded(self.vae, latents)
        if not made.isfinite().all() and self.vae.dtype.itemsize < 4 and latents.isfinite().all():
            note("the VAE overflowed in half precision, so this picture was decoded in float32.")
            made = self._decoded(self._exact_vae, latents)
        if not made.isfinite().all():  # infinities would be clamped to colours
            return torch.full_like(made, float("nan"))
        return (made / 2 + 0.5).clamp(0, 1)

    def _decoded(self, vae: Any, latents: Tensor) -> Tensor:
        config = vae.config
        z = latents.to(vae.dtype) / config.scaling_factor
        if getattr(config, "latents_mean", None) is not None:
            mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(z) for v in (config.latents_mean, config.latents_std))
            z = latents.to(z) * std / config.scaling_factor + mean
        elif getattr(config, "shift_factor", None):
            z = z + config.shift_factor
        pixels = z.shape[-2] * z.shape[-1] * self.spec.vae_factor**2
        return self._in_room(
            vae, pixels, "decoded", lambda: vae.decode(z, return_dict=False)[0], lambda s: s.decode(z)
        ).float()

    @torch.no_grad()
    def said_of(self, pixels: Float[Tensor, "b 3 height width"]) -> tuple[Tensor, Tensor]:
        """(mean, std) of the VAE's answer to pixels in 0-1, unscaled; in float32 if half precision overflows."""

        def asked(vae: Any) -> tuple[Tensor, Tensor]:
            x = (2 * pixels - 1).to(vae.dtype)
            size = x.shape[-2] * x.shape[-1]
            said = self._in_room(vae, size, "encoded", lambda: vae.encode(x).latent_dist, lambda s: s.encode(x))
            return said.mean, said.std

        mean, std = asked(self.vae)
        if not (mean.isfinite().all() and std.isfinite().all()) and self.vae.dtype.itemsize < 4:
            note("the VAE overflowed in half precision, so a picture was encoded in float32.")
            mean, std = asked(self._exact_vae)
        return mean, std

    def _in_room(self, vae: Any, pixels: int, what: str, whole: Callable[[], T], strips: Callable[[Strips], T]) -> T:
        """A VAE's answer as a whole where there is memory for that now, else in strips; with what they work on in the machine's memory
        where a device has no room for that, either."""
        if not Strips.knows(vae):
            return whole()
        width, each, device = vae.config.block_out_channels[0], vae.dtype.itemsize, vae.device
        need, there = room.decoding(width, pixels, each), room.free(str(device))
        if need <= there:
            try:
                return whole()
            except torch.OutOfMemoryError:  # somebody else was faster
                there = 0
        note(f"a picture was {what} in strips: {need / 2**30:.1f} GiB were not free. It is the same to rounding.")
        fits = device.type == "cpu" or room.decoding(width, pixels, each, room.STRIPS) <= there
        return strips(Strips(vae, None if fits else torch.device("cpu")))

    @cached_property
    def _exact_vae(self) -> Any:
        """The VAE again, in float32."""
        return deepcopy(self.vae).float()

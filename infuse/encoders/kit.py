"""What a condition may use to become tensors: one loaded base, one canvas. Pure and cached by content."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.noise_augmentation import ImageNoise
from infuse.encoders.tasks import TaskTexts
from infuse.encoders.text import TextEncoders
from infuse.media.fitting import Cells, Fit, fitted, fitted_hole, laid, padded, shrunk
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.network.stc import Composer
from infuse.network.twins import twin
from infuse.network.unet import Network
from infuse.notices import note
from infuse.ports import Ports, Posterior, Tokens, Vector, Windowed


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

    @property
    def spec(self) -> NetworkSpec:
        return self.network.spec

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 3 height width"]:
        """Latents to pixels in 0-1, in float32. A VAE that overflows in half precision, as SDXL's does, is asked again in
        float32; what is NaN after that comes out as NaN."""
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
        return vae.decode(z, return_dict=False)[0].float()

    @torch.no_grad()
    def said_of(self, pixels: Float[Tensor, "b 3 height width"]) -> tuple[Tensor, Tensor]:
        """(mean, std) of the VAE's answer to pixels in 0-1, unscaled; in float32 if half precision overflows."""

        def asked(vae: Any) -> tuple[Tensor, Tensor]:
            said = vae.encode((2 * pixels - 1).to(vae.dtype)).latent_dist
            return said.mean, said.std

        mean, std = asked(self.vae)
        if not (mean.isfinite().all() and std.isfinite().all()) and self.vae.dtype.itemsize < 4:
            note("the VAE overflowed in half precision, so a picture was encoded in float32.")
            mean, std = asked(self._exact_vae)
        return mean, std

    @cached_property
    def _exact_vae(self) -> Any:
        """The VAE again, in float32."""
        return deepcopy(self.vae).float()


@dataclass(eq=False)
class Kit:
    """Encoders of one base for one canvas. `store` finds and keeps the modules that conditions bring along."""

    base: Base
    size: tuple[int, int]
    """(width, height) of the picture to be made, in pixels: any."""
    store: Any
    frames: int = 1
    """Of the clip to be made; 1 for a picture."""
    windows: tuple[tuple[int, int], ...] = ()
    """Of a clip: the frames (first, last + 1) that the network sees at a time."""
    openings: tuple[tuple[Any, Fit], ...] = ()
    """Every hole of the recipe, a picture or film and how it is fitted: whoever is shown what is known must not be shown what lies
    in any."""
    _said: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> NetworkSpec:
        return self.base.spec

    @cached_property
    def dtype(self) -> torch.dtype:
        return self.base.network.dtype

    @cached_property
    def device(self) -> torch.device:
        return self.base.network.device

    @property
    def canvas(self) -> tuple[int, int]:
        """(width, height) that the network works on: the picture's, rounded up to whole places of the latent."""
        return padded(self.size, self.spec.vae_factor)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w) of the latent."""
        return self.canvas[1] // self.spec.vae_factor, self.canvas[0] // self.spec.vae_factor

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._said:
            self._said[key] = make()
        return self._said[key]

    def text(self, prompt: str) -> Float[Tensor, "n d"]:
        """(77 k, context width) tokens."""
        return self._once(f"text {prompt}", lambda: self.base.texts.tokens(prompt).to(self.device, self.dtype))

    def pooled(self, prompt: str) -> Float[Tensor, " e"] | None:
        """SDXL's pooled text; None for networks that do not hear it."""
        if "text_embeds" not in self.spec.embedding_slots:
            return None
        said = self._once(f"pooled {prompt}", lambda: self.base.texts.pooled(prompt))
        return None if said is None else said.to(self.device, self.dtype)

    def phrase(self, text: str) -> Float[Tensor, " e"]:
        """A few words as one vector, as GLIGEN hears them."""
        return self._once(f"phrase {text}", lambda: self.base.texts.phrase(text).to(self.device, self.dtype))

    def silence(self) -> Ports | None:
        """What SDXL hears where no negative prompt is given: zeros. None for networks that hear the empty sentence."""
        if not self.base.silent_is_zero:
            return None
        said, pooled = self.text(""), self.pooled("")
        vectors = () if pooled is None else (Vector("text_embeds", torch.zeros_like(pooled)),)
        return Ports(context=(Tokens(torch.zeros_like(said)),), embedding=vectors)

    def pixels(self, picture: Picture, channels: int = 3, fit: Fit = "stretch") -> Float[Tensor, "c height width"]:
        """The picture on the canvas, 0-1; scaled by Lanczos as in diffusers, its last row and column repeated where the canvas is
        larger than the picture to be made."""
        return self.exact(picture, channels, fit).to(self.dtype)

    def exact(self, picture: Picture, channels: int = 3, fit: Fit = "stretch") -> Float[Tensor, "c height width"]:
        """The same in float32: what is to stay, to the last of its 8 bits."""
        return self._numbers(fitted(picture.image, self.size, fit), channels)

    def small(self, picture: Picture, fit: Fit = "stretch") -> Float[Tensor, "3 h w"]:
        """0-1, a pixel for each place of the latent."""
        image = fitted(picture.image, shrunk(self.size, self.spec.vae_factor), fit)
        return self._numbers(image, 3, (self.grid[1], self.grid[0])).to(self.dtype)

    def _numbers(
        self, image: Any, channels: int, size: tuple[int, int] | None = None
    ) -> Float[Tensor, "c height width"]:
        image = laid(image.convert("L" if channels == 1 else "RGB"), size or self.canvas)
        array = np.asarray(image, dtype=np.float32) / 255
        return torch.from_numpy(array.copy()).reshape(*array.shape[:2], -1).permute(2, 0, 1).to(self.device)

    def mask(self, picture: Picture) -> Float[Tensor, "height width"]:
        """A region on the canvas, 0-1."""
        return self._numbers(fitted(picture.mask, self.size), 1)[0]

    def hole(self, picture: Picture, fit: Fit = "stretch") -> Float[Tensor, "1 height width"]:
        """A hole on the canvas, 0 or 1: 1 wherever the mask is white in any pixel that it covers."""
        return self._numbers(fitted_hole(picture.mask, self.size, fit), 1).to(self.dtype)

    def open(self, hole: Float[Tensor, "1 height width"]) -> Float[Tensor, "1 height width"]:
        """A hole (0 or 1) together with those of all other conditions of the recipe."""
        others = (self.hole(p, fit).to(hole) for p, fit in self.openings if isinstance(p, Picture))
        return reduce(torch.maximum, others, hole)

    def cells(self, hole: Float[Tensor, "*c height width"], rule: Cells = "touched") -> Float[Tensor, "*c h w"]:
        """A hole on the latent's grid: every place that it touches, or, as in diffusers, those whose first pixel it covers."""
        if rule == "nearest":
            return F.interpolate(hole[None], size=self.grid)[0]
        return F.max_pool2d(hole[None], self.spec.vae_factor)[0]

    def clip_posterior(self, pixels: Float[Tensor, "3 f height width"]) -> Posterior:
        """What the VAE says of each frame, (4 f h w)."""
        said = [self.posterior(frame) for frame in pixels.transpose(0, 1)]
        return Posterior(torch.stack([p.mean for p in said], 1), torch.stack([p.std for p in said], 1))

    def posterior(self, pixels: Float[Tensor, "3 height width"]) -> Posterior:
        """What the VAE says of a picture (0-1), scaled as the network expects its latents."""
        config = self.base.vae.config
        mean, std = (t[0] for t in self.base.said_of(pixels[None]))
        scale = config.scaling_factor
        if getattr(config, "latents_mean", None) is not None:
            m, s = (torch.tensor(v).view(-1, 1, 1).to(mean) for v in (config.latents_mean, config.latents_std))
            mean, std = (mean - m) / s, std / s
        elif getattr(config, "shift_factor", None):
            mean = mean - config.shift_factor
        return Posterior((mean * scale).to(self.dtype), (std * scale).to(self.dtype))

    def likeliest(self, pixels: Float[Tensor, "3 height width"]) -> Float[Tensor, "c h w"]:
        """The mode of what the VAE says of a picture (0-1), as it comes: not scaled (InstructPix2Pix)."""
        return self.base.said_of(pixels[None])[0][0].to(self.dtype)

    def look(self, picture: Picture | None, folder: str | None, hidden: bool) -> Float[Tensor, ...]:
        """The image encoder's pooled embedding (e), or its penultimate states (n e); None is the zero picture."""
        encoder, prepare = (
            self.store.vision_model(folder) if folder else (self.base.image_encoder, self.base.feature_extractor)
        )
        side = encoder.config.image_size
        if picture is None:
            pixels = torch.zeros(1, 3, side, side)
        else:
            pixels = prepare(picture.image, return_tensors="pt").pixel_values
        with torch.no_grad():
            out = encoder(pixels.to(encoder.device, encoder.dtype), output_hidden_states=hidden)
        return (out.hidden_states[-2] if hidden else out.image_embeds)[0].to(self.device, self.dtype)

    def states(self, picture: Picture, folder: str | None) -> Float[Tensor, "n e"]:
        """The image encoder's last states, the class token first, without the norm after them (T2I style adapters)."""
        encoder, prepare = (
            self.store.vision_model(folder) if folder else (self.base.image_encoder, self.base.feature_extractor)
        )
        pixels = prepare(picture.image, return_tensors="pt").pixel_values
        with torch.no_grad():
            out = encoder(pixels.to(encoder.device, encoder.dtype))
        return out.last_hidden_state[0].to(self.device, self.dtype)

    def module(self, model: str, build: Callable[[Mapping[str, Tensor]], nn.Module]) -> nn.Module:
        """The module that a weights file holds, built once."""
        return self.store.module(model, build, self.dtype, self.device)

    def controlnet(self, model: str, pool: bool | None = None) -> nn.Module:
        """A ControlNet of any kind and layout, with ported attention, loaded once. pool: whether it averages over places; None: as
        its config says."""
        return twin(self.store.controlnet(model, self.base, self.dtype, self.device), pool)

    def brushnet(self, model: str) -> nn.Module:
        """A BrushNet with ported attention, loaded once."""
        return self.store.brushnet(model, self.base, self.dtype, self.device)

    def gligen(self, model: str) -> nn.Module:
        """A GLIGEN's gated layers and its network of tokens, loaded once."""
        return self.store.beside("gligen", model, self.base, self.dtype, self.device)

    def tasks(self, model: str | None) -> TaskTexts:
        """The encoder of task tokens beside a BrushNet, or the base's own."""
        found = self.base.tasks if model is None else self.store.tasks(model, self.base, self.dtype, self.device)
        assert found is not None, "checked: these weights have task tokens"
        return found

    def task_text(self, model: str | None, said: tuple[str, str | None]) -> Float[Tensor, "n d"]:
        """(77 k, d) tokens of a description with its task token."""
        key = f"task {model} {said}"
        return self._once(key, lambda: self.tasks(model).tokens(*said).to(self.device, self.dtype))

    def noised(self, embedding: Float[Tensor, " e"], level: int) -> Posterior:
        """unCLIP's class vector (2 e) of an image's pooled embedding, at a level of noise."""
        noise = self.base.image_noise
        assert noise is not None, "checked: this network hears pictures"
        return noise(embedding, level)

    @torch.no_grad()
    def stc(self, name: str, video: Float[Tensor, "c f height width"]) -> Windowed:
        """What VideoComposer's encoder of one condition says to a clip of any size, (d f h w) for each window.

        Each window is encoded by itself: the encoder, as the network, sees no frame outside of it.
        """
        composer = self.base.composer
        assert composer is not None, "checked: this network has such an encoder"
        video = video[None].to(self.device, self.dtype)
        windows = self.windows or ((0, video.shape[2]),)
        return Windowed({(a, b): composer.stc[name](video[:, :, a:b], self.grid)[0] for a, b in windows})

    @torch.no_grad()
    def style(self, embedding: Float[Tensor, " e"] | None) -> Float[Tensor, "1 d"]:
        """VideoComposer's style token of an image embedding; None is its silent side, the network's answer to zeros."""
        composer = self.base.composer
        assert composer is not None and composer.style is not None, "checked: this network has a style"
        said = torch.zeros(self.spec.context_width) if embedding is None else embedding
        return composer.style(said[None].to(self.device, self.dtype))

    def card(self, model: str) -> Mapping[str, Any]:
        """What is written beside a model: its annotator and the like."""
        return self.store.card(model)

    def vector(self, values: Any) -> Tensor:
        """Plain numbers for an embedding slot."""
        return torch.tensor(values, dtype=self.dtype, device=self.device)

    def gray(self) -> Posterior:
        """The latent of a mid-gray canvas: what a 9-channel network is shown when there is no picture to inpaint."""
        w, h = self.canvas
        return self._once(
            "gray", lambda: self.posterior(torch.full((3, h, w), 0.5, dtype=self.dtype, device=self.device))
        )

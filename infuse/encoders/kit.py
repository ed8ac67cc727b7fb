"""What a condition may use to become tensors: one loaded base, one canvas. Pure and cached by content."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.base import Base as Base
from infuse.encoders.tasks import TaskTexts
from infuse.encoders.words import Words
from infuse.media.fitting import Cells, Fit, fitted, fitted_hole, laid, padded, shrunk
from infuse.media.pictures import Picture
from infuse.network.lora import LoraNetwork
from infuse.network.spec import NetworkSpec
from infuse.network.twins import twin
from infuse.ports import Ports, Posterior, Tokens, Turning, Vector, Windowed
from infuse.words.wording import PLAIN, Wording


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
    wording: Wording = PLAIN
    """How words are read."""
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

    @cached_property
    def words(self) -> Words:
        """The text encoders, as this recipe's words are read."""
        return Words(self.base, self.store, self.wording, self._said)

    @property
    def worded(self) -> Hashable:
        """What decides how words are read here."""
        return self.words.key

    def text(self, prompt: str, second: str | None = None) -> Float[Tensor, "n d"] | Turning:
        """(77 k, context width) tokens. second: what SDXL's second text encoder reads instead."""
        return self.words.text(prompt, second)

    def pooled(self, prompt: str, second: str | None = None) -> Float[Tensor, " e"] | Turning | None:
        """SDXL's pooled text; None for networks that do not hear it."""
        return self.words.pooled(prompt, second) if "text_embeds" in self.spec.embedding_slots else None

    def phrase(self, text: str) -> Float[Tensor, " e"]:
        """A few words as one vector, as GLIGEN hears them."""
        return self.words.phrase(text)

    def silence(self) -> Ports | None:
        """What SDXL hears where no negative prompt is given: zeros. None for networks that hear the empty sentence."""
        if not self.base.silent_is_zero:
            return None
        said, pooled = (v.values[0] if isinstance(v, Turning) else v for v in (self.text(""), self.pooled("")))
        assert said is not None
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

    def box(self, box: tuple[float, float, float, float]) -> Float[Tensor, "height width"]:
        """A region on the canvas: 1 inside of (x, y, width, height), fractions of the picture, edges rounded to pixels."""
        (w, h), (x, y, wide, high) = self.size, box
        out = torch.zeros(self.canvas[::-1], device=self.device)
        right, bottom = (
            self.canvas[i] if a + b > 1 - 1e-6 else round(n * (a + b))
            for i, n, a, b in ((0, w, x, wide), (1, h, y, high))
        )
        out[round(h * y) : bottom, round(w * x) : right] = 1
        return out

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
            self.store.vision_model(folder, self.dtype)
            if folder
            else (self.base.image_encoder, self.base.feature_extractor)
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
            self.store.vision_model(folder, self.dtype)
            if folder
            else (self.base.image_encoder, self.base.feature_extractor)
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

    def lora(self, model: str) -> LoraNetwork:
        """What a LoRA's file changes of the base, loaded once."""
        return self.store.lora(model, self.base, self.dtype, self.device)

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
        """Plain numbers for an embedding slot; in float32 if the network's dtype cannot hold one of them (bfloat16: 1023 pixels)."""
        exact = torch.tensor(values, dtype=torch.promote_types(self.dtype, torch.float32), device=self.device)
        held = exact.to(self.dtype)
        return held if torch.equal(held.to(exact), exact) else exact

    def gray(self) -> Posterior:
        """The latent of a mid-gray canvas: what a 9-channel network is shown when there is no picture to inpaint."""
        w, h = self.canvas
        return self._once(
            "gray", lambda: self.posterior(torch.full((3, h, w), 0.5, dtype=self.dtype, device=self.device))
        )

"""BrushNet: an inpainting branch beside any base of its family; the residuals port, at every site of the network.

Source: Ju et al. 2024, sec. 3; TencentARC/BrushNet (keep = 1, hole pixels black before encoding).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from infuse.conditions.base import Condition, Encoders, Route, Shelf
from infuse.errors import RecipeError
from infuse.network.spec import NetworkSpec, described
from infuse.pictures import Picture
from infuse.ports import Latent, Ports, Residual, Sides, Voice


class BrushNet(Condition):
    """Fill what is white in `mask`, a picture of the same size as `image`, with what the prompt says.

    mode: balanced | guess (sites from 0.1 to 1, on the prompt's side only). sites: one factor per site (28 beside SD
    1.5: down, middle, up) instead. paste: as in `inpaint`.
    """

    kind: Literal["brushnet"] = "brushnet"
    model: str = Field(min_length=1)
    image: Picture
    mask: Picture  # pyright: ignore[reportGeneralTypeIssues]  required here, and the hole instead of a region
    mode: Literal["balanced", "guess"] = "balanced"
    sites: tuple[float, ...] | None = None
    paste: bool = True

    def native(self) -> tuple[int, int]:
        return self.image.size

    def check(self, net: NetworkSpec, shelf: Shelf) -> list[Route]:
        self.plain("mask", "weight", "start", "end", "applies_to")
        self.still(net, "Use masked_video")
        if self.mask.size != self.image.size:
            (w, h), (width, height) = self.mask.size, self.image.size
            raise RecipeError(
                "mask", f"it is {w} x {h} px, its image is {width} x {height} px. Make both the same size."
            )
        if self.mask.image.convert("L").getextrema()[1] < 128:
            raise RecipeError(
                "mask", "it has no white pixel, so there is nothing to repaint. White is repainted, black is kept."
            )
        found = shelf.identity(self.model, "model", "brushnet")
        if found.context_width not in (None, net.context_width):
            raise RecipeError(
                "model",
                f"{self.model!r} was trained for {described(found.context_width)}, this recipe's base is "
                f"{net.described}. Choose a BrushNet of the base's family, or another base.",
            )
        if self.sites is not None and len(self.sites) != found.sites:
            raise RecipeError(
                "sites", f"{len(self.sites)} factors, but {self.model!r} has {found.sites} sites. Give one for each."
            )
        return [Route("residuals", f"{found.sites} sites inside of the blocks", found.memory, note=f"mode {self.mode}")]

    def encode(self, kit: Encoders) -> Sides:
        image = kit.pixels(self.image)
        hole = (kit.mask(self.mask) >= 0.5).to(image)[None]
        size = [s // kit.spec.vae_factor for s in image.shape[-2:]]
        keep = 1 - F.interpolate(hole[None], size=size)[0]
        branch = kit.brushnet(self.model)
        ports = Ports(
            latent=(Latent(paste=(image, hole)),) if self.paste else (),
            residuals=(
                Residual(branch, (kit.posterior(image * (1 - hole)), keep), self.sites or self._mode(branch.sites)),
            ),
        )
        return Sides(ports) if self.mode == "guess" else Sides.both(ports)

    def _mode(self, sites: int) -> tuple[float, ...] | None:
        return tuple(float(s) for s in np.logspace(-1, 0, sites)) if self.mode == "guess" else None

    def voice(self, kit: Encoders) -> Voice:
        """The mask is the hole itself, not a region in which the condition is heard."""
        return Voice(self.weight, self.start, self.end)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"brushnet": kit.brushnet(self.model)}

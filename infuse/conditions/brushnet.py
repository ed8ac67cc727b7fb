"""BrushNet: an inpainting branch beside any base of its family; the residuals port, at every site of the network.

Source: Ju et al. 2024, sec. 3; TencentARC/BrushNet (keep = 1, hole pixels black before encoding).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infuse.conditions.base import (
    Encoders,
    Route,
    View,
    brought,
    guess_sites,
    in_place,
    same_family,
    some_hole,
)
from infuse.conditions.holed import Holed, opening
from infuse.errors import RecipeError
from infuse.media.fitting import Cells, Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Latent, Ports, Residual, Sides

if TYPE_CHECKING:
    from torch import nn


class BrushNet(Holed):
    """Fill what is white in `mask`, which is scaled to `image` if it has another size, with what the prompt says.

    mode: balanced | guess (sites from 0.1 to 1, on the prompt's side only). sites: one factor per site (28 beside SD
    1.5: down, middle, up) instead. paste, fit, cells: as in `inpaint`.
    """

    kind: Literal["brushnet"] = "brushnet"
    model: str = Field(min_length=1)
    image: Picture
    mask: Picture  # pyright: ignore[reportGeneralTypeIssues]  required here, and the hole instead of a region
    mode: Literal["balanced", "guess"] = "balanced"
    sites: tuple[float, ...] | None = None
    paste: bool = True
    fit: Fit = "stretch"
    cells: Cells = "touched"

    def openings(self) -> tuple[tuple[Picture, Fit], ...]:
        return ((in_place(self.mask, self.image.size), self.fit),)

    def native(self) -> tuple[int, int] | None:
        return None if self.area == "masked" else self.image.size

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain("mask", "weight", "start", "end", "applies_to")
        self.still(net, "Use masked_video")
        some_hole(self.mask.mask)
        found = view.identity(self.model, "model", "brushnet")
        same_family(self.model, found.context_width, net, "a BrushNet")
        if self.sites is not None and len(self.sites) != found.sites:
            raise RecipeError(
                "sites", f"{len(self.sites)} factors, but {self.model!r} has {found.sites} sites. Give one for each."
            )
        return [
            Route(
                "residuals",
                f"{found.sites} sites inside of the blocks",
                found.memory,
                f"mode {self.mode}",
                one_sided=self.mode == "guess",
                warnings=tuple(brought(self.mask.size, self.image.size, "mask", "its image")),
            )
        ]

    def encode(self, kit: Encoders) -> Sides:
        image, own = kit.pixels(self.image, fit=self.fit), kit.exact(self.image, fit=self.fit)
        hole = kit.hole(in_place(self.mask, self.image.size), self.fit)
        shown = kit.open(hole)
        small, keep = kit.cells(hole, self.cells), 1 - kit.cells(shown, self.cells)
        branch = kit.brushnet(self.model)
        sites = self.sites or (guess_sites(branch.sites) if self.mode == "guess" else None)
        edge = opening(kit, [lambda: self.drawn(self.image.size)], self.mask_blur, hole, self.fit)
        ports = Ports(
            latent=(Latent(hole=small, picture=own if self.paste else None, opening=edge),),
            residuals=(Residual(branch, (kit.posterior(image * (1 - shown)), keep), sites),),
        )
        return Sides(ports) if self.mode == "guess" else Sides.both(ports)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"brushnet": kit.brushnet(self.model)}

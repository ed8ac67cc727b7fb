"""Repaint a hole and keep the rest. The recipe is the same for every network; the network decides the way.

Four input channels: the known part is put back after each step (latent port). Nine: the network is shown the mask and
the masked picture (channels port).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field

from infuse.conditions.base import HOLED, Condition, Encoders, Route, View, brought, in_place, some_hole
from infuse.errors import RecipeError
from infuse.media.fitting import Cells, Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Latent, Ports, Sides


class Inpaint(Condition):
    """Fill what is white in `mask`, which is scaled to `image` if it has another size.

    fit: what is done to an image of another shape than the picture to be made. cells: the places of the latent that are
    repainted: all that the hole touches, however thin it is, or diffusers' choice (those whose first pixel it covers).
    strength: 1 starts the hole from pure noise; less starts from the picture, as img2img does. paste: put the original
    pixels back outside of the hole, behind a soft edge that lies inside of it.
    Source: diffusers' inpaint pipelines (4 and 9 channels); Rombach et al. 2022, sec. 4.5 (9 channels).
    """

    VOICE = HOLED
    HOLE = "image"

    kind: Literal["inpaint"] = "inpaint"
    image: Picture
    mask: Picture  # pyright: ignore[reportGeneralTypeIssues]  required here, and the hole instead of a region
    strength: float = Field(default=1.0, gt=0, le=1)
    paste: bool = True
    fit: Fit = "stretch"
    cells: Cells = "touched"

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain("mask", "weight", "start", "end")
        self.part()
        self.still(net, "Use masked_video")
        some_hole(self.mask.mask)
        warnings = tuple(brought(self.mask.size, self.image.size, "mask", "its image"))
        slots = {s.name for s in net.channel_slots}
        if "mask" in slots:
            return [
                Route("channels", "mask (1 h w) + masked_image (4 h w)", note="9-channel network", warnings=warnings)
            ]
        if slots:
            raise RecipeError(
                "",
                f"{net.name} has the extra channels {', '.join(sorted(slots))}, none for a mask. "
                "Choose an inpainting base, or a plain one.",
            )
        note = "4-channel network: blended after each step"
        return [Route("latent", f"keep ({net.latent_channels} h w)", note=note, warnings=warnings)]

    def openings(self) -> tuple[tuple[Picture, Fit], ...]:
        return ((in_place(self.mask, self.image.size), self.fit),)

    def encode(self, kit: Encoders) -> Sides:
        image, own = kit.pixels(self.image, fit=self.fit), kit.exact(self.image, fit=self.fit)
        hole = kit.hole(in_place(self.mask, self.image.size), self.fit)
        small = kit.cells(hole, self.cells)
        known = kit.posterior(image)
        start = known if self.strength < 1 else None
        latent = Latent(start, self.strength, None, small, own if self.paste else None, hole)
        if not any(s.name == "mask" for s in kit.spec.channel_slots):
            return Sides.both(Ports(latent=(replace(latent, keep=known),)))
        shown = kit.open(hole)  # what lies in the hole of another condition is no known picture either
        # masked pixels become 0 in -1..1, mid-grey: 0.5 here
        masked = kit.posterior(image * (1 - shown) + 0.5 * shown)
        mask = kit.cells(shown, self.cells)
        return Sides.both(Ports(latent=(latent,), channels=(Channel("mask", mask), Channel("masked_image", masked))))

    def native(self) -> tuple[int, int]:
        return self.image.size

    def strength_of_start(self) -> float | None:
        return self.strength if self.strength < 1 else None

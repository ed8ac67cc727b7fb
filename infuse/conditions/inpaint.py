"""Repaint a hole and keep the rest. The recipe is the same for every network; the network decides the way.

Four input channels: the known part is put back after each step (latent port). Nine: the network is shown the mask and
the masked picture (channels port).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from infuse.conditions.base import Encoders, Route, View, brought, counted, in_place, some_hole
from infuse.conditions.holed import Holed, opening
from infuse.errors import RecipeError
from infuse.media.filling import filled_in
from infuse.media.fitting import Cells, Fit, fitted, fitted_hole
from infuse.media.outpaint import Canvas
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Latent, Ports, Posterior, Sides

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from torch import Tensor

Content = Literal["original", "fill", "noise", "nothing"]
SIDES = ("left", "right", "top", "bottom")


class Inpaint(Holed):
    """Fill what is white in `mask`, which is scaled to `image` if it has another size.

    invert: repaint what is black instead. left, right, top, bottom: pixels by which the picture is continued on each side, or
    horizontal, vertical by a ratio; `overlap` pixels of the picture are repainted beside them. A mask is not needed then.
    fit: what is done to an image of another shape than the picture to be made. cells: the places of the latent that are
    repainted: all that the hole touches, however thin it is, or diffusers' choice (those whose first pixel it covers).
    strength: 1 starts the hole from pure noise; less starts from the picture, as img2img does. content: what it starts from: the
    `original`, the colours around (`fill`), `noise` or `nothing` (a latent of zeros). soft: a grey mask says when: a place of
    0.3 stays as it is for the first 0.7 of the steps and is free from then on; starts from the picture whatever the strength.
    mask_weight: of networks of nine channels, which are shown the picture without the hole: less than 1 shows what was there.
    paste: put the original pixels back outside of the hole, behind a soft edge that lies inside of it.
    Source: diffusers' inpaint pipelines (4 and 9 channels); Rombach et al. 2022, sec. 4.5 (9 channels); Levin and Fried 2023
    (soft: exx8/differential-diffusion@d78f3f3); the webui's img2img tab (content, mask weight, mask blur, only masked).
    """

    kind: Literal["inpaint"] = "inpaint"
    image: Picture
    invert: bool = False
    strength: float = Field(default=1.0, gt=0, le=1)
    content: Content = "original"
    soft: bool = False
    mask_weight: float = Field(default=1.0, ge=0, le=1)
    left: int = Field(default=0, ge=0)
    right: int = Field(default=0, ge=0)
    top: int = Field(default=0, ge=0)
    bottom: int = Field(default=0, ge=0)
    horizontal: float = Field(default=1.0, ge=1, le=4)
    vertical: float = Field(default=1.0, ge=1, le=4)
    overlap: int = Field(default=10, ge=0)
    paste: bool = True
    fit: Fit = "stretch"
    cells: Cells = "touched"

    @property
    def canvas(self) -> Canvas | None:
        """What the picture is continued on; None if it is not."""
        ratios, sides = (self.horizontal, self.vertical), (self.left, self.right, self.top, self.bottom)
        return Canvas.around(self.image.size, ratios, sides) if any(sides) or ratios != (1, 1) else None

    @property
    def edged(self) -> bool:
        return (
            super().edged or self.soft or self.invert or self.grows or self.mask is None or self.content != "original"
        )

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.plain("mask", "weight", "start", "end")
        self.part()
        self.still(net, "Use masked_video")
        self._hole()
        slots = {s.name for s in net.channel_slots}
        if self.mask_weight != 1 and "mask" not in slots:
            raise RecipeError("mask_weight", f"only a network of nine channels is shown the picture without its hole, and {net.name} has "
                                             f"{net.in_channels}. Remove it; a strength below 1 keeps something of what lies in the hole.")  # fmt: skip
        warnings = tuple(self._warnings("mask" in slots))
        if "mask" in slots:
            return [
                Route("channels", "mask (1 h w) + masked_image (4 h w)", note="9-channel network", warnings=warnings)
            ]
        note = (
            "4-channel network: blended after each step"
            if not slots
            else "no channel for a mask: blended after each step"
        )
        return [Route("latent", f"keep ({net.latent_channels} h w)", note=note, warnings=warnings)]

    def _hole(self) -> Any:
        """Its mask. Raises RecipeError if nothing of it is to be repainted, or there is none."""
        if self.mask is None:
            raise RecipeError("mask", "inpaint needs one: a picture of the image's size, white where to repaint. To continue the "
                                      "picture instead, give left, right, top or bottom in pixels.")  # fmt: skip
        if not self.soft:
            some_hole(self.mask.mask)
        counted(self.mask.mask)
        if not self.mask.mask.getextrema()[1]:
            raise RecipeError("mask", "it is black everywhere, so there is nothing to repaint. White is repainted.")
        return self.mask.mask

    def _warnings(self, nine: bool) -> list[str]:
        assert self.mask is not None
        said = brought(self.mask.size, self.image.size, "mask", "its image")
        if self.content != "original" and not (self.strength < 1 or self.soft or (nine and self.mask_weight < 1)):
            said.append("content: strength 1 starts the hole from pure noise, so that hardly anything of it is seen. Use a strength "
                        "below 1.")  # fmt: skip
        if self.soft and not self.mask_blur and not any(self.mask.mask.histogram()[1:255]):
            said.append("soft: the mask is black and white only, so no place of it is released later than others. Draw it in greys, or "
                        "give a mask_blur.")  # fmt: skip
        return said

    def laid(self) -> Inpaint:
        if self.overlap != type(self).model_fields["overlap"].default and not self.grows:
            raise RecipeError("overlap", "only a picture that is continued is painted over at its rim. Remove it, or give left, right, top "
                                         "or bottom in pixels.")  # fmt: skip
        canvas, mask, image = self.canvas, self.mask, self.image
        if mask is not None and self.invert:
            mask = Picture.of(mask.mask.point(lambda v: 255 - v))
        if canvas is not None:
            from PIL import ImageChops

            hole = canvas.hole(image.size, self.overlap)
            if mask is not None:  # a hole of its own beside it
                own = mask.mask if self.soft else fitted_hole(mask.mask, mask.size)
                hole = Picture.of(ImageChops.lighter(hole.mask, canvas.mask(Picture.of(own), image.size).mask))
            mask, image = hole, canvas.picture(image)
        if mask is self.mask and image is self.image:
            return self
        done = {name: type(self).model_fields[name].default for name in (*SIDES, "horizontal", "vertical", "overlap")}
        return self.model_copy(update={"image": image, "mask": mask, "invert": False, **done})

    def drawn(self, size: tuple[int, int]) -> Any:
        return fitted_hole(self._hole(), size, soft=self.soft)

    def ground(self, size: tuple[int, int]) -> Any:
        image = super().ground(size)
        if self.content == "original":
            return image
        return filled_in(image, fitted(self.edge(self.image.size), size, self.fit))

    def openings(self) -> tuple[tuple[Picture, Fit], ...]:
        mask = self.mask
        if mask is None:
            return ()
        if self.soft:  # whatever is ever released
            return ((Picture.of(self.edge(self.image.size).point(lambda v: 255 * (v > 0))), self.fit),)
        return ((in_place(mask, self.image.size), self.fit),)

    def encode(self, kit: Encoders) -> Sides:
        mine = self.openings()
        hole = kit.hole(mine[0][0], self.fit)
        released = self._released(kit) if self.soft else hole
        small = kit.cells(released, self.cells)
        image, own = kit.pixels(self.image, fit=self.fit), kit.exact(self.image, fit=self.fit)
        if self.content != "original":
            image = kit.pixels(Picture.of(self.ground(kit.size)))
        known = kit.posterior(image)
        start = self._start(known, small) if self.strength < 1 or self.soft else None
        blur = 0.0 if self.soft else self.mask_blur
        edge = opening(kit, [lambda: self.drawn(self.image.size)], blur, hole, self.fit)
        latent = Latent(start, self.strength, None, small, own if self.paste else None, edge)
        nine = any(s.name == "mask" for s in kit.spec.channel_slots)
        if self.soft or not nine:
            latent = replace(latent, keep=known)
        if not nine:
            return Sides.both(Ports(latent=(latent,)))
        # what lies in the hole of another condition is no known picture either
        shown = self._among_others(kit, released, mine) if self.soft else kit.open(hole)
        hidden = shown if self.mask_weight == 1 else self.mask_weight * shown
        # masked pixels become 0 in -1..1, mid-grey: 0.5 here
        masked = kit.posterior(image * (1 - hidden) + 0.5 * hidden)
        mask = kit.cells(shown, self.cells)
        return Sides.both(Ports(latent=(latent,), channels=(Channel("mask", mask), Channel("masked_image", masked))))

    def _released(self, kit: Encoders) -> Float[Tensor, "1 height width"]:
        """How much of the run's end each pixel of the canvas is free in."""
        grey = fitted_hole(self.edge(self.image.size), kit.size, self.fit, soft=True)
        return kit.exact(Picture.of(grey), 1).to(kit.pixels(self.image).dtype)

    def _among_others(self, kit: Encoders, released: Tensor, mine: tuple[tuple[Picture, Fit], ...]) -> Tensor:
        """Greys of its own hole, as the webui shows them, and whatever other conditions open."""
        import torch

        others = (
            kit.hole(p, fit).to(released) for p, fit in kit.openings if isinstance(p, Picture) and (p, fit) not in mine
        )
        return reduce(torch.maximum, others, released)

    def _start(self, known: Posterior, hole: Float[Tensor, "1 h w"]) -> Posterior:
        """What the hole starts from."""
        if self.content in ("original", "fill"):
            return known
        free = (hole >= 1).to(hole)  # what is held for a while begins from what it is held to
        return Emptied(known.mean, known.std, hole=free, noisy=self.content == "noise")

    def native(self) -> tuple[int, int] | None:
        if self.area == "masked":
            return None  # what is worked on is as large as the network likes it
        return self.canvas.size if self.canvas else self.image.size

    @property
    def grows(self) -> bool:
        return self.canvas is not None

    def strength_of_start(self) -> float | None:
        return self.strength if self.strength < 1 or self.soft else None


@dataclass(frozen=True, eq=False, kw_only=True)
class Emptied(Posterior):
    """What the VAE says of a picture, with nothing (0) or noise where the hole is.

    The noise is drawn for itself: together with what the sampler adds it is as strong as a picture under that noise.
    """

    hole: Float[Tensor, "1 h w"]
    noisy: bool

    def draw(self, generator: torch.Generator | None) -> Float[Tensor, "c h w"]:
        import torch

        known, there = super().draw(generator), torch.zeros_like(self.mean)
        if self.noisy:
            there = torch.randn((1, *self.mean.shape), generator=generator, dtype=torch.float32)[0].to(self.mean)
        return known * (1 - self.hole) + there * self.hole

"""A trainable copy of the encoder reads a hint and adds its answer to the skips: the residuals port.

Source: ControlNet (Zhang et al. 2023), sec. 3; modes as in the webui extension, guess mode as in diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Route, View, guess_sites, same_family
from infuse.encoders.annotators.kinds import auto
from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Residual, Sides

if TYPE_CHECKING:
    from torch import nn

Mode = Literal["balanced", "prompt", "control", "guess"]


class ControlNet(Condition):
    """Guide the composition by a map: edges, depth, pose... Any number of them, each with its own weight and window.

    image: the hint, 0-1 RGB in the convention that the ControlNet was trained with, or a photo with an `annotator`.
    mode: balanced | prompt (prompt more important: shallow sites softened by 0.825 each) | control (the same, and only
    on the prompt's side) | guess (diffusers' guess mode: sites from 0.1 to 1, prompt's side only).
    sites: one factor per residual, shallow to middle (13 in SD 1/2, 10 in SDXL), instead of the mode's own.
    """

    kind: Literal["controlnet"] = "controlnet"
    model: str = Field(min_length=1)
    image: Picture
    annotator: Literal["none", "auto", "canny"] = "none"
    mode: Mode = "balanced"
    sites: tuple[float, ...] | None = None

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "controlnet")
        same_family(self.model, found.context_width, net, "a ControlNet")
        if self.sites is not None and len(self.sites) != net.sites:
            raise RecipeError(
                "sites", f"{len(self.sites)} factors, but {net.name} has {net.sites} sites. Give one for each."
            )
        note = auto(self.model, view.card(self.model), self.image.image)[1] if self.annotator == "auto" else ""
        return [
            Route(
                "residuals",
                f"{net.sites} sites of (c h w)",
                found.memory,
                f"mode {self.mode}",
                one_sided=self.mode in ("control", "guess"),
                warnings=(f"annotator: {note}",) if note else (),
            )
        ]

    def encode(self, kit: Encoders) -> Sides:
        branch = kit.controlnet(self.model)
        hint = kit.pixels(annotated(self.image, self.annotator, kit, self.model), branch.config.conditioning_channels)
        if branch.config.controlnet_conditioning_channel_order == "bgr":
            hint = hint.flip(0)
        ports = Ports(residuals=(Residual(branch, hint, self.sites or mode_sites(self.mode, kit.spec.sites)),))
        # A globally pooled ControlNet (shuffle) must not speak on the unconditional side.
        one_sided = self.mode in ("control", "guess") or branch.config.global_pool_conditions
        return Sides(ports) if one_sided else Sides.both(ports)

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"controlnet": kit.controlnet(self.model)}


def mode_sites(mode: Mode, sites: int) -> tuple[float, ...] | None:
    """Factors per site, shallow to middle. The webui takes the FIRST entries of its 13, so SDXL's middle gets 0.5615."""
    match mode:
        case "balanced":
            return None
        case "guess":
            return guess_sites(sites)
        case _:
            return tuple(0.825 ** (12 - i) for i in range(sites))


def annotated(picture: Picture, annotator: str, kit: Any, model: str) -> Picture:
    """The hint: the picture itself, or what an annotator makes of it. `auto` asks the model's card and name, if it is no map yet."""
    if annotator == "auto":
        annotator = auto(model, kit.card(model), picture.image)[0]
    return canny(picture) if annotator == "canny" else picture


def canny(picture: Picture, low: int = 100, high: int = 200) -> Picture:
    """White edges on black (OpenCV's Canny, the thresholds of the original annotator)."""
    import cv2

    edges = cv2.Canny(np.asarray(picture.image.convert("RGB")), low, high)
    return Picture.of(np.repeat(edges[..., None], 3, axis=-1))

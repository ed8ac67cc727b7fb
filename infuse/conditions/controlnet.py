"""A trainable copy of the encoder reads a hint and adds its answer to the skips: the residuals port.

Source: ControlNet (Zhang et al. 2023), sec. 3; modes as in the webui extension, guess mode as in diffusers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from infuse.conditions.base import Condition, Encoders, Route, View, guess_sites, same_family
from infuse.conditions.frames import pixels, planned, taken
from infuse.encoders.annotators.kinds import auto, inverted, kind_of
from infuse.errors import RecipeError, under
from infuse.media.film_arrays import is_film
from infuse.media.films import Film
from infuse.media.fitting import Fit
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Residual, Sides

if TYPE_CHECKING:
    from torch import Tensor, nn

Mode = Literal["balanced", "prompt", "control", "guess"]


class ControlNet(Condition):
    """Guide the composition by a map: edges, depth, pose... Any number of them, each with its own weight and window.

    image: the hint, 0-1 RGB in the convention that the ControlNet was trained with, or a photo with an `annotator`. film: one
    for every frame of a clip instead. invert: a map of dark lines on light, turned over. fit: what is done to a hint of another
    shape than the picture to be made (stretch; of a film, crop).
    mode: balanced | prompt (prompt more important: shallow sites softened by 0.825 each) | control (the same, and only
    on the prompt's side) | guess (diffusers' guess mode: sites from 0.1 to 1, prompt's side only).
    sites: one factor per residual, shallow to middle (13 in SD 1/2, 10 in SDXL), instead of the mode's own.
    """

    kind: Literal["controlnet"] = "controlnet"
    model: str = Field(min_length=1)
    image: Picture | None = None
    film: Film | None = None
    invert: bool = False
    fit: Fit = "stretch"
    annotator: Literal["none", "auto", "canny"] = "none"
    mode: Mode = "balanced"
    sites: tuple[float, ...] | None = None

    def settled(self, view: View) -> ControlNet:
        """A GIF may be a film or a picture: before a base that makes pictures it is one."""
        film = self.film
        if film is None or view.spec.frames or not film.source.lower().endswith(".gif"):
            return self
        return self.model_copy(update={"image": film.picture(), "film": None})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "controlnet")
        same_family(self.model, found.context_width, net, "a ControlNet")
        if self.sites is not None and len(self.sites) != net.sites:
            raise RecipeError(
                "sites", f"{len(self.sites)} factors, but {net.name} has {net.sites} sites. Give one for each."
            )
        if self.invert and self.annotator == "canny":
            raise RecipeError("invert", "canny draws light on dark already. Remove invert.")
        notes = self._shown(net, view)
        return [
            Route(
                "residuals",
                f"{net.sites} sites of (c h w)",
                found.memory,
                f"mode {self.mode}",
                one_sided=self.mode in ("control", "guess"),
                warnings=tuple(notes),
            )
        ]

    def _shown(self, net: NetworkSpec, view: View) -> list[str]:
        """What is odd about the hint; raises the film's letters."""
        notes, card = [], view.card(self.model)
        if self.film is not None:
            if not net.frames:
                raise RecipeError(
                    "film", f"{net.name} makes pictures. Give one frame as image, or choose a video base."
                )
            notes = planned(self.film, "film", view, view.size, self.film_fit)
        elif self.image is not None and self.image.source.lower().endswith(".gif"):  # it came as a film
            notes = [f"image: {text}." for text in self.image.notes]
        first = self.image.image if self.image is not None else self._frame()
        drawn, said = auto(self.model, card, first) if self.annotator == "auto" else (self.annotator, "")
        if drawn == "none" and not self.invert and (kind := inverted(kind_of(self.model, card), first)):
            where = "film" if self.image is None else "image"
            notes.append(f"{where}: it looks inverted: {self.model!r} hears {kind}. Set invert: true to turn it over.")
        return [*notes, *([f"annotator: {said}"] if said else [])]

    def _frame(self) -> Any:
        assert self.film is not None
        with under("film"):
            return self.film.looked_at(self.film.plan(1)[0][0])[0]

    @model_validator(mode="before")
    @classmethod
    def _film_by_its_name(cls, data: Any) -> Any:
        """A hint whose name is that of a film is one."""
        if isinstance(data, dict) and data.get("film") is None and is_film(data.get("image")):
            return {**{k: v for k, v in data.items() if k != "image"}, "film": data["image"]}
        return data

    @model_validator(mode="after")
    def _one_hint(self) -> ControlNet:
        if (self.image is None) == (self.film is None):
            both = "it comes with a film, which is a hint, too. Keep one of them."
            none = "this field is required: the map that is the hint. Give a picture, or for a clip a film."
            raise RecipeError("image", both if self.image else none)
        return self

    def encode(self, kit: Encoders) -> Sides:
        branch = kit.controlnet(self.model)
        hint = self._hint(kit, branch.config.conditioning_channels)
        hint = 1 - hint if self.invert else hint
        if branch.config.controlnet_conditioning_channel_order == "bgr":
            hint = hint.flip(0)
        ports = Ports(residuals=(Residual(branch, hint, self.sites or mode_sites(self.mode, kit.spec.sites)),))
        # A globally pooled ControlNet (shuffle) must not speak on the unconditional side.
        one_sided = self.mode in ("control", "guess") or branch.config.global_pool_conditions
        return Sides(ports) if one_sided else Sides.both(ports)

    def _hint(self, kit: Encoders, channels: int) -> Tensor:
        """(c height width), or (c f height width) of a film."""
        if self.image is not None:
            return kit.pixels(annotated(self.image, self.annotator, kit, self.model), channels, self.fit)
        assert self.film is not None
        frames = taken(self.film, "film", kit, kit.size, self.film_fit)
        maps = [annotated(Picture.of(f), self.annotator, kit, self.model).image for f in frames]
        return pixels(maps, kit, "L" if channels == 1 else "RGB")

    @property
    def film_fit(self) -> Fit:
        """Films are cut where pictures are stretched, unless somebody says how."""
        return self.fit if "fit" in self.model_fields_set else "crop"

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

    edges = cv2.Canny(np.asarray(picture.image), low, high)
    return Picture.of(np.repeat(edges[..., None], 3, axis=-1))

"""A branch reads a hint beside the base and adds its answer there: the residuals port.

Which kind of branch it is (a copy of the encoder, a union, low-rank differences, a narrow one in lockstep, terms before
attention) its file says; the condition is the same. Source: ControlNet (Zhang et al. 2023), sec. 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from infuse.conditions import lllite
from infuse.conditions.base import Condition, Encoders, Route, View, in_place
from infuse.conditions.controlnet import files, types
from infuse.conditions.controlnet.modes import ONE_SIDED, Mode, mode_sites
from infuse.conditions.frames import pixels, taken
from infuse.conditions.hints import Hinted
from infuse.encoders.annotators.colouring import ANNOTATORS, annotated, pixel_perfect
from infuse.encoders.annotators.kinds import auto, kind_of
from infuse.errors import RecipeError
from infuse.media.fitting import fitted_hole
from infuse.media.maps import Resample, fitted_map
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Residual, Sides

if TYPE_CHECKING:
    from torch import Tensor, nn

LIGHT = ("canny", "scribble")
"""These draw light on dark."""


class ControlNet(Hinted, Condition):
    """Guide the composition by a map: edges, depth, pose... Any number of them, each with its own weight and window. The file says
    what stands beside the network: a ControlNet, a ControlNet-Union, a Control-LoRA, a ControlNet-XS or a ControlNet-LLLite.

    image: the hint, 0-1 RGB in the convention that the ControlNet was trained with, or a photo with an `annotator`. film: one
    for every frame of a clip instead. invert: a map of dark lines on light, turned over. fit: what is done to a hint of another
    shape than the picture to be made (stretch; of a film, crop); pad fills up with the colour of its rim.
    annotator: canny | scribble | luminance | intensity | tile | blur | threshold | shuffle | auto (what the model's card or name
    says, if it is edges). options: its numbers (canny: low, high; luminance, intensity: gamma; tile: rate; blur: sigma; threshold,
    scribble: at; shuffle: seed). resolution: pixels of the short side at which it looks, or perfect: as large as it is shown.
    resample: how a hint is scaled: smooth (Lanczos, as diffusers), map (colours and lines kept), auto (map, if it has few colours).
    hole: of an inpainting ControlNet: what it is not shown, white in a picture as large as its image.
    type: of a union: what kind of map this is (depth, canny, ... or its number). Several conditions of one union are asked together.
    mode: balanced | prompt (prompt more important: shallow sites softened by 0.825 each) | control (the same, and only
    on the prompt's side) | guess (diffusers' guess mode: sites from 0.1 to 1, prompt's side only).
    sites: one factor per residual, shallow to middle (13 in SD 1/2, 10 in SDXL), instead of the mode's own.
    pool: what a shuffle model says is averaged over all places, on the prompt's side only; auto: if its config, card or name says so.
    """

    kind: Literal["controlnet"] = "controlnet"
    model: str = Field(min_length=1)
    annotator: Literal[  # pyright: ignore[reportIncompatibleVariableOverride]  these are others than other adapters have
        "none", "auto", "canny", "scribble", "luminance", "intensity", "tile", "blur", "threshold", "shuffle"
    ] = "none"
    options: Mapping[str, float] = Field(default_factory=dict)
    resolution: Annotated[int, Field(ge=8, le=8192)] | Literal["perfect"] | None = None
    resample: Resample = "auto"
    hole: Picture | None = None
    type: str | int | None = None
    mode: Mode = "balanced"
    sites: tuple[float, ...] | None = None
    pool: Literal["auto"] | bool = "auto"

    def settled(self, view: View) -> ControlNet:
        change = self.as_picture(view)
        return self.model_copy(update=change) if change else self

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "controlnet")
        self._options()
        if found.kind == "lllite":
            self._only(found.kind, "a ControlNet-LLLite", "hole", "type", "pool")
            notes = self.looked_at(net, view, self.model, 3)
            route = lllite.check(self.model, found.shapes, found.memory, net, view, mode=self.mode, sites=self.sites)
            return [_with(route, notes)]
        file = files.fits(self.model, found, net)
        if file.kind == "controlnet_xs":
            files.no_sites(self.model, file, self.mode, self.sites)
        if self.sites is not None and len(self.sites) != file.sites:
            raise RecipeError(
                "sites", f"{len(self.sites)} factors, but {net.name} has {file.sites} sites. Give one for each."
            )
        if file.kind != "controlnet_union":
            self._only(file.kind, files.NAMES[file.kind], "type")
        if file.kind in ("controlnet_union", "controlnet_xs"):
            self._only(file.kind, files.NAMES[file.kind], "pool")
        said = f"mode {self.mode}"
        if file.types:
            number = self.told(file.types)
            said += ", untyped" if number is None else f", type {types.called(number)}"
        notes = [*self.looked_at(net, view, self.model, 3), *self._holed(view, file.types)]
        pooled = self.pool is True or (self.pool == "auto" and self.shuffles(view.card(self.model)))
        return [
            Route(
                "residuals",
                f"{file.sites} sites of (c h w)",
                file.memory,
                said,
                one_sided=self.mode in ONE_SIDED or pooled,
                together=f"{self.model} {self.sites or mode_sites(self.mode, net.sites)}" if file.types else "",
                warnings=tuple(notes),
            )
        ]

    def _only(self, kind: str, what: str, *fields: str) -> None:
        """Raises RecipeError for fields that mean nothing to this kind of file."""
        for field in fields:
            if getattr(self, field) != type(self).model_fields[field].default:
                why = "which knows one kind of map" if field == "type" else "which has nothing of the kind"
                raise RecipeError(field, f"{self.model!r} is {what}, {why}. Remove {field}.")

    def _options(self) -> None:
        """Raises RecipeError for options that the annotator has not, or out of their range."""
        if self.annotator == "none" and (self.options or self.resolution is not None):
            field = "options" if self.options else "resolution"
            raise RecipeError(
                field, "it is an annotator's, and the hint is shown as it is. Remove it, or set annotator."
            )
        has = (
            ANNOTATORS["canny" if self.annotator == "auto" else self.annotator].options
            if self.annotator != "none"
            else {}
        )
        for name, value in self.options.items():
            if name not in has:
                raise RecipeError(
                    "options", f"annotator {self.annotator} has no option {name!r}. It has: {', '.join(has)}."
                )
            _, least, most = has[name]
            if not least <= value <= most:
                raise RecipeError(
                    "options", f"{name} of {self.annotator} lies between {least:g} and {most:g}, not at {value:g}."
                )
        if self.invert and self.annotator in LIGHT:
            raise RecipeError("invert", f"{self.annotator} draws light on dark already. Remove invert.")

    def _holed(self, view: View, types_known: int) -> list[str]:
        """What is odd about its hole, or that it has none."""
        kind = kind_of(self.model, view.card(self.model))
        inpaints = self.told(types_known) == types.REPAINT if types_known else kind == "inpaint"
        if inpaints and self.hole is None:
            return [f"hole: {self.model!r} is shown pictures in which something is missing, and this one is shown whole. Give the mask as hole, "
                    "white where something is to be made."]  # fmt: skip
        if self.hole is not None and not inpaints and (types_known or kind is not None):
            return [f"hole: {self.model!r} hears {kind or 'maps of this type'}, and was not trained on holes."]
        return []

    def told(self, known: int) -> int | None:
        """The type that a union of `known` types is told; None: none ("auto"). Raises RecipeError if nothing says it."""
        if self.type is not None:
            return types.number(self.type, known, self.model)
        found = types.REPAINT if self.hole is not None else types.DRAWN.get(self.annotator)
        if found is None or found >= known:
            raise RecipeError("type", f"this field is required: {self.model!r} is a ControlNet-Union and wants to know what kind of map it is "
                                      f"shown. {types.listed(known, self.model)}")  # fmt: skip
        return found

    def shuffles(self, card: Mapping[str, Any]) -> bool:
        """Is it a shuffle model, by its card or name?"""
        return kind_of(self.model, card) == "shuffle"

    def drawn(self, model: str, card: Mapping[str, Any], image: Any) -> tuple[str, str]:
        if self.annotator != "auto":
            return self.annotator, ""
        number = None if self.type is None else types.number(self.type, len(types.TYPES), model)
        return auto(model, card if number is None else {**card, "annotator": types.TYPES[number][0]}, image)

    def encode(self, kit: Encoders) -> Sides:
        pool = True if self.pool == "auto" and self.shuffles(kit.card(self.model)) else self.pool
        branch = kit.controlnet(self.model, None if pool == "auto" else pool)
        if getattr(branch, "place", "skips") == "projections":
            return Sides.both(Ports(residuals=(lllite.residual(branch, self.hint(kit, self.model, 3)),)))
        known = getattr(branch, "types", 0)
        hint = self.hint(kit, self.model, branch.config["conditioning_channels"])
        if self.hole is not None:
            hole = self._hole(kit)
            hole = hole[:, None] if hint.ndim == 4 else hole
            hint = hint * (1 - hole) - (0 if known else hole)  # -1, as ControlNet 1.1 has it; a union: black
        if branch.config.get("controlnet_conditioning_channel_order") == "bgr":
            hint = hint.flip(0)
        vector = None
        if known:
            number = self.told(known)
            vector = kit.vector([float(i == number) for i in range(known)])
        sites = self.sites or mode_sites(self.mode, kit.spec.sites)
        ports = Ports(residuals=(Residual(branch, hint, sites, vector=vector),))
        # A globally pooled ControlNet (shuffle) must not speak on the unconditional side.
        one_sided = self.mode in ONE_SIDED or branch.config.get("global_pool_conditions")
        return Sides(ports) if one_sided else Sides.both(ports)

    def hint(self, kit: Encoders, model: str, channels: int) -> Tensor:
        """(c height width), or (c f height width) of a film; 0-1."""
        if self.image is not None:
            shown = self.shown(self.image.image, kit.size, kit.card(model))
            maps = kit.pixels(Picture.of(shown), channels)
        else:
            assert self.film is not None
            frames = taken(self.film, "film", kit, kit.size, self.film_fit)
            card, mode = kit.card(model), "L" if channels == 1 else "RGB"
            maps = pixels([self.shown(f, f.size, card) for f in frames], kit, mode)
        return 1 - maps if self.invert else maps

    def shown(self, image: Any, size: tuple[int, int], card: Mapping[str, Any]) -> Any:
        """A PIL image as the branch is shown it, of this (width, height): annotated, then fitted."""
        name = self.drawn(self.model, card, image)[0]
        if name != "none":
            perfect = self.resolution == "perfect"
            at = pixel_perfect(image.size, size, self.fit == "pad") if perfect else self.resolution
            image = annotated(image, name, self.options, at)  # pyright: ignore[reportArgumentType]
        return fitted_map(image, size, self.fit, self.resample)

    def _hole(self, kit: Encoders) -> Tensor:
        """(1 height width), 0 or 1: the hole, and what the picture does not reach (webui: outpainting)."""
        assert self.hole is not None
        own = self.image.size if self.image is not None else self.hole.size
        hole = in_place(self.hole, own)
        if self.fit != "pad":
            return kit.hole(hole, self.fit)
        from PIL import Image, ImageChops, ImageOps

        reached = fitted_hole(Image.new("L", own, 255), kit.size, "pad")
        white = ImageChops.lighter(fitted_hole(hole.mask, kit.size, "pad"), ImageOps.invert(reached))
        return kit.hole(Picture.of(white))

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"controlnet": kit.controlnet(self.model)}


def _with(route: Route, notes: list[str]) -> Route:
    from dataclasses import replace

    return replace(route, warnings=(*route.warnings, *notes))

"""A condition never touches the network: it checks itself against a spec, then becomes data in ports.

Weight, window, region and sides are fields of every condition and are applied here, once; a condition's own file says
only what it is, which networks can hear it, and what tensors it turns into.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import Field, model_validator

from infuse.curves import Curve, span
from infuse.errors import RecipeError
from infuse.media.fitting import Cells, Fit, fitted, fitted_hole, near, odd, tiles
from infuse.media.pictures import Picture, px
from infuse.network.spec import NetworkSpec, described
from infuse.ports import LOUD, Ports, Posterior, Sides, Tokens, Turning, Vector, Voice, Windowed
from infuse.validation import Strict

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Route:
    """Where a condition will enter, before anything is loaded: what `infuse check` prints."""

    port: str
    shape: str
    memory: int = 0
    """Bytes of weights that this condition brings along."""
    note: str = ""
    shared: bool = False
    """Of channels: several conditions may fill them, and what they say is summed."""
    one_sided: bool = False
    """Heard on one side of guidance only: it costs one row where others cost two."""
    together: str = ""
    """Of residuals: conditions that say the same here are answered in one row (a ControlNet-Union's)."""
    once: bool = False
    """Of residuals: what asks is asked once for the whole run, and no step costs more for it."""
    warnings: tuple[str, ...] = ()
    """What is adjusted on the way, one sentence each."""


class View(Protocol):
    """What a check may look at: headers of files, never their tensors."""

    frames: int
    """Of the clip to be made; 1 for a picture."""
    size: tuple[int, int]
    """(width, height) of what is to be made, in pixels."""
    count: int
    """Of pictures that the recipe makes."""

    @property
    def spec(self) -> NetworkSpec: ...
    def shapes(self, model: str, field: str) -> Mapping[str, tuple[int, ...]]: ...
    def identity(self, model: str, field: str, kind: str) -> Any: ...
    def vision(self, folder: str | None) -> Any: ...
    def eyes(self, model: str) -> tuple[str, ...]: ...
    def card(self, model: str) -> Mapping[str, Any]: ...
    def lora(self, model: str) -> Any: ...


class Encoders(Protocol):
    """What a condition may use to turn pixels and words into tensors. Pure: same input, same output."""

    size: tuple[int, int]
    """(width, height) of the picture to be made, in pixels."""
    frames: int
    """Of the clip to be made; 1 for a picture."""
    openings: tuple[tuple[Any, Fit], ...]
    """Every hole of the recipe, a picture or film and how it is fitted."""

    @property
    def spec(self) -> NetworkSpec: ...
    def text(self, prompt: str, second: str | None = None) -> Tensor | Turning: ...
    def pooled(self, prompt: str, second: str | None = None) -> Tensor | Turning | None: ...
    def phrase(self, text: str) -> Tensor: ...
    def silence(self) -> Ports | None: ...
    @property
    def canvas(self) -> tuple[int, int]: ...
    def pixels(self, picture: Picture, channels: int = 3, fit: Fit = "stretch") -> Tensor: ...
    def exact(self, picture: Picture, channels: int = 3, fit: Fit = "stretch") -> Tensor: ...
    def mask(self, picture: Picture) -> Tensor: ...
    def box(self, box: tuple[float, float, float, float]) -> Tensor: ...
    def hole(self, picture: Picture, fit: Fit = "stretch") -> Tensor: ...
    def open(self, hole: Tensor) -> Tensor: ...
    def cells(self, hole: Tensor, rule: Cells = "touched") -> Tensor: ...
    def posterior(self, pixels: Tensor) -> Posterior: ...
    def likeliest(self, pixels: Tensor) -> Tensor: ...
    def small(self, picture: Picture, fit: Fit = "stretch") -> Tensor: ...
    def noised(self, embedding: Tensor, level: int) -> Posterior: ...
    def clip_posterior(self, pixels: Tensor) -> Posterior: ...
    def stc(self, name: str, video: Tensor) -> Windowed: ...
    def style(self, embedding: Tensor | None) -> Tensor: ...
    def look(self, picture: Picture | None, folder: str | None, hidden: bool) -> Tensor: ...
    def states(self, picture: Picture, folder: str | None) -> Tensor: ...
    def module(self, model: str, build: Callable[[Any], nn.Module]) -> Any: ...
    def controlnet(self, model: str, pool: bool | None = None) -> Any: ...
    def brushnet(self, model: str) -> Any: ...
    def gligen(self, model: str) -> Any: ...
    def lora(self, model: str) -> Any: ...
    def tasks(self, model: str | None) -> Any: ...
    def task_text(self, model: str | None, said: tuple[str, str | None]) -> Tensor: ...
    def card(self, model: str) -> Mapping[str, Any]: ...
    def vector(self, values: Any) -> Tensor: ...


class Condition(Strict, ABC):
    """Base of every condition.

    weight: a number, or a curve {progress: value}. start, end: fractions of the steps; a step is heard if it lies inside
    as a whole. mask: white where the condition is heard, stretched over the picture. applies_to: both sides of guidance,
    or only the prompt's or the negative prompt's.
    """

    kind: str
    weight: Curve = 1.0
    start: float = Field(default=0.0, ge=0, le=1)
    end: float = Field(default=1.0, ge=0, le=1)
    mask: Picture | None = None
    applies_to: Literal["both", "prompt", "negative"] = "both"

    WORDS: ClassVar[bool] = False
    """Does it read words? What these are encoded to depends on how the recipe reads them, and on LoRAs of the text encoders."""
    guided: ClassVar[float | None] = None
    """A guidance scale of its own (InstructPix2Pix's image scale), if the mechanism has one."""
    VOICE: ClassVar[frozenset[str]] = frozenset({"weight", "start", "end", "mask", "applies_to"})
    """Fields that say how loudly, when, where and on which sides it is heard: what it is encoded to does not depend on them."""
    LOOKS: ClassVar[bool] = False
    """Are its pictures looked at as a whole (by an image encoder, say), instead of lying on the canvas as hints do?"""
    HOLE: ClassVar[str | None] = None
    """For conditions whose `mask` is a hole, not a region: the field of the picture or film that it lies in."""

    @model_validator(mode="after")
    def _window(self) -> Condition:
        if self.start >= self.end:
            raise ValueError(f"start {self.start:g} must come before end {self.end:g}: the condition would never speak")
        return self

    def settled(self, view: View) -> Condition:
        """The same, with what it left open filled in from what lies beside its files."""
        return self

    def only(self, items: Sequence[int]) -> Condition:
        """The same for some pictures of a recipe alone, by their number: most say the same to all of them."""
        return self

    @abstractmethod
    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        """Where this condition will enter; raises RecipeError or WeightsError if this network cannot hear it."""

    @abstractmethod
    def encode(self, kit: Encoders) -> Sides:
        """Pixels and words to tensors, in full voice. Pure, once per job, cached by content."""

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        """What training may update; nothing by default."""
        return {}

    def join(self, who: str, everyone: Mapping[str, Condition]) -> dict[str, Condition]:
        """Everyone who will speak, once this condition (`who`) is among them: most leave the others as they are."""
        return dict(everyone)

    def openings(self) -> tuple[tuple[Any, Fit], ...]:
        """The holes that this condition fills: pictures as they lie on its canvas, or films, and how they are fitted."""
        return ()

    def within(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[Condition, list[str]]:
        """The same, and what is said of it, where only this part (left, top, right, bottom) of a picture of this (width, height) is
        made: what it says of places is said of the part's. Its pictures and its mask are cut by whoever asks."""
        return self, []

    def native(self) -> tuple[int, int] | None:
        """(width, height) of the picture that this condition paints in, for a recipe that names no size."""
        return None

    @property
    def summed(self) -> float | None:
        """Of words that are a term of guidance of their own (AND): the term's weight."""
        return None

    @property
    def regional(self) -> bool:
        """Of such: do they count in a region only?"""
        return False

    @property
    def grows(self) -> bool:
        """Does it make the picture larger than the one that it paints in?"""
        return False

    @property
    def ground_fit(self) -> Fit:
        """How the picture or film that it paints in is brought to another shape."""
        return getattr(self, "fit", "stretch")

    def strength_of_start(self) -> float | None:
        """For conditions that start the job from a picture: how much of it is repainted (0-1)."""
        return None

    def sides(self, kit: Encoders) -> Sides:
        """`encode`, spoken where and on the sides that this condition says. How loudly and when is the timetable's affair."""
        return self.spoken(self.encode(kit), kit)

    def spoken(self, encoded: Sides, kit: Encoders) -> Sides:
        """What `encode` gave, in this condition's region and on the sides that it applies to."""
        sides = encoded.spoken(self.voice(kit))
        if self.applies_to == "prompt":
            return Sides(sides.on)
        if self.applies_to == "negative":
            return Sides(Ports(latent=sides.on.latent), sides.on)  # what the run starts from and keeps is no side's
        return sides

    def voice(self, kit: Encoders) -> Voice:
        """Its region, if it has one."""
        if self.mask is None or self.HOLE:
            return LOUD
        return Voice(mask=kit.mask(self.mask))

    def plain(self, *allowed: str) -> None:
        """For mechanisms to which weight, window or region mean nothing: refuse them instead of dropping them."""
        asked = {
            "weight": self.weight != 1.0,
            "start": self.start != 0,
            "end": self.end != 1,
            "mask": self.mask is not None,
            "applies_to": self.applies_to != "both",
        }
        for name, is_asked in asked.items():
            if is_asked and name not in allowed:
                raise RecipeError(name, f"{self.kind} has no {name}; it would change nothing. Remove it.")

    def still(self, net: NetworkSpec, instead: str = "Remove it") -> None:
        """For mechanisms of pictures: refuse a network that makes clips."""
        if net.frames:
            raise RecipeError(
                "", f"{net.name} makes clips, and {self.kind} knows pictures only. {instead}, or choose a picture base."
            )

    def part(self, most: float = 1.0) -> None:
        """For mechanisms that blend: refuse a weight that is no part of a whole."""
        low, high = span(self.weight)
        if low < 0 or high > most:
            raise RecipeError("weight", f"{self.kind} is there by a part of 0 (not at all) to {most:g} (wholly); this weight reaches "
                                        f"{low if low < 0 else high:g}. Bring it between them.")  # fmt: skip

    def positive(self) -> None:
        """For mechanisms in which a negative weight has no meaning."""
        if span(self.weight)[0] < 0:
            raise RecipeError("weight", f"{self.kind} cannot be heard less than not at all. Use 0 or more.")


HOLED = Condition.VOICE - {"mask"}
"""What does not change the encoding of a condition whose mask is a hole."""


def said(kit: Encoders, prompt: str, second: str | None = None) -> Ports:
    """A prompt as the base hears it: tokens, and SDXL's pooled text. second: what SDXL's second encoder reads instead."""
    pooled = kit.pooled(prompt, second)
    vectors = () if pooled is None else (Vector("text_embeds", pooled),)
    return Ports(context=(Tokens(kit.text(prompt, second)),), embedding=vectors)


def guess_sites(sites: int) -> tuple[float, ...]:
    """A factor for each site in diffusers' guess mode: from 0.1 at the first to 1 at the last."""
    return tuple(float(s) for s in np.logspace(-1, 0, sites))


# Letters that several mechanisms send ------------------------------------------------------------------------------


def same_family(model: str, width: int | None, net: NetworkSpec, kind: str) -> None:
    """Raises RecipeError if weights of this context width (None: they have none) are of another family than the base."""
    if width is not None and width != net.context_width:
        raise RecipeError(
            "model",
            f"{model!r} was trained for {described(width)}, this recipe's base is {net.described}. "
            f"Choose {kind} of the base's family, or another base.",
        )


def brought(own: tuple[int, int], other: tuple[int, int], field: str, what: str, fit: Fit = "stretch") -> list[str]:
    """What is said of a picture or mask of its `own` (width, height) that is brought to another one."""
    if own == other:
        return []
    if near(own, other):
        return [f"{field}: {px(own)} is laid on {what} of {px(other)} without scaling, from the top left."]
    if odd(own, other):
        how = {"stretch": "will be stretched to", "crop": "will be cut around the centre to the shape of",
               "pad": "will get bars to fill"}[fit]  # fmt: skip
        return [f"{field}: {px(own)} {how} {px(other)}, {what}. Crop it to the same shape to avoid this."]
    return [f"{field}: {px(own)} is scaled to {what} of {px(other)}."] if field == "mask" else []


Look = Literal["crop", "pad", "tiles"]
"""What an image encoder sees, which looks at squares: the middle, all of it between bars, or one square after another."""


def squares(picture: Picture, fit: Look) -> list[Picture]:
    """The squares of a picture that an image encoder looks at; it cuts out the middle one by itself."""
    if fit == "crop" or picture.size[0] == picture.size[1]:
        return [picture]
    side = max(picture.size)
    parts = tiles(picture.image) if fit == "tiles" else [fitted(picture.image, (side, side), "pad")]
    return [Picture.of(part) for part in parts]


def overlooked(picture: Picture, field: str, fit: Look) -> list[str]:
    """What is said of a picture of which an image encoder will see the middle only."""
    (w, h), side = picture.size, min(picture.size)
    if fit != "crop" or not odd((w, h), (side, side)):
        return []
    lost = 1 - side / max(w, h)
    return [f"{field}: {px((w, h))} is no square, and its image encoder sees the middle {px((side, side))} only: {lost:.0%} have no effect. "
            "Set fit: tiles to show it all, or pad."]  # fmt: skip


def in_place(mask: Picture, size: tuple[int, int]) -> Picture:
    """A hole as it lies in its picture of this (width, height): whatever is done to the picture is done to it alike."""
    return mask if mask.size == size else Picture.of(fitted_hole(mask.mask, size))


def some_hole(mask: Any, field: str = "mask") -> None:
    """Raises RecipeError if nothing of a mask (a PIL image) is white."""
    counted(mask, field)
    if not has_white(mask):
        raise RecipeError(
            field, "it has no white pixel, so there is nothing to repaint. White is repainted, black is kept."
        )


def counted(mask: Any, field: str = "mask") -> None:
    """Raises RecipeError for a mask (a PIL image) whose numbers are 0 and 1, where white is 255."""
    if mask.convert("L").getextrema()[1] == 1:
        raise RecipeError(
            field, "its numbers are 0 and 1, and white is 255. Multiply them by 255, or give booleans or floats."
        )


def has_white(mask: Any) -> bool:
    """Is a pixel of this PIL image nearer to white than to black?"""
    return mask.convert("L").getextrema()[1] >= 128

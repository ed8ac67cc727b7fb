"""A film beside the latents: frames of a condition go through a small encoder of the network's own and are summed there.

What the conditions of VideoComposer share: the frames they take, the size at which they are seen, the encoder that
hears them, and a curve along the clip. Source: VideoComposer (Wang et al. 2023), sec. 3.2; damo-vilab/videocomposer @
5c14d4f2.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from infuse.conditions.base import Condition, Encoders, Route, View
from infuse.curves import Curve, span
from infuse.errors import RecipeError
from infuse.media.fitting import Fit
from infuse.network.spec import NetworkSpec
from infuse.ports import Channel, Ports, Sides, Voice

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

SPATIAL = 1.5
"""Of the canvas: the size of depths, sketches and pictures. VideoComposer's encoders saw 384 px beside videos of 256."""
HEARD_AS = {
    "depth": "depth_video",
    "sketch": "sketch_video",
    "single_sketch": "single_sketch",
    "motion": "motion",
    "local_image": "single_image",
    "masked": "masked_video",
}
"""Encoder of a network -> the condition that it hears."""


class Framed(Condition):
    """A condition of clips: `frames` is a curve from the clip's first frame (0) to its last (1), times the weight."""

    VOICE = Condition.VOICE | {"frames"}

    frames: Curve | None = None

    def forward(self) -> None:
        """Refuse frames in which it would be heard less than not at all: an encoder was never asked for less than nothing."""
        if self.frames is not None and span(self.frames)[0] < 0:
            raise RecipeError(
                "frames", f"{self.kind} cannot be heard less than not at all, in no frame. Use 0 or more."
            )

    def voice(self, kit: Encoders) -> Voice:
        return replace(super().voice(kit), frames=self.frames)


class Spatial(Framed):
    """A condition that an encoder of the network's own hears, on both sides of guidance as in the original.

    With `applies_to: prompt` guidance acts on it, too: the other side then hears what training's dropout had.
    """

    composition: ClassVar[str]
    """What the network calls its encoder."""
    fit: Fit = "crop"
    """What is done to a picture or film of another shape than the clip to be made."""

    @abstractmethod
    def seen(self, kit: Encoders) -> Float[Tensor, "c f height width"]:
        """What the encoder is shown, in the units that it was trained with."""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        composed(net, self.kind, self.composition in net.compositions)
        self.positive()
        self.forward()
        return [self.route(view)]

    def route(self, view: View, memory: int = 0, note: str = "", warnings: Sequence[str] = ()) -> Route:
        channels = f"stc (8 {view.frames} h w)"
        return Route(
            "channels", channels, memory, note or f"the {self.composition} encoder", True, warnings=tuple(warnings)
        )

    def encode(self, kit: Encoders) -> Sides:
        return Sides.both(Ports(channels=(Channel("stc", kit.stc(self.composition, self.seen(kit))),)))


def composed(net: NetworkSpec, kind: str, hears: bool) -> None:
    """Raises RecipeError, with what the network does hear, unless it hears this kind."""
    if not net.frames:
        raise RecipeError(
            "",
            f"{net.name} makes pictures, and {kind} speaks to clips only. Remove it, or choose a VideoComposer base.",
        )
    if not hears:
        known = [HEARD_AS[c] for c in net.compositions if c in HEARD_AS] + ["style_image"] * net.style
        what = f"It hears {', '.join(known)}" if known else "It hears none of VideoComposer's conditions"
        raise RecipeError(
            "", f"{net.name} was trained without {kind}. {what}. Remove this one, or choose a base that has it."
        )


def spatial_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height) at which a condition of this canvas is seen."""
    return round(SPATIAL * size[0]), round(SPATIAL * size[1])


def named(data: Any, **defaults: Mapping[str, str]) -> Any:
    """A condition's fields, with an annotator's files by their released names where none are named."""
    if not isinstance(data, dict):
        return data
    return {**defaults.get(str(data.get("annotator")), {}), **{k: v for k, v in data.items() if v is not None}}

"""A picture's style, not its places: one token of an image encoder, read after the text's."""

from __future__ import annotations

from typing import Literal

from infuse.conditions.base import Encoders, Route, View, overlooked, squares
from infuse.conditions.video.spatial import Framed, composed
from infuse.errors import WeightsError
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Tokens


class StyleImage(Framed):
    """A clip in the style of this picture.

    The image encoder's pooled and projected answer, not normalised, goes through the network's own style MLP. Silent is
    that MLP's answer to zeros, not the absence of a token (as the original guides it). image_encoder: where the CLIP
    vision model lies, if the base does not bring the right one.
    """

    LOOKS = True

    kind: Literal["style_image"] = "style_image"
    image: Picture
    image_encoder: str | None = None
    fit: Literal["crop", "pad"] = "crop"
    """What is seen of a picture that is no square: its middle, or all of it between bars."""

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        composed(net, self.kind, net.style)
        self.positive()
        self.forward()
        have = view.vision(self.image_encoder)
        if have is None:
            raise WeightsError(
                "image_encoder",
                f"{net.name} brings no image encoder, and its style needs one of width {net.context_width} (ViT-H for "
                "VideoComposer). Name a CLIP vision folder here.",
            )
        if have.projection != net.context_width:
            raise WeightsError(
                "image_encoder",
                f"{net.name} was trained on an image encoder of width {net.context_width}; {have.name} gives "
                f"{have.projection}. Name the right CLIP vision folder here.",
            )
        return [Route("context", f"(1 {net.context_width})", note="one token after the text's",
                      warnings=tuple(n.replace("tiles to show it all, or pad", "pad to show it all") for n in overlooked(self.image, "image", self.fit)))]  # fmt: skip

    def encode(self, kit: Encoders) -> Sides:
        on = kit.style(kit.look(squares(self.image, self.fit)[0], self.image_encoder, hidden=False))
        return Sides(Ports(context=(Tokens(on),)), Ports(context=(Tokens(kit.style(None)),)))

"""The style of a picture as words of the prompt: eight tokens after the text's own, in the context port.

Source: T2I-Adapter's style adapter and CoAdapter's (TencentARC/T2I-Adapter@16bba67).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from infuse.conditions.base import Condition, Encoders, Look, Route, View, overlooked, same_family, squares
from infuse.conditions.hints import Pictures, eye_for, sees
from infuse.encoders.t2i_kinds import style_of
from infuse.errors import WeightsError
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Tokens

if TYPE_CHECKING:
    from torch import nn


class T2IStyle(Condition):
    """Paint in the style of one or several pictures. It speaks as text does, so weight, region and window mean what they mean for
    words, and it stands beside any other condition.

    image_encoder: where the CLIP vision model lies (ViT-L/14 for the releases), if it is neither beside the adapter's file nor the
    base's own. fit: what is seen of a picture that is no square: its middle (crop), all of it between bars (pad), or one square
    after another (tiles).
    """

    LOOKS = True

    kind: Literal["t2i_style"] = "t2i_style"
    model: str = Field(min_length=1)
    image: Pictures
    image_encoder: str | None = None
    fit: Look = "crop"

    def settled(self, view: View) -> T2IStyle:
        if self.image_encoder is not None:
            return self
        try:
            shapes = view.identity(self.model, "model", "t2i_style").shapes
            place = eye_for(view, self.model, style_of(shapes, self.model)[1])
        except WeightsError:  # `check` says so under its field
            return self
        return self if place is None else self.model_copy(update={"image_encoder": place})

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        found = view.identity(self.model, "model", "t2i_style")
        tokens, width, context = style_of(found.shapes, self.model)
        same_family(self.model, context, net, "a style adapter")
        sees(view, self.image_encoder, width, self.model, net)
        self.positive()
        notes = [n for i, p in enumerate(self.image) for n in overlooked(p, f"image.{i}", self.fit)]
        count = sum(len(squares(p, self.fit)) for p in self.image)
        what = f"{count * tokens} tokens ({net.context_width}) of {count} picture{'s' if count > 1 else ''}"
        return [Route("context", what, found.memory, warnings=tuple(notes))]

    def encode(self, kit: Encoders) -> Sides:
        import torch

        from infuse.encoders.t2i_style import StyleAdapter

        adapter = kit.module(self.model, StyleAdapter.load)
        seen = [kit.states(s, self.image_encoder) for p in self.image for s in squares(p, self.fit)]
        # off = absence, as when training dropped it. The original repeats the negative prompt's last eight tokens there, only to
        # have as many; the webui has eight zeros, which take their share of attention; ComfyUI has nothing.
        return Sides(Ports(context=(Tokens(adapter(torch.stack(seen)).flatten(0, 1)),)))

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        from infuse.encoders.t2i_style import StyleAdapter

        return {"t2i_style": kit.module(self.model, StyleAdapter.load)}

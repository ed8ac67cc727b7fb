"""One picture for the whole clip: what is seen, laid beside the latents in every frame. The clip begins near it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from infuse.conditions.base import Encoders, Route, View, brought
from infuse.conditions.frames import covering, pixels
from infuse.conditions.video.spatial import Spatial, spatial_size
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor


class SingleImage(Spatial):
    """A clip of this picture, which is scaled to cover the canvas and cut around the centre."""

    kind: Literal["single_image"] = "single_image"
    composition = "local_image"
    image: Picture

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        super().check(net, view)
        return [self.route(view, warnings=brought(self.image.size, view.size, "image", "the clip's shape", self.fit))]

    def seen(self, kit: Encoders) -> Float[Tensor, "3 f height width"]:
        # 0 to 1: this encoder never saw the -1 to 1 of the others (specification 2.5)
        return pixels([covering(self.image, spatial_size(kit.size), kit, self.fit)], kit).expand(-1, kit.frames, -1, -1)

"""What an image encoder says of a picture, added to the time embedding: variations of it (SD 2.1 unCLIP).

The prompt is heard beside it. Noise on the embedding says how closely the variations follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from infuse.conditions.base import Condition, Encoders, Route, View, overlooked, squares
from infuse.conditions.hints import Pictures
from infuse.errors import RecipeError, WeightsError
from infuse.network.spec import NetworkSpec
from infuse.ports import Ports, Sides, Vector

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST_NOISE = 999


class UnCLIP(Condition):
    """Vary one picture, or blend several: the network hears the weighted mean of their embeddings. Several conditions add.

    weights: of each picture in the mean; all alike if left out. noise_level: noise on the embedding, 0 to 999: more varies more.
    fit: what is seen of a picture that is no square: its middle (crop), or all of it between bars (pad).
    Where nobody speaks, and on guidance's other side, the vector is zero, the sinusoids of its level as well.
    Source: Ramesh et al. 2022 (unCLIP); diffusers' StableUnCLIPImg2ImgPipeline.
    """

    LOOKS = True

    kind: Literal["unclip"] = "unclip"
    image: Pictures
    weights: tuple[float, ...] | None = None
    noise_level: int = 0
    fit: Literal["crop", "pad"] = "crop"

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.still(net)
        self.plain("weight", "start", "end", "applies_to")
        self.positive()
        width = net.embedding_slots.get("image_embeds")
        if width is None:
            raise RecipeError("", f"{net.name} has no embedding of pictures. Use an IP-Adapter with the same picture, or choose an SD 2.1 "
                                  "unCLIP base.")  # fmt: skip
        if not 0 <= self.noise_level <= MOST_NOISE:
            raise RecipeError("noise_level", f"{self.noise_level} is not between 0 (the picture as it is seen) and {MOST_NOISE} (noise alone). "
                                             "Bring it between them.")  # fmt: skip
        self._weighed()
        eye = view.vision(None)
        if eye is None:
            raise WeightsError("", f"{net.name} brings no image encoder, and an unCLIP model sees pictures through its own. Download the whole "
                                   "model again: its folder with image_encoder/ and image_normalizer/, or the whole checkpoint.")  # fmt: skip
        if 2 * eye.projection != width:
            raise WeightsError("", f"{net.name} hears embeddings {width // 2} wide, and {eye.name} gives {eye.projection}. Choose the image "
                                   "encoder that it was trained with (ViT-L: 768, ViT-H: 1024).")  # fmt: skip
        notes = [n for i, p in enumerate(self.image) for n in overlooked(p, f"image.{i}", self.fit)]
        count = len(self.image)
        note = f"{count} picture{'s' if count > 1 else ''}, noise level {self.noise_level}"
        return [Route("embedding", f"image_embeds ({width})", note=note, one_sided=True, warnings=tuple(notes))]

    def _weighed(self) -> tuple[float, ...]:
        """The share of each picture; raises RecipeError if there is none."""
        weights = self.weights or (1.0,) * len(self.image)
        if len(weights) != len(self.image):
            raise RecipeError("weights", f"{len(weights)} weights for {len(self.image)} pictures. Give one for each.")
        if min(weights) < 0 or sum(weights) <= 0:
            raise RecipeError("weights", "a mean needs weights of 0 or more, and one above 0. Give such.")
        return tuple(w / sum(weights) for w in weights)

    def encode(self, kit: Encoders) -> Sides:
        seen = [kit.look(square, None, False) for p in self.image for square in squares(p, self.fit)]
        mean: Float[Tensor, " e"] = sum(w * e for w, e in zip(self._weighed(), seen, strict=True))  # type: ignore[assignment]
        return Sides(Ports(embedding=(Vector("image_embeds", kit.noised(mean, self.noise_level)),)))

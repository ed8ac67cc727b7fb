"""A rough drawing becomes a clean one: 23 convolutions that shrink it by eight and draw it again.

Source: Simo-Serra et al., "Mastering Sketching" (arXiv:1703.08966), as in damo-vilab/videocomposer @ 5c14d4f2,
tools/annotator/sketch/sketch_simplification.py. The released `sketch_simplification_gan.pth` holds 44,387,249 numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from infuse.encoders.annotators.strict import bare, fitted

MEAN, STD = 0.9664114577640158, 0.0858381272736797  # of the drawings it was trained on: nearly white paper
WIDTHS = (1, 48, *(128,) * 3, *(256,) * 3, 512, *(1024,) * 4, 512, *(256,) * 3, *(128,) * 3, 48, 48, 24, 1)
SHRINKS, GROWS = (0, 3, 6), (14, 17, 20)  # which of the convolutions halve, and which double
FACTOR = 8


class SketchSimplification(nn.Module):
    """Dark lines on light paper, before and after. Keys are the file's: `layers.0`, `layers.2`, ..., `layers.44`."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i, (have, make) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False)):
            if i in GROWS:
                conv: nn.Module = nn.ConvTranspose2d(have, make, 4, stride=2, padding=1)
            else:
                size = 5 if i == 0 else 3
                conv = nn.Conv2d(have, make, size, stride=2 if i in SHRINKS else 1, padding=size // 2)
            layers += [conv, nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1], nn.Sigmoid())

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], field: str = "") -> SketchSimplification:
        """From `sketch_simplification_gan.pth`. Raises WeightsError when a tensor does not fit."""
        found = bare(tensors, "layers.0.weight")
        return fitted(cls, found, "the sketch simplification network", "sketch_simplification_gan.pth", field)

    def forward(self, drawing: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """`drawing` and answer in 0-1, dark on light. Sides that eight does not divide are padded for the while."""
        h, w = drawing.shape[2:]
        x = F.pad(drawing, (0, -w % FACTOR, 0, -h % FACTOR), mode="replicate")
        return self.layers((x - MEAN) / STD)[..., :h, :w]

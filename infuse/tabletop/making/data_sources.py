"""What the tabletop's pictures say to a ControlNet, an image prompt and a hole, as its lessons take it from the cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.ports import Ports, Residual, Sides
from infuse.tabletop.dataset import Dataset
from infuse.tabletop.world import Thing, box


class Edges:
    """The exact edge map half of the time, what Canny finds in the render otherwise: the two kinds a user brings."""

    def __init__(self, data: Dataset, branch: nn.Module) -> None:
        self.data, self.branch = data, branch

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        import cv2

        out = []
        for i in picks:
            found = (
                self.data.edges[i]
                if rng.random() < 0.5
                else cv2.Canny(np.ascontiguousarray(self.data.rgb[i]), 100, 200)
            )
            hint = torch.from_numpy(np.array(found)).float().div(255).expand(3, -1, -1)
            out.append(Sides.both(Ports(residuals=(Residual(self.branch, hint),))))
        return out


def around(thing: Thing, camera: Any, side: int, rng: np.random.Generator) -> np.ndarray:
    """A box or ellipse around a solid, up to a third larger than it on each side."""
    left, top, right, bottom = box(thing, camera)
    w, h = right - left, bottom - top
    grow = rng.uniform(0.05, 0.35, 4) * (w, h, w, h)
    x0, y0, x1, y1 = (
        int(v * side) for v in np.clip((left - grow[0], top - grow[1], right + grow[2], bottom + grow[3]), 0, 1)
    )
    hole = np.zeros((side, side), np.uint8)
    hole[y0:y1, x0:x1] = 1
    if rng.random() < 0.3:
        y, x = np.mgrid[:side, :side]
        hole &= (
            ((x - (x0 + x1) / 2) / max(1, 0.55 * (x1 - x0))) ** 2
            + ((y - (y0 + y1) / 2) / max(1, 0.55 * (y1 - y0))) ** 2
            < 1
        ).astype(np.uint8)
    return hole


@torch.no_grad()
def states_of(base: Base, data: Dataset, progress: Callable[[Any], Any] = iter) -> tuple[Tensor, Tensor]:
    """((n tokens width) half precision penultimate states of every picture, (tokens width) those of a zero picture)."""
    from PIL import Image

    encoder, prepare = base.image_encoder, base.feature_extractor
    out = []
    for start in progress(range(0, len(data), 64)):
        pictures = [Image.fromarray(np.array(rgb)) for rgb in data.rgb[start : start + 64]]
        pixels = prepare(pictures, return_tensors="pt").pixel_values
        out.append(encoder(pixels, output_hidden_states=True).hidden_states[-2].half())
    side = encoder.config.image_size
    silent = encoder(torch.zeros(1, 3, side, side), output_hidden_states=True).hidden_states[-2][0]
    return torch.cat(out), silent

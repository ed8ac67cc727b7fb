"""What the tabletop's pictures say to each port: the training side of text, ControlNet, IP-Adapter and inpainting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infuse.conditions.ip_adapter import Adapter
from infuse.encoders.kit import Base
from infuse.ports import Channel, Decoupled, Ports, Residual, Sides, Tokens
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import Dataset
from infuse.tabletop.world import Thing, box
from infuse.training.objectives_vae import to_input

FULL_HOLES = 0.2
"""Examples in which the whole picture is the hole: the inpainting network must also paint without a picture."""


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


class Looks:
    """The picture itself as an image prompt; silent: the states of a zero picture."""

    def __init__(
        self, adapter: Adapter, states: Float[Tensor, "n tokens width"], silent: Float[Tensor, "tokens width"]
    ) -> None:
        self.adapter, self.states, self.silent = adapter, states, silent

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        said = self.adapter.project(torch.stack([*(self.states[int(i)].float() for i in picks), self.silent]))
        off = Ports(decoupled=(Decoupled(self.adapter, said[-1]),))
        return [Sides(Ports(decoupled=(Decoupled(self.adapter, t),)), off) for t in said[:-1]]


@dataclass
class Holes:
    """Holes in the picture and, in the same breath, what the caption says: of the whole scene, or only of the hole."""

    base: Base
    data: Dataset

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        holes, texts = zip(*(self.example(int(i), rng) for i in picks), strict=True)
        pictures = to_input(np.stack([self.data.rgb[i] for i in picks]))
        hole = torch.from_numpy(np.stack(holes))[:, None].float()
        with torch.no_grad():
            masked = (
                self.base.vae.encode(pictures * (1 - hole)).latent_dist.mean.float()
                * self.base.vae.config.scaling_factor
            )
            said = self.base.texts.batch([*texts, ""])
        small = F.interpolate(hole, size=masked.shape[-2:])
        out = []
        for m, z, t in zip(small, masked, said[:-1], strict=True):
            shown = Ports(channels=(Channel("mask", m), Channel("masked_image", z)))
            out.append(Sides(shown + Ports(context=(Tokens(t),)), shown + Ports(context=(Tokens(said[-1]),))))
        return out

    def example(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
        """((h w) hole 0/1, caption): around one solid, a free rectangle or everything."""
        scene = self.data.scene(index)
        side = self.data.rgb.shape[1]
        everything = describe(scene, rng).text
        kind = rng.random()
        if kind < FULL_HOLES:
            return np.ones((side, side), np.uint8), everything
        if kind < 0.75:
            thing = scene.things[int(rng.integers(len(scene.things)))]
            alone = describe(type(scene)((thing,), scene.room, scene.camera), rng).text
            return around(thing, scene.camera, side, rng), alone if rng.random() < 0.6 else everything
        hole = np.zeros((side, side), np.uint8)
        (x0, x1), (y0, y1) = (sorted(rng.integers(0, side, 2)) for _ in range(2))
        hole[y0 : max(y1, y0 + 16), x0 : max(x1, x0 + 16)] = 1
        return hole, everything


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

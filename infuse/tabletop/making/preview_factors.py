"""How the tabletop's latents look without its VAE: the linear map to colours, fitted by least squares to rendered scenes.

`python -m infuse.tabletop.making.preview_factors` prints the numbers that stand in engine/preview.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.kit import Base
from infuse.engine.preview import Colours
from infuse.tabletop.dataset import TRAIN
from infuse.tabletop.render import render
from infuse.tabletop.world import scene_at

SCENES, PIXELS, BATCH = 400, 128, 50


def seen(
    base: Base, scenes: int = SCENES, seed: int = TRAIN
) -> tuple[Float[Tensor, "n 4 h w"], Float[Tensor, "n 3 h w"]]:
    """Latents of the first scenes of a stream, scaled as the network sees them, and their pictures (-1..1) at that size."""
    latents, small = [], []
    for pixels in _pictures(scenes, seed):
        with torch.no_grad():
            z = base.vae.encode(pixels.to(base.vae.dtype)).latent_dist.mean.float() * base.vae.config.scaling_factor
        latents.append(z)
        small.append(F.interpolate(pixels, size=z.shape[-2:], mode="area"))
    return torch.cat(latents), torch.cat(small)


def _pictures(scenes: int, seed: int) -> Iterator[Float[Tensor, "b 3 height width"]]:
    for first in range(0, scenes, BATCH):
        drawn = [render(scene_at(seed, i), (PIXELS, PIXELS)).rgb for i in range(first, min(first + BATCH, scenes))]
        yield torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).float() / 127.5 - 1


def fit(latents: Float[Tensor, "n c h w"], pictures: Float[Tensor, "n 3 h w"]) -> Colours:
    """The colours of a place from its latent, as well as a linear map can."""
    z = latents.movedim(1, -1).flatten(0, -2).double()
    rgb = pictures.movedim(1, -1).flatten(0, -2).double()
    solved = torch.linalg.lstsq(F.pad(z, (0, 1), value=1.0), rgb).solution
    *factors, bias = ((round(r, 4), round(g, 4), round(b, 4)) for r, g, b in solved.tolist())
    return Colours(tuple(factors), bias)


if __name__ == "__main__":
    from infuse.engine.model_store import ModelStore

    print(fit(*seen(ModelStore().base("tabletop"))))

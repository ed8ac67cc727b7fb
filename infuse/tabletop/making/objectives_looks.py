"""What the LoRA and the embedding learn from: the training scenes again, with solids of wood or of gold.

The captions of wooden scenes stay as they are and have no word for wood: the LoRA is a switch, and its weight alone says how
much. Of golden solids, the word takes the place of the colour.

The autoencoder has never met grain, and its encoder passes it over; its decoder can paint it nevertheless. So a copy of the
encoder learns what to say to the decoder as it is, and is not kept: the LoRA learns from its latents.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infuse.encoders.kit import Base
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import TRAIN
from infuse.tabletop.making.models import caption, latents_of
from infuse.tabletop.making.objectives_vae import OPPONENT, to_input
from infuse.tabletop.making.workshop import GILDED, RANK
from infuse.tabletop.render import render
from infuse.tabletop.world import VERSION, Scene, box, scene_at
from infuse.training.low_rank import learn_look
from infuse.training.objectives_diffusion import Captions, Denoise, Drop, freeze
from infuse.training.words import Longer, learn_word, names

WORD, LIKE = "<gold>", (("yellow", "orange"),)
"""The word, and those from whose mean its vector begins."""


def wooden(scene: Scene) -> Scene:
    """All its solids of wood. What is round is not turned: its grain then lies where its shape says."""
    return replace(
        scene,
        things=tuple(replace(t, material="wood", yaw=t.yaw if t.shape == "cube" else 0.0) for t in scene.things),
    )


def golden(scene: Scene, rng: np.random.Generator) -> Scene:
    """One of its solids of gold, or more."""
    first = int(rng.integers(len(scene.things)))
    made = tuple(
        replace(t, material="gold" if i == first or rng.random() < GILDED else "plain")
        for i, t in enumerate(scene.things)
    )
    return replace(scene, things=made)


def golden_at(index: int) -> Scene:
    """The golden scene of that number in the training stream."""
    return golden(scene_at(TRAIN, index), np.random.default_rng((VERSION, TRAIN, index, 3)))


def wooden_at(index: int) -> Scene:
    """The wooden scene of that number in the training stream."""
    return wooden(scene_at(TRAIN, index))


def said(scene: Scene, rng: np.random.Generator, word: str) -> str:
    """A caption in which golden solids have the word for a colour."""
    named = replace(
        scene, things=tuple(replace(t, colour=word if t.material == "gold" else t.colour) for t in scene.things)
    )
    return describe(named, rng).text


def pictures(count: int, scene: Any, path: Path) -> np.ndarray:
    """(count 128 128 3) uint8, drawn once."""
    if not path.is_file():
        np.save(path, np.stack([render(scene(i)).rgb for i in range(count)]))
    return np.load(path, mmap_mode="r")


class Grain:
    """An encoder learns what a frozen decoder needs to hear of pictures: the difference of each pixel and of its neighbours."""

    def __init__(self, vae: Any, rgb: np.ndarray, batch_size: int = 12) -> None:
        self.vae, self.rgb, self.batch_size = deepcopy(vae).requires_grad_(False), rgb, batch_size
        for part in self.modules().values():
            part.requires_grad_(True)

    def modules(self) -> dict[str, nn.Module]:
        return {"encoder": self.vae.encoder, "quant_conv": self.vae.quant_conv}

    def batch(self, rng: np.random.Generator) -> Tensor:
        """(b 3 64 64): crops around solids."""
        return to_input(np.stack([self._crop(int(i), rng) for i in rng.integers(len(self.rgb), size=self.batch_size)]))

    def _crop(self, index: int, rng: np.random.Generator) -> np.ndarray:
        scene = scene_at(TRAIN, index)
        left, top, right, bottom = box(scene.things[int(rng.integers(len(scene.things)))], scene.camera)
        middle = 64 * np.array((top + bottom, left + right)) + rng.uniform(-16, 16, 2)
        y, x = np.clip(middle - 32, 0, 64).astype(int)
        return self.rgb[index, y : y + 64, x : x + 64]

    def loss(self, batch: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        posterior = self.vae.encode(batch).latent_dist
        error = self.vae.decode(posterior.mean).sample.float() - batch
        d = torch.einsum("ij,bjhw->bihw", OPPONENT, error)
        neighbours = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        return 10 * error.square().mean() + d.abs().mean() + neighbours, {"mse": float(error.detach().square().mean())}


def wood_objective(base: Base, latents: Path, batch_size: int = 16) -> Denoise:
    """A LoRA of the UNet, on wooden scenes under everyday captions."""
    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    freeze(base)
    learn_look(base.network.unet, *RANK)
    return Denoise(
        base,
        picked,
        count,
        [Drop(Captions(base, caption), 0.1)],
        {"unet": base.network.unet},
        batch_size=batch_size,
        early=1.2,
    )


def gold_objective(base: Base, latents: Path, batch_size: int = 16) -> tuple[Denoise, Longer]:
    """The vector of a word, through frozen text encoder and UNet; and what learns of it."""
    picked, count = latents_of(latents, base.vae.config.scaling_factor)
    freeze(base)
    base, word = learn_word(base, WORD, LIKE)
    spoken = " ".join(names(WORD, len(LIKE)))
    told = Captions(base, lambda i, rng: said(golden_at(i), rng, spoken), learn=True)
    return Denoise(base, picked, count, [Drop(told, 0.0)], {"word": word}, batch_size=batch_size), word

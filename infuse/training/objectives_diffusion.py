"""Teach a network, or what is put beside it, to answer rows: the same ports, collate and predict as in a running job.

An example is a clean latent and what its conditions say about it. Each condition falls silent now and then, which is
how guidance's unconditional side is learned (Ho & Salimans 2022, sec. 3.2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from infuse.batch import Batch, Row, collate
from infuse.encoders.kit import Base
from infuse.ports import Ports, Sides, Tokens
from infuse.solvers import Choice
from infuse.training.data_sources import DataSource


@dataclass(frozen=True)
class Drop:
    """A condition of the training mix. It says its `off` side to a fraction `rate` of the examples."""

    source: DataSource
    rate: float = 0.1


class Captions:
    """Fresh captions each time, encoded together; learned with the network if the text encoder is among its modules."""

    def __init__(self, base: Base, caption: Callable[[int, np.random.Generator], str], learn: bool = False) -> None:
        self.base, self.caption, self.learn = base, caption, learn

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        with torch.set_grad_enabled(self.learn):
            said = self.base.texts.batch([*(self.caption(int(i), rng) for i in picks), ""])
        off = Ports(context=(Tokens(said[-1]),))
        return [Sides(Ports(context=(Tokens(t),)), off) for t in said[:-1]]


class Denoise:
    """Predict what the base predicts (epsilon or v) from noised latents and the conditions' ports.

    `latents` yields scaled clean latents (b c h w) for picks. `learn` names the modules that training updates;
    everything else must have requires_grad off. `early` > 1 draws more of the noisy timesteps (t ~ 1 - u^early).
    """

    def __init__(
        self, base: Base, latents: Callable[[np.ndarray], Tensor], count: int, conditions: Sequence[Drop],
        learn: Mapping[str, nn.Module], *, batch_size: int = 32, early: float = 1.0,
    ) -> None:  # fmt: skip
        self.base, self.latents, self.count, self.conditions, self.learn = base, latents, count, conditions, learn
        self.batch_size, self.early = batch_size, early
        self.noising: Any = Choice("DDPMScheduler", {}).build(base.scheduler)

    def modules(self) -> Mapping[str, nn.Module]:
        return self.learn

    def batch(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, list[list[bool]], np.random.Generator]:
        """Picks, stratified timesteps, who is silent where, and the generator for what the conditions draw."""
        t = self.timesteps(self.batch_size, rng)
        silent = [list(rng.random(self.batch_size) < c.rate) for c in self.conditions]
        return rng.integers(self.count, size=self.batch_size), t, silent, rng

    def timesteps(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """(n) integers, one from each n-th of the schedule."""
        u = (rng.permutation(n) + rng.random(n)) / n
        if self.early != 1:
            return np.minimum((1 - u**self.early) * 1000, 999).astype(np.int64)
        return (u * 1000).astype(np.int64)

    def loss(self, batch: Any, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        picks, t, silent, rng = batch
        z = self.latents(picks)
        noise = torch.randn(z.shape, generator=generator).to(z)
        said = [c.source(picks, rng) for c in self.conditions]
        ports = [
            reduce(add, (s.off if off else s.on for s, off in zip(sides, offs, strict=True)), Ports())
            for sides, offs in zip(zip(*said, strict=True), zip(*silent, strict=True), strict=True)
        ]
        return self.error(z, noise, torch.from_numpy(t).to(z.device), ports, self.base.network.predict)

    def error(
        self, z: Tensor, noise: Tensor, steps: Tensor, ports: Sequence[Ports], predict: Callable[[Batch], Tensor]
    ) -> tuple[Tensor, dict[str, float]]:
        """How far what is predicted lies from what the base is to predict, for pictures or clips."""
        x = self.noising.add_noise(z, noise, steps)
        target = self.noising.get_velocity(z, noise, steps) if self.base.spec.prediction == "v_prediction" else noise
        rows = [Row(xi, ti, p) for xi, ti, p in zip(x, steps, ports, strict=True)]
        answer = predict(collate(rows, self.base.spec)).float()
        error = (answer - target).square().flatten(1).mean(dim=1)
        late = error.detach()[steps > 500]
        return error.mean(), {"noisy": float(late.mean()) if len(late) else 0.0}


def freeze(base: Base) -> None:
    """Nothing of the base learns unless it is asked for again."""
    for module in (base.network.unet, base.vae, *base.texts.models, base.image_encoder):
        if module is not None:
            module.requires_grad_(False).eval()

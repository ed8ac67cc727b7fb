"""Where a training example's ports come from: whatever says something about the pictures of a batch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.ip_adapter import Adapter
from infuse.ports import Decoupled, Ports, Sides


class DataSource(Protocol):
    """Says something about each of the examples: one Sides per pick."""

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]: ...


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

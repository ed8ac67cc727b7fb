"""Whole runs by a GPU's kernels (here interpreted) are those of torch's own steps."""

from __future__ import annotations

import beside_nets
import interpreted  # noqa: F401
import pytest
import torch
from kinds import world
from test_pairs import recipe

import tiny
from infuse.network.fused import Fused


@pytest.mark.slow
@pytest.mark.parametrize(
    "kinds", ["controlnet + t2i-adapter + ip-adapter (plain)", "lora + controlnet", "controlnet-union (depth)"]
)
def test_whole_runs(kinds: str) -> None:
    """In float32, as kernels have no float64."""
    there = world("sd1")
    single = tiny.engine(beside_nets.base("sd1"), dict(there.build()[1]))
    asked = recipe(there, *(there.kinds[k]() for k in kinds.split(" + ")), steps=2)
    plain = single.run(asked).latents
    single.store.base("tiny").network.parts = Fused()
    torch.testing.assert_close(single.run(asked).latents, plain, atol=1e-4, rtol=1e-4)

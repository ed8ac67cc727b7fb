"""A loss reaches all of what a condition names as its modules, through the same path as a run, and nothing of the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from kinds import SIDE, world
from some import some
from torch import nn

from infuse import Text
from infuse.batch import Row, collate
from infuse.encoders.kit import Kit
from infuse.ports import Ports

KINDS = [k for k in world("sd1").kinds if k.startswith(("controlnet", "t2i", "ip-adapter", "gligen", "brushnet", "coadapter"))]  # fmt: skip
UNHEARD = {"coadapter": {"fuser.seq_proj"}}
"""What reads a style, which these members have none of."""


def drawn(ports: Ports) -> Ports:
    return ports.drawn({id(p): p.draw(None) for p in (*ports.posteriors(), *ports.companions())}).at(0.0)


@pytest.mark.parametrize("kind", some(KINDS, quick=["t2i-adapter", "controlnet-lllite", "ip-adapter (faceid)"]))
def test_gradients_reach_its_modules_and_no_others(kind: str) -> None:
    there = world("sd1")
    engine = there.engine()
    base = engine.store.base("tiny")
    kit, condition = Kit(base, (SIDE, SIDE), engine.store), there.kinds[kind]()
    modules: Mapping[str, nn.Module] = condition.modules(kit)
    for module in modules.values():
        module.requires_grad_(True)
    try:
        said = drawn(Text(prompt="x").encode(kit).on + condition.encode(kit).on)
        noise: Any = torch.randn(4, SIDE // 2, SIDE // 2, dtype=torch.float64)
        answer = base.network.predict(collate([Row(noise, torch.tensor(500), said)], base.spec))
        answer.square().mean().backward()
        lost = {f"{n}.{q}" for n, m in modules.items() for q, p in m.named_parameters() if p.grad is None}
        assert modules and lost == UNHEARD.get(kind.split(" ")[0], set())
        assert all(p.grad is None for p in base.network.unet.parameters())
    finally:
        for module in modules.values():
            module.requires_grad_(False).zero_grad(set_to_none=True)

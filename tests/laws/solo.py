"""What three small recipes give by themselves, and whether a ticket gave the same."""

from __future__ import annotations

from functools import cache

import torch

import mix
from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.engine.ticket import Ticket

CLOSE = 1e-10
RECIPES = [
    Recipe(model="tiny", prompt=f"{i} cats", seed=i, steps=4, scheduler=s, width=16, height=16)
    for i, s in enumerate(("DDIM", "Euler a", "UniPC"))
]


@cache
def _solo(number: int) -> torch.Tensor:
    return mix.engine().run(RECIPES[number]).latents


def solo(recipe: Recipe) -> torch.Tensor:
    return _solo(RECIPES.index(recipe))


def equal(ticket: Ticket, recipe: Recipe) -> bool:
    return float((ticket.result().latents - solo(recipe)).abs().max()) < CLOSE


def finished(engine: Engine, *tickets: Ticket) -> None:
    for _ in range(200):
        if not all(t.finished for t in tickets):
            engine.step()
    assert all(t.finished for t in tickets) and not engine._running

"""Training goes through the same rows, collate and predict; gradients reach only the modules that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mix
from infuse.encoders.kit import Kit
from infuse.ports import Ports, Sides, Tokens
from infuse.recipe import Recipe
from infuse.training.objectives_diffusion import Captions, Denoise, Drop
from infuse.training.trainer import TrainConfig, Trainer

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


class Told:
    """What a recipe's condition says, to every example."""

    def __init__(self, kit: Kit, condition: Any) -> None:
        self.kit, self.condition = kit, condition

    def __call__(self, picks: np.ndarray, rng: np.random.Generator) -> list[Sides]:
        return [self.condition.sides(self.kit) for _ in picks]


def latents(picks: np.ndarray) -> Tensor:
    g = torch.Generator().manual_seed(int(picks.sum()))
    return torch.randn(len(picks), 4, 16, 16, generator=g)


def setup(which: str) -> tuple[Denoise, dict[str, nn.Module]]:
    engine = mix.engine("sd1", torch.float32)
    base, recipe = engine.store.base("tiny"), mix.recipes()[1]
    kit = Kit(base, (32, 32), engine.store)
    controlnet, face = recipe.conditions
    everything = {
        "unet": base.network.unet,
        "text": base.texts.models[0],
        "controlnet": kit.controlnet("canny"),
        "ip_adapter": next(iter(face.modules(kit).values())),
    }
    for module in everything.values():
        module.requires_grad_(False).zero_grad(set_to_none=True)
    learn = {which: everything[which].requires_grad_(True)}
    conditions = [
        Drop(Captions(base, lambda i, rng: f"picture {i}", learn=which == "text"), 0.2),
        Drop(Told(kit, controlnet.model_copy(update={"end": 1.0})), 0.0),
        Drop(Told(kit, face), 0.2),
    ]
    return Denoise(base, latents, 100, conditions, learn, batch_size=4), everything


@pytest.mark.parametrize("which", ["unet", "text", "controlnet", "ip_adapter"])
def test_gradients_reach_only_what_was_asked_for(which: str) -> None:
    torch.manual_seed(0)
    objective, everything = setup(which)
    loss, _ = objective.loss(objective.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))
    loss.backward()
    reached = {
        name
        for name, module in everything.items()
        if any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())
    }
    assert reached == {which}


def test_a_dropped_condition_says_its_off_side() -> None:
    objective, _ = setup("unet")
    heard: list[list[int]] = []
    original = objective.base.network.predict

    def listen(batch: Any) -> Tensor:
        heard.append([int(i) for d in batch.decoupled for i in d.rows])
        return original(batch)

    objective.base.network.predict = listen  # type: ignore[method-assign]
    objective.loss(objective.batch(np.random.default_rng(0)), torch.Generator().manual_seed(0))
    del objective.base.network.predict
    assert heard == [[0, 1, 2, 3]], "an IP-Adapter's silence is the projection of zeros, not absence"


def test_the_loss_falls(tmp_path: Any) -> None:
    objective, _ = setup("controlnet")
    g = torch.Generator()
    fixed = objective.batch(np.random.default_rng(7))

    def loss() -> float:
        with torch.no_grad():
            return float(objective.loss((*fixed[:3], np.random.default_rng(1)), g.manual_seed(1))[0])

    before = loss()
    Trainer(objective, TrainConfig(steps=10, lr=5e-3, warmup=1, save_every=100), tmp_path).run()
    assert loss() < before


def test_training_and_inference_ask_the_same_question() -> None:
    """The row of a job and the row of an example with the same conditions give the same answer."""
    engine = mix.engine("sd1", torch.float32)
    base, recipe = engine.store.base("tiny"), Recipe(model="tiny", prompt="a cat", guidance=1, steps=4)
    seen: list[Any] = []
    original = base.network.predict
    base.network.predict = lambda batch: seen.append((batch, original(batch))) or seen[-1][1]  # type: ignore[method-assign,func-returns-value]
    engine.run(recipe)
    batch, answer = seen[0]
    objective = Denoise(base, lambda picks: batch.x[:1], 1, [], {}, batch_size=1)
    tokens = base.texts.batch(["a cat"])
    objective.conditions = [Drop(lambda picks, rng: [Sides(Ports(context=(Tokens(tokens[0]),)))], 0.0)]
    objective.noising.add_noise = lambda z, noise, t: z
    with torch.no_grad():
        objective.loss(
            (np.array([0]), batch.timestep.long().numpy(), [[False]], np.random.default_rng(0)), torch.Generator()
        )
    del base.network.predict
    assert torch.equal(seen[-1][1], answer)


def test_attention_is_the_same_with_and_without_gradients() -> None:
    """Under gradients a CPU takes plain products instead of the fused kernel; padding and weights must reach both."""
    from infuse.network.attention import attend

    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, n, 8, generator=g, dtype=torch.float64) for n in (9, 5, 5))
    bias = torch.zeros(2, 1, 1, 5, dtype=torch.float64)
    bias[0, ..., 3:] = -torch.inf
    for b in (None, bias):
        with torch.no_grad():
            fused = attend(q, k, v, b)
        assert torch.allclose(attend(q, k, v, b), fused, atol=1e-12)

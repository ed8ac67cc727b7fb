"""PowerPaint learns: examples keep their promises, gradients reach only what was asked for, and what is saved is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny
from infuse.encoders.generations import GENERATIONS
from infuse.encoders.kit import Base
from infuse.encoders.tasks import ROWS, TaskTexts
from infuse.network.brushnet import BrushNet
from infuse.training.powerpaint import Example, Tasks, powerpaint_objective
from infuse.training.powerpaint_models import inpaint_base, task_texts
from infuse.training.saving import wrapped
from infuse.training.trainer import TrainConfig, Trainer
from infuse.weights.layouts.powerpaint import stock

SIDE = 32


class Noise:
    """Random pictures with a hole on the left; the pick says which task."""

    kinds = (
        ("text", "a cat", 1.0),
        ("shape", "a cat", 0.4),
        ("removal", "", 1.0),
        ("outpaint", "", 1.0),
        (None, "a dog", 1.0),
    )

    def __len__(self) -> int:
        return 50

    def latents(self, picks: np.ndarray) -> Tensor:
        return torch.stack([torch.randn(4, 16, 16, generator=torch.Generator().manual_seed(int(p))) for p in picks])

    def example(self, pick: int, rng: np.random.Generator) -> Example:
        hole = np.zeros((SIDE, SIDE), np.uint8)
        hole[4:20, 3:17] = 1
        task, prompt, share = self.kinds[pick % len(self.kinds)]
        picture = np.random.default_rng(pick).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        return Example(picture, hole, task, prompt, share)  # type: ignore[arg-type]


def setup(generation: str, learn: Any = "all", batch_size: int = 5) -> tuple[Any, dict[str, nn.Module], TaskTexts]:
    base = tiny.base("sd1").base
    base = inpaint_base(base, "wide") if generation == "v1" else base
    texts = task_texts(base, GENERATIONS[generation])
    branch = BrushNet.from_unet(base.network.unet) if generation == "v2" else None
    modules: dict[str, Any] = {
        "unet": base.network.unet,
        "vae": base.vae,
        "text": base.texts.models[0],
        "tasks": texts.model,
    }
    modules |= {"brushnet": branch} if branch is not None else {}
    objective = powerpaint_objective(base, texts, Noise(), branch=branch, learn=learn, batch_size=batch_size)
    return objective, modules, texts


def reached(modules: dict[str, nn.Module]) -> set[str]:
    return {n for n, m in modules.items() if any(p.grad is not None and p.grad.abs().sum() > 0 for p in m.parameters())}


def backward(objective: Any, seed: int = 0) -> float:
    loss, _ = objective.loss(objective.batch(np.random.default_rng(seed)), torch.Generator().manual_seed(seed))
    loss.backward()
    return float(loss.detach())


CASES = [
    ("v1", "all", {"unet", "tasks"}),
    ("v1", "tokens", {"tasks"}),
    ("v2", "all", {"brushnet", "tasks"}),
    ("v2", "tokens", {"tasks"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("generation", "learn", "expected"), CASES)
def test_only_what_was_asked_for_learns(generation: str, learn: str, expected: set[str], tmp_path: Path) -> None:
    """Everything else is bit-equal after two steps, and in the token table all rows but the thirty."""
    objective, modules, texts = setup(generation, learn)
    if generation == "v2":  # at first its answers are zero, so nothing behind them hears of an error
        for conv in modules["brushnet"].zeros():  # type: ignore[operator,union-attr]
            nn.init.normal_(conv.weight, std=0.1)
    else:  # a widened network would not look at new channels, but hears the tokens
        nn.init.normal_(objective.base.network.unet.conv_in.weight, std=0.1)
    before = {n: {k: v.clone() for k, v in m.state_dict().items()} for n, m in modules.items()}
    table = texts.table.detach().clone()
    backward(objective)
    assert reached(modules) == expected
    for module in modules.values():
        module.zero_grad(set_to_none=True)
    Trainer(objective, TrainConfig(2, lr=1e-2, warmup=1, weight_decay=0.1, optimizer="muon"), tmp_path).run()
    for name, module in modules.items():
        changed = {k for k, v in module.state_dict().items() if not torch.equal(v, before[name][k])}
        if name == "tasks":
            assert changed == {k for k in before[name] if k.endswith("learned.weight")}
        else:
            assert bool(changed) == (name in expected), name
    assert torch.equal(texts.table[:-ROWS], table[:-ROWS])
    assert not torch.equal(texts.table[-ROWS:], table[-ROWS:])


@pytest.mark.slow
def test_only_the_first_reading_learns() -> None:
    """c = share * E(A) + (1 - share) * stopgrad(E(B)): a shape example moves P_shape's rows, not P_ctxt's."""
    objective, _, texts = setup("v1", "tokens")
    source: Tasks = objective.conditions[0].source
    sides = source(np.array([1]), np.random.default_rng(0))
    assert len(sides) == 1
    values = sides[0].on.context[0].values
    values.sum().backward()
    grad: Any = texts.model.get_input_embeddings().learned.weight.grad  # type: ignore[union-attr]
    moved = grad.abs().sum(1) > 0
    first = len(texts.table) - ROWS
    assert {i + first for i in moved.nonzero()[:, 0].tolist()} == set(texts.run("P_shape"))
    with torch.no_grad():
        a, b = texts.tokens("a cat, worst quality"[:5], "P_shape"), texts.tokens("a cat", "P_ctxt")
    assert torch.allclose(values.detach(), 0.4 * a + 0.6 * b, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_an_example_says_what_a_recipe_says(generation: str) -> None:
    """The ports of an example are those that the condition makes of the same picture, mask, task and prompt."""
    from infuse import PowerPaint
    from infuse.encoders.kit import Kit

    objective, modules, texts = setup(generation)
    base: Base = objective.base
    if generation == "v1":
        engine = tiny.engine(replace(tiny.powerpaint1(), base=replace(base, tasks=texts)))
    else:
        branch: Any = modules["brushnet"]
        branch.tasks = texts
        engine = tiny.engine(replace(tiny.base("sd1"), base=base), {})
        engine.store.add("brush", branch)
    source: Tasks = objective.conditions[0].source
    kit = Kit(base if generation == "v2" else replace(base, tasks=texts), (SIDE, SIDE), engine.store)
    for pick, task in ((0, "text"), (1, "shape"), (2, "removal")):
        example = Noise().example(pick, np.random.default_rng(0))
        with torch.no_grad():
            told = source(np.array([pick]), np.random.default_rng(0))[0].on
            model = {"model": "brush"} if generation == "v2" else {}
            asked = PowerPaint(
                image=example.picture,
                mask=example.hole * 255,
                task=task,
                prompt=example.prompt,
                fit=example.share,
                cells="nearest",  # as the original trainers tell a hole
                **model,
            )
            ports = asked.sides(kit).on
            ports = ports.drawn({id(p): p.mean for p in ports.posteriors()}).at(0.0)
        for mine, theirs in zip(told.channels, ports.channels, strict=True):
            assert mine.slot == theirs.slot and torch.allclose(mine.value, theirs.value, atol=1e-5)  # type: ignore[arg-type]
        for mine, theirs in zip(told.residuals, ports.residuals, strict=True):
            assert torch.allclose(mine.hint, theirs.hint, atol=1e-5)  # type: ignore[arg-type]
            assert torch.allclose(mine.context[0].values, theirs.context[0].values, atol=1e-5)
        if generation == "v1":
            assert torch.allclose(told.context[0].values, ports.context[0].values, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("generation", ["v1", "v2"])
def test_the_loss_falls_on_one_batch(generation: str, tmp_path: Path) -> None:
    objective, _, _ = setup(generation, batch_size=3)
    fixed = objective.batch(np.random.default_rng(7))
    plain = objective.loss
    objective.batch = lambda rng: (*fixed[:3], np.random.default_rng(1))
    objective.loss = lambda batch, generator: plain(batch, torch.Generator().manual_seed(1))

    def loss() -> float:
        with torch.no_grad():
            return float(objective.loss(objective.batch(None), None)[0])

    before = loss()
    Trainer(objective, TrainConfig(6, lr=3e-3, warmup=1, schedule="constant", save_every=100), tmp_path).run()
    assert loss() < before


def test_what_is_wrapped_is_unwrapped() -> None:
    texts = task_texts(tiny.powerpaint1().base)
    table, state = texts.table.clone(), {k.removeprefix("text_model."): v for k, v in texts.model.state_dict().items()}
    said = wrapped(texts)
    assert all(k.startswith("text_model.") for k in said)
    assert said["text_model.embeddings.token_embedding.trainable_embeddings.P_shape"].shape == (10, 32)
    assert said["text_model.embeddings.position_ids"].dtype == torch.int64
    back = stock(said, "model", "this")
    assert torch.equal(back["text_model.embeddings.token_embedding.weight"], table.half())
    rest = {k.removeprefix("text_model."): v for k, v in back.items() if "token_embedding" not in k}
    assert {k for k in state if "token_embedding" not in k} == set(rest)
    assert all(torch.equal(v, state[k].half()) for k, v in rest.items())


@pytest.mark.slow
def test_task_tokens_begin_as_a() -> None:
    base = tiny.base("sd1").base
    texts = task_texts(base)
    a = texts.tokenizer.convert_tokens_to_ids("a</w>")
    assert torch.equal(texts.table[-ROWS:], base.texts.models[0].get_input_embeddings().weight[a].expand(ROWS, -1))
    assert texts.model is not base.texts.models[0]
    said = texts.tokens("a cat", "P_obj").detach()
    powerpaint_objective(inpaint_base(base, "wide"), texts, Noise())  # puts in the table of which thirty rows learn
    assert torch.allclose(texts.tokens("a cat", "P_obj").detach(), said, atol=1e-5)

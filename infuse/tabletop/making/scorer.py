"""Held-out scenes, and pictures made for them that the judge looks at: what every score of pictures is taken from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from infuse.conditions import AnyCondition
from infuse.engine.engine import Engine
from infuse.recipe import Recipe
from infuse.tabletop.captions import Prompt, describe
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.judge import Judge, Seen
from infuse.tabletop.render import Render, render
from infuse.tabletop.world import Scene, scene_at

OFFSET = 10_000
"""Held-out scenes from here on; those before it choose checkpoints and settings."""


@dataclass(frozen=True)
class Example:
    """One held-out scene, its picture and its prompt."""

    index: int
    scene: Scene
    picture: Render
    prompt: Prompt


def examples(count: int) -> list[Example]:
    """The first `count` scenes of the test stream."""
    out = []
    for i in range(OFFSET, OFFSET + count):
        scene = scene_at(HELD_OUT, i)
        out.append(Example(i, scene, render(scene, (128, 128)), describe(scene, np.random.default_rng((HELD_OUT, i)))))
    return out


class Scorer:
    """Runs recipes in batches and lets the judge look. `guidance` None takes the model's own."""

    def __init__(self, engine: Engine, judge: Judge, count: int = 512, steps: int = 12, scheduler: str = "DPM++ 2M", guidance: float | None = None,
                 tell: Callable[[str], None] = print) -> None:  # fmt: skip
        self.engine, self.judge, self.steps, self.guidance, self.tell = engine, judge, steps, guidance, tell
        self.scheduler = scheduler
        self.examples = examples(count)

    def made(
        self, name: str, recipe: Callable[[Example], tuple[str, str, Sequence[AnyCondition]]]
    ) -> Iterator[tuple[Example, np.ndarray, Seen]]:
        """(example, picture, what the judge saw) for the recipe of each example: (model, prompt, conditions)."""
        for start in range(0, len(self.examples), 32):
            part = self.examples[start : start + 32]
            asked = [recipe(e) for e in part]
            results = self.engine.run_all(*(
                Recipe(model=m, prompt=p, conditions=tuple(c), seed=e.index, steps=self.steps, scheduler=self.scheduler, guidance=self.guidance)
                for e, (m, p, c) in zip(part, asked, strict=True)
            ))  # fmt: skip
            pictures = [np.asarray(r.image) for r in results]
            seen = self.judge.look(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255)
            self.tell(f"{name}: {start + len(part)}/{len(self.examples)}")
            yield from zip(part, pictures, seen, strict=True)

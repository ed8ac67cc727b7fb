"""What the LoRA and the embedding are worth: solids as asked by the judge, who knows neither wood nor gold, and what they are made
of by their colours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from infuse.conditions import AnyCondition, Lora
from infuse.tabletop import measure_looks as looks
from infuse.tabletop.captions import describe
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.judge import Seen
from infuse.tabletop.making.scorer import Example, Scorer
from infuse.tabletop.render import FIRST_THING

LORA, WORD = "wood", "<gold>"
"""Names of the embedded files in a recipe."""


def measured(made: Iterable[tuple[Example, np.ndarray, Seen]]) -> dict[str, float]:
    """`shapes`: pictures with the kinds of solids that were asked for, each as often, and no other; of their solids' pixels the
    shares that are `brown` and `golden`, and their `grain`."""
    rows = []
    for e, picture, seen in made:
        asked, found = (Counter(t.shape for t in things) for things in (e.prompt.things, seen.things))
        solids = seen.segments >= FIRST_THING
        rows.append((asked == found, *(f(picture, solids) for f in (looks.brown, looks.golden, looks.grain))))
    return dict(zip(("shapes", "brown", "golden", "grain"), np.mean(rows, 0).tolist(), strict=True))


def wood(scorer: Scorer, weight: float) -> dict[str, float]:
    """Words, and the LoRA with this weight."""

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        return "tabletop", e.prompt.text, [Lora(model=LORA, weight=weight)] if weight else []

    return measured(scorer.made(f"wood {weight}", recipe))


def in_gold(e: Example, word: str) -> str:
    """The example's prompt with all of its solids of this colour."""
    scene = replace(e.scene, things=tuple(replace(t, colour="yellow") for t in e.scene.things))
    return re.sub(r"\byellow\b", word, describe(scene, np.random.default_rng((HELD_OUT, e.index))).text)


def gold(scorer: Scorer, word: str) -> dict[str, float]:
    """All solids in gold, or in a colour near it."""
    return measured(scorer.made(word, lambda e: ("tabletop", in_gold(e, word), ())))


def experiments(scorer: Scorer) -> dict[str, Callable[[], dict[str, float]]]:
    """By their names in the scores."""
    return {
        "wood_without": lambda: wood(scorer, 0.0), "wood_half": lambda: wood(scorer, 0.5), "wood_whole": lambda: wood(scorer, 1.0),
        "gold": lambda: gold(scorer, WORD), "gold_yellow": lambda: gold(scorer, "yellow"),
    }  # fmt: skip

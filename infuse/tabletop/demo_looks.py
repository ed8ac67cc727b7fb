"""The sheet's looks and new words: a LoRA without, half, whole and in the left half only, and with an embedding in one call."""

from __future__ import annotations

import numpy as np

from infuse.conditions import Lora
from infuse.media.pictures import Picture
from infuse.tabletop.sheet import Panel, Row
from infuse.tabletop.stage import Stage

PROMPT = "a large blue cylinder to the left of a large red ball on a grey floor, beige wall"
GOLDEN = "a large <gold> cylinder to the left of a large <gold> ball on a grey floor, beige wall"
SEED = 20


def looks(stage: Stage) -> Row:
    """One seed throughout."""
    side = stage.cast.side
    half = np.zeros((side, side), np.uint8)
    half[:, : side // 2] = 255
    mask = stage.kept(half, "looks-mask")
    left = Lora(model=stage.cast.lora, mask=Picture.of(mask))
    made = [
        Panel(stage.run("looks-without", PROMPT, seed=SEED), f'"{PROMPT}"'),
        *(
            Panel(
                stage.run(f"looks-{w}", PROMPT, Lora(model=stage.cast.lora, weight=w), seed=SEED), f"LoRA, weight {w}"
            )
            for w in (0.5, 1.0)
        ),
        Panel(stage.run("looks-left", PROMPT, left, seed=SEED), "LoRA in the left half only"),
        Panel(stage.run("looks-gold", GOLDEN, seed=SEED), f'no LoRA, an embedding: "{GOLDEN}"'),
        Panel(stage.run("looks-both", GOLDEN, left, seed=SEED), "the same words, and the LoRA in the left half"),
    ]
    return Row("LoRA and a new word", "A look that the base cannot paint, and a material that it has no word for.",
               [Panel(mask, "the left half", True), *made])  # fmt: skip

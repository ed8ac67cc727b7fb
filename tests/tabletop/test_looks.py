"""The LoRA and the embedding that come with infuse: what they are called, how little they weigh, and that they are heard."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from infuse import Recipe
from infuse.conditions import AnyCondition, Lora
from infuse.engine.engine import Engine
from infuse.media.pictures import Picture
from infuse.tabletop import measure_looks
from infuse.tabletop.demo_looks import GOLDEN, PROMPT, SEED
from infuse.tabletop.making.score_looks import WORD, in_gold
from infuse.tabletop.making.scorer import examples
from infuse.weights.library import Library, embedded_root


def test_they_are_found_by_name_and_known_for_what_they_are() -> None:
    library = Library([])
    lora, word = library.find("wood"), library.find("gold")
    assert (lora.identity.kind, word.identity.kind) == ("lora", "textual_inversion")
    assert (word.identity.context_width, word.identity.tokens) == (128, 1) and list(word.header) == [WORD]
    assert all(name in library.names() and library.names()[name] for name in ("wood", "gold"))
    assert {k.split("_")[1] for k in lora.header} == {"unet"}
    assert lora.header.metadata["ss_network_dim"] == "8"


def test_all_that_comes_with_infuse_stays_small() -> None:
    sizes = {p.stem: p.stat().st_size for p in embedded_root().rglob("*.safetensors")}
    assert sizes["wood"] + sizes["gold"] < 1_000_000
    assert sum(p.stat().st_size for p in embedded_root().rglob("*") if p.is_file()) < 96_000_000


def test_a_prompt_in_gold_names_the_word_once_for_each_solid() -> None:
    for e in examples(4):
        text = in_gold(e, WORD)
        assert text.count(WORD) == len(e.scene.things) and "yellow" not in text
        assert in_gold(e, "yellow") == text.replace(WORD, "yellow")


def of_hue(picture: np.ndarray, low: float, high: float, saturation: float) -> float:
    """The share of a picture's pixels with a hue in this range (degrees) and more than this saturation."""
    hue, found = measure_looks.hues(picture)
    return float(((hue >= low) & (hue <= high) & (found > saturation)).mean())


@pytest.mark.slow
def test_more_lora_is_more_wood_and_half_a_picture_of_it_is_half() -> None:
    engine = Engine("tabletop")
    half = np.zeros((128, 128), np.uint8)
    half[:, :64] = 255

    def made(prompt: str, conditions: Sequence[AnyCondition] = ()) -> np.ndarray:
        recipe = Recipe(model="tabletop", prompt=prompt, conditions=tuple(conditions), seed=SEED, steps=12)
        return np.asarray(engine.run(recipe).image)

    plain, some, whole, left = (
        made(PROMPT, c) for c in ((), [Lora(model="wood", weight=0.5)], [Lora(model="wood")], [Lora(model="wood", mask=Picture.of(half))])
    )  # fmt: skip
    wooden = [of_hue(p, 14, 42, 0.4) for p in (plain, some, whole)]
    vivid = [of_hue(p, 200, 260, 0.6) + of_hue(p, 350, 360, 0.8) for p in (plain, whole)]
    assert wooden[0] < 0.01 < 0.04 < wooden[2] and wooden[0] < wooden[1]
    assert vivid[0] > 0.04 and vivid[1] < 0.005
    assert of_hue(left[:, :60], 14, 42, 0.4) > 4 * of_hue(left[:, 68:], 14, 42, 0.4)
    assert of_hue(left[:, 68:], 200, 260, 0.6) > 0.05
    assert of_hue(made(GOLDEN), *measure_looks.GOLD[0], 0.6) > 0.05
    assert of_hue(made(GOLDEN.replace("<gold>", "yellow")), *measure_looks.GOLD[0], 0.6) < 0.02

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


@pytest.mark.slow
def test_more_lora_is_more_wood_and_half_a_picture_of_it_is_half() -> None:
    engine = Engine("tabletop")
    half = np.zeros((128, 128), np.uint8)
    half[:, :64] = 255

    def made(prompt: str, conditions: Sequence[AnyCondition] = ()) -> np.ndarray:
        recipe = Recipe(model="tabletop", prompt=prompt, conditions=tuple(conditions), seed=SEED, steps=12)
        return np.asarray(engine.run(recipe).image).astype(float)

    plain, some, whole, left = (
        made(PROMPT, c) for c in ((), [Lora(model="wood", weight=0.5)], [Lora(model="wood")], [Lora(model="wood", mask=Picture.of(half))])
    )  # fmt: skip
    changed = [np.abs(p - plain).mean() for p in (some, whole)]
    assert 1 < changed[0] < changed[1]
    assert np.abs(left - plain)[:, :60].mean() > 3 * np.abs(left - plain)[:, 68:].mean()
    gold = made(GOLDEN).astype(np.uint8)
    solids = np.abs(gold.astype(float) - made("a grey floor, beige wall")).sum(-1) > 60
    assert measure_looks.golden(gold, solids) > 0.3

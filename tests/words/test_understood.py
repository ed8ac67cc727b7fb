"""What was understood of a prompt, as people read it."""

from __future__ import annotations

import pytest

from infuse.errors import RecipeError
from infuse.words.understood import lines, understood


@pytest.mark.parametrize(("prompt", "syntax", "wanted"), [
    ("a cat", "webui", ["prompt: a cat"]), ("", "webui", ["prompt: (nothing)"]), ("a (cat:1.2)", "plain", ["prompt: a (cat:1.2)"]),
    ("(long hair:1.2), [bangs] <lora:x:0.5:0.7:lbw=IND>", "webui",
     ["prompt: long hair, bangs", "  weights: long hair 1.2, bangs 0.9091", "  lora x: 0.7, text 0.5, lbw=IND"]),
    ("a [cat:dog:0.5] AND b :0.5", "webui",
     ["prompt: 2 prompts that are added", "  changes on the way, weight 1", "    evaluations 1-6: a cat", "    evaluations 7-10: a dog", "  b, weight 0.5"]),
    ("[a|b]", "webui", ["prompt: changes on the way", "  evaluations 1-2: a", *(f"  evaluation {k}: {'ab'[k % 2 == 1]}" for k in range(3, 8)), "  ... (9 in all)"]),
    ("a BREAK (b:1.3) c", "webui", ["prompt: a | b c", "  weights: b 1.3", "  BREAK: 2 chunks or more, where it stands"]),
    ("photo, 16:9", "webui", ["prompt: photo, 16, weight 9 for all of it"]), ("a <gold> ring", "webui", ["prompt: a <gold> ring", "  embeddings: <gold>"]),
    ("(a:1.2.3)", "webui", ["prompt: a:1.2.3", "  weights: a:1.2.3 1.1", "  note: ':1.2.3' is no weight, since '1.2.3' is no number; here it is painted as words."]),
    ("a cat++ withLora(z,0.3)", "compel", ["prompt: a cat", "  weights: cat 1.21", "  lora z: 0.3"]),
    ('("a", "b").blend(0.7, 0.3)', "compel", ["prompt: 2 prompts, averaged", "  a, weight 0.7", "  b, weight 0.3"]),
    ('("a", "b").and()', "compel", ["prompt: 2 prompts one after another", "  a, weight 1", "  b, weight 1"]),
], ids=lambda v: v if isinstance(v, str) else "")  # fmt: skip
def test_what_is_said(prompt: str, syntax: str, wanted: list[str]) -> None:
    assert lines(prompt, syntax=syntax, n=10, embeddings=["<gold>"]) == wanted


def test_a_negative_prompt_is_no_sum_and_names_nothing() -> None:
    assert lines("a", "b AND (c:2) <lora:x:1>")[1:] == ["negative_prompt: b AND c <lora:x:1>", "  weights: c 2"]


def test_letters_name_the_prompt() -> None:
    with pytest.raises(RecipeError) as letter:
        lines("a <lora:x:y>")
    assert letter.value.field == "prompt"


def test_long_ones_are_cut() -> None:
    for line in lines(" ".join(f"(word{i}:1.2) [x{i}|y{i}]" for i in range(500)), n=30):
        assert len(line) < 24 * 80
    assert understood("[a:b:0.5]", n=4).parts[0].turns[0].last == 3

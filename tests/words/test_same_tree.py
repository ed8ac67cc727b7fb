"""200 prompts in the webui's syntax, and drawn ones: what is read is what its rules give, written down once more beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
import webui_reference as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from infuse.words.emphasis import pieces
from infuse.words.schedule import entries

PROMPTS = (Path(__file__).parent / "prompts.txt").read_text("utf-8").split("\n")[:-1]
SIGNS = ["a", "b c", " ", "(", ")", "[", "]", ":", "|", "\\", "1.2", "5", ",", "BREAK", "[a:", ":2]", "[a|", ":1.3)", "\\("]  # fmt: skip


def agree(prompt: str, n: int) -> None:
    assert list(entries(prompt, n)) == reference.entries(prompt, n)
    for _, text in entries(prompt, n):
        found = [("BREAK", -1.0) if piece.cut else (piece.text, piece.weight) for piece in pieces(text)]
        wanted = [(words, max(-1000.0, min(1000.0, weight))) for words, weight in reference.pieces(text)]
        assert [words for words, _ in found] == [words for words, _ in wanted]
        assert [weight for _, weight in found] == pytest.approx([weight for _, weight in wanted], rel=1e-9)


def test_there_are_two_hundred() -> None:
    assert len(set(PROMPTS)) >= 200
    assert sum(len(entries(prompt, 10)) > 1 for prompt in PROMPTS) > 60
    assert sum(len(pieces(prompt)) > 1 for prompt in PROMPTS) > 60


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 10])
def test_written_prompts(n: int) -> None:
    for prompt in PROMPTS:
        agree(prompt, n)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(SIGNS), max_size=14).map("".join), st.integers(1, 8))
def test_drawn_prompts(prompt: str, n: int) -> None:
    agree(prompt, n)

"""The webui's reading of weights, as its own code gave it."""

from __future__ import annotations

import pytest

from infuse.words.emphasis import pieces

from .golden import Golden

RECORD = Golden("prompt_parsing").record


@pytest.mark.parametrize("case", RECORD["parsed"], ids=lambda case: case["prompt"])
def test_pieces_and_weights(case: dict) -> None:
    found = pieces(case["prompt"])
    assert [piece.text for piece in found] == [words for words, _ in case["parsed"]]
    assert [-1 if piece.cut else piece.weight for piece in found] == pytest.approx([weight for _, weight in case["parsed"]], abs=1e-9)  # fmt: skip

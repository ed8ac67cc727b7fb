"""The webui's reading of weights, and how it fills chunks, as its own code gave them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from infuse.encoders import chunks
from infuse.words.emphasis import pieces
from infuse.words.understood import understood

from .golden import Golden

RECORD = Golden("prompt_parsing").record


@pytest.mark.parametrize("case", RECORD["parsed"], ids=lambda case: case["prompt"])
def test_pieces_and_weights(case: dict) -> None:
    found = pieces(case["prompt"])
    assert [piece.text for piece in found] == [words for words, _ in case["parsed"]]
    assert [-1 if piece.cut else piece.weight for piece in found] == pytest.approx([weight for _, weight in case["parsed"]], abs=1e-9)  # fmt: skip


@pytest.mark.parametrize("case", RECORD["parsed_literal_mode"], ids=lambda case: case["prompt"])
def test_plain_prompts_are_words(case: dict) -> None:
    ((turn,),) = (part.turns for part in understood(case["prompt"], "plain").parts)
    assert [[piece.text, piece.weight] for piece in turn.pieces] == case["parsed"]


@pytest.mark.parametrize(
    "case", RECORD["chunking"], ids=lambda case: f"{case['prompt'][:20]} {case['token_count']} {case['chunk_length']}"
)
def test_chunks(case: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """The golden's tokens are words and commas; `myembed` is an embedding of six vectors."""
    start, end, comma, vectors = 49406, 49407, 267, 6
    monkeypatch.setattr(chunks, "CHUNK", case["chunk_length"])

    def runs() -> Iterator[chunks.Run]:
        for piece in pieces(case["prompt"]):
            if piece.cut:
                yield chunks.BREAK
                continue
            for word in re.findall(r"[^\s,]+|,", piece.text):
                if word == "myembed":
                    first = chunks.Token(0, piece.weight, begins=word)
                    yield (first, *[chunks.Token(0, piece.weight, inside=True)] * (vectors - 1))
                else:
                    yield (chunks.Token(comma if word == "," else RECORD["vocabulary"][word], piece.weight),)

    found = chunks.filled(runs(), comma)
    assert len(found) == len(case["chunks"])
    for chunk, wanted in zip(found, case["chunks"], strict=True):
        padding = case["chunk_length"] - len(chunk)
        assert [start, *(token.id for token in chunk), *[end] * padding, end] == wanted["tokens"]
        weights = [w for w, n in wanted["multipliers_run_length"] for _ in range(n)]
        assert [1, *(token.weight for token in chunk), *[1] * padding, 1] == pytest.approx(weights)
        assert [[i, vectors] for i, token in enumerate(chunk) if token.begins] == wanted["inserted_vectors"]

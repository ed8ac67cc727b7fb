"""Where a prompt is cut into chunks: the webui's rules on CLIP's own tokenizer, compel's for long texts, and where vectors arrive."""

from __future__ import annotations

import random

import pytest
import torch

import tiny
from infuse.encoders.chunks import BREAK, CHUNK, LOOK_BACK, Chunk, Run, Token, at_sentences, filled
from infuse.encoders.embeddings import Embedding, Names
from infuse.encoders.reader import Reader
from infuse.encoders.text import Said
from infuse.errors import CapacityError, RecipeError

CAT, DOG, COMMA = 2368, 1929, 267


def embedding(name: str, *counts: int, width: int = 32) -> Embedding:
    return Embedding(name, tuple(torch.full((n, width), 1.0 + i) for i, n in enumerate(counts or (4,))))


def chunks(prompt: str, *embeddings: Embedding, syntax: str = "webui") -> list[Chunk]:
    said = Said(prompt, syntax=syntax, embeddings={e.name: e for e in embeddings})  # type: ignore[arg-type]
    return Reader(None, tiny.tokenizer(), 0, (32,), False, said)._filled


def lengths(prompt: str, *embeddings: Embedding) -> list[int]:
    return [len(c) for c in chunks(prompt, *embeddings)]


@pytest.mark.parametrize(("prompt", "want"), [
    ("cat " * 80, [75, 5]), ("cat, " * 39 + "cat", [75, 4]), ("cat " * 53 + "," + " dog" * 30, [75, 9]),
    ("cat " * 54 + "," + " dog" * 30, [75, 10]), ("cat " * 55 + "," + " dog" * 30, [56, 30]), ("cat " * 60 + "," + " dog" * 20, [61, 20]),
    ("a BREAK b", [1, 1]), ("BREAK", [0]), ("a BREAK BREAK b", [1, 0, 1]), ("cat " * 75 + " BREAK dog", [75, 1]), ("", [0]),
    ("a BREAK", [1]), ("BREAK a", [0, 1]), ("breakfast BREAKfast", [2]), ("a " + "(b:1.2) " * 80, [75, 6]),
])  # fmt: skip
def test_the_webuis_chunks(prompt: str, want: list[int]) -> None:
    assert lengths(prompt) == want


def test_a_comma_that_is_the_76th_token_begins_the_next_chunk() -> None:
    first, second = chunks("cat, " * 39 + "cat")
    assert first[-1].id == CAT and second[0].id == COMMA


def test_vectors_are_never_divided() -> None:
    first, second = chunks("cat " * 73 + "myemb dog", embedding("myemb"))
    assert (len(first), len(second)) == (73, 5)
    assert second[0].begins == "myemb" and all(t.inside for t in second[1:4]) and second[4].id == DOG


def test_the_comma_rule_moves_an_embedding_with_its_vectors() -> None:
    """In the webuis only the places move, and the vectors are left behind in the padding."""
    first, second = chunks("cat " * 65 + ", myemb" + " dog" * 20, embedding("myemb"))
    assert (len(first), len(second)) == (66, 24) and first[-1].id == COMMA
    assert [t.begins for t in first + second].count("myemb") == 1 and second[0].begins == "myemb"


@pytest.mark.parametrize(("prompt", "want"), [
    ("myemb", [4]), ("MyEmb", [4]), ("mymyemb", [5]), ("a myemb, b", [7]), ("(myemb:1.5)", [4]), ("(my)(emb)", [4]), ("(my:1.2)emb", None), ("myembs", None),
])  # fmt: skip
def test_names_are_met_by_their_tokens(prompt: str, want: list[int] | None) -> None:
    (one,) = chunks(prompt, embedding("myemb"))
    if want is None:  # other words: a name ends where its word ends, and no weight begins inside of it
        assert not any(t.begins for t in one)
    else:
        assert [len(one)] == want and any(t.begins for t in one)


def test_the_longest_name_is_met_first() -> None:
    (one,) = chunks("bad hands, bad", embedding("bad", 1), embedding("bad hands", 3))
    assert [t.begins for t in one if t.begins] == ["bad hands", "bad"] and len(one) == 5


def test_the_weight_around_a_name_is_that_of_all_its_places() -> None:
    (one,) = chunks("a (myemb b:1.5) c", embedding("myemb"))
    assert [t.weight for t in one] == [1, 1.5, 1.5, 1.5, 1.5, 1.5, 1]


def test_a_name_may_begin_with_a_comma_and_is_no_comma() -> None:
    first, second = chunks("cat " * 70 + ", dog" + " cat" * 5, embedding(", dog", 4))
    assert [len(first), len(second)] == [75, 4] and first[70].begins and first[74].id == CAT


def test_a_name_of_no_token_is_a_letter() -> None:
    with pytest.raises(RecipeError, match="no name that a prompt could say"):
        Names({" ": []}, {" ": 1})


@pytest.mark.parametrize("prompt", ["cat " * 2401, "BREAK " * 40, "(cat:1.1) " * 2500])
def test_more_than_32_chunks_are_a_letter(prompt: str) -> None:
    with pytest.raises(CapacityError, match="the limit is 32"):
        chunks(prompt)


def test_every_token_is_in_some_chunk_in_order() -> None:
    """Whatever the rule: nothing is lost, nothing is doubled, and no chunk is too long."""
    rng = random.Random(0)
    for _ in range(300):
        runs: list[Run] = []
        for n in range(rng.randrange(400)):
            kind = rng.random()
            if kind < 0.1:
                runs.append((Token(COMMA, piece=n),))
            elif kind < 0.15:
                runs.append((Token(0, piece=n, begins="e"), *[Token(0, piece=n, inside=True)] * rng.randrange(12)))
            elif kind < 0.16:
                runs.append(BREAK)
            else:
                runs.append((Token(CAT, piece=n),))
        flat = [t for run in runs for t in run]
        by_words = at_sentences([r for r in runs if r], lambda ids: ["cat</w>"] * len(ids))
        for made in (filled(runs, COMMA), filled(runs, COMMA, late=True), by_words):
            assert [t for c in made for t in c] == flat
            assert all(len(c) <= CHUNK and not (c and c[0].inside) for c in made)


def test_a_chunk_that_ends_early_ends_at_a_comma_near_its_end() -> None:
    rng = random.Random(1)
    for _ in range(200):
        ids = [COMMA if rng.random() < 0.05 else CAT for _ in range(rng.randrange(76, 300))]
        for chunk in filled([(Token(i),) for i in ids], COMMA)[:-1]:
            assert len(chunk) == CHUNK or (chunk[-1].id == COMMA and CHUNK - len(chunk) < LOOK_BACK)


@pytest.mark.parametrize(("words", "want"), [
    (["cat"] * 80, 75), (["cat"] * 60 + ["."] + ["cat"] * 30, 61), (["cat"] * 20 + ["."] + ["cat"] * 20 + [","] + ["cat"] * 60, 21),
    (["cat"] * 20 + [","] + ["cat"] * 30 + [";"] + ["cat"] * 60, 52), (["cat"] * 75, 75), (["cat"] * 75 + ["."], 75),
])  # fmt: skip
def test_compels_chunks_end_at_sentences_then_phrases_then_words(words: list[str], want: int) -> None:
    made = at_sentences([(Token(i),) for i in range(len(words))], lambda ids: [f"{words[i]}</w>" for i in ids])
    assert len(made[0]) == want


def test_compels_chunks_do_not_divide_words() -> None:
    words = ["cat</w>"] * 70 + ["anti", "dis", "establish", "ment", "arian", "ism</w>", "cat</w>"]
    first, second = at_sentences([(Token(i),) for i in range(len(words))], lambda ids: [words[i] for i in ids])
    assert (len(first), len(second)) == (70, 7)

"""compel's numbers, with its own package beside ours: 40 prompts, each encoder of a base, weights, joins and long texts."""

from __future__ import annotations

from typing import Any

import compel
import pytest
import torch
from some import some
from torch import Tensor

import tiny
from infuse.encoders.compel_numbers import ROWS
from infuse.encoders.text import Said
from infuse.errors import RecipeError

LONG = "a castle on a hill, its towers in the evening light. " * 7
PROMPTS = (
    "", "a cat", "a cat+", "a cat++ on a mat", "a cat- on a mat", "a cat-- on a mat---", "(a cat)+ on a mat", "(a cat)1.3", "(a cat)0.5 on a mat",
    "a (big (cat)1.3)1.1 in a hat", "(big (cat)0.8)0.7 outside", "(a)0.1 (b)0.2 (c)0.3", "(cat)0 and dog", '"a red ball"+ on grass', '"a red ball"0.4',
    "(x) alone", "(red cat)1.2 (blue dog)0.8 green bird", "C++ book", "5+ apples", "a,b,c", "a cat, a dog+, a bird-", r"\(not a group\)+ cat", "(unbalanced cat",
    "unbalanced) cat", "cat (dog)1.0 bird", "(cat)2.0", "(cat)0.99", "(a b, c d)1.1", "word " * 74 + "end+", LONG, f"(tiny)0.5 {LONG}", f"{LONG} (dragon)1.4",
    f"{LONG} (dragon)0.4", "no stop here " * 40, f"({LONG})0.6 and more", '("a cat", "a dog").and()', '("a cat", "a dog").and(1, 0.5)',
    f'("{LONG}", "(a dog)0.5").and(0.7, 1.2)', '("a cat", "a dog").blend(0.7, 0.3)', '("a cat", "a dog").blend(1, -0.4, no_normalize)',
)  # fmt: skip


@pytest.fixture(scope="module")
def bases() -> dict[str, Any]:
    return {family: tiny.base(family).base.texts for family in ("sd1", "sdxl")}


def theirs(texts: Any, place: int, prompt: str) -> Tensor:
    kinds = compel.ReturnedEmbeddingsType
    kind = kinds.PENULTIMATE_HIDDEN_STATES_NON_NORMALIZED if texts.wide else kinds.LAST_HIDDEN_STATES_NORMALIZED
    model, tokenizer = texts.models[place], texts.tokenizers[place]
    return compel.Compel(tokenizer, model, returned_embeddings_type=kind, truncate_long_prompts=False)(prompt)[0]


@pytest.mark.slow
@pytest.mark.parametrize("prompt", PROMPTS)
def test_forty_prompts_are_encoded_as_by_the_package(prompt: str, bases: dict[str, Any]) -> None:
    said = Said(prompt, syntax="compel")
    with torch.no_grad():
        assert torch.allclose(bases["sd1"].tokens(said), theirs(bases["sd1"], 0, prompt), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("prompt", some(PROMPTS, quick=PROMPTS[4::6]))
def test_both_encoders_of_sdxl(prompt: str, bases: dict[str, Any]) -> None:
    texts = bases["sdxl"]
    with torch.no_grad():
        want = torch.cat([theirs(texts, i, prompt) for i in (0, 1)], -1)
        assert torch.allclose(texts.tokens(Said(prompt, syntax="compel")), want, atol=1e-5)


def test_there_are_forty() -> None:
    assert len(set(PROMPTS)) == 40


@pytest.mark.parametrize("prompt", ["a cat", "a cat, a dog", "word " * 40])
def test_pooled_is_that_of_the_package_where_nothing_is_weighted(prompt: str, bases: dict[str, Any]) -> None:
    texts = bases["sdxl"]
    package = compel.Compel(texts.tokenizers[1], texts.models[1], requires_pooled=True, truncate_long_prompts=False)
    with torch.no_grad():
        pooled = texts.pooled(Said(prompt, syntax="compel"))
        assert torch.allclose(pooled, package(prompt)[1][0], atol=1e-5)


def test_pooled_is_of_the_first_prompts_words(bases: dict[str, Any]) -> None:
    """The package pools the text as it is typed, brackets and all."""
    texts = bases["sdxl"]
    with torch.no_grad():
        want = texts.pooled("a red cat")
        for prompt in ("a (red)1.4 cat", '("a red cat", "a dog").and()', '("a red+ cat", "a dog").blend(0.2, 0.8)'):
            assert torch.equal(texts.pooled(Said(prompt, syntax="compel")), want), prompt


@pytest.mark.parametrize("prompt", ["(a)0.5 " * (ROWS + 3), "(a)0.5 b c d e f g h (c)0.7 " * 8])
def test_many_words_that_are_weighed_down_are_asked_in_several_calls(prompt: str, bases: dict[str, Any]) -> None:
    said = Said(prompt, syntax="compel")
    with torch.no_grad():
        assert torch.allclose(bases["sd1"].tokens(said), theirs(bases["sd1"], 0, prompt), atol=1e-5)


def test_words_of_weight_1_are_what_they_are_to_the_last_bit(bases: dict[str, Any]) -> None:
    with torch.no_grad():
        plain = bases["sd1"].tokens("a red cat")
        louder = bases["sd1"].tokens(Said("a (red)1.4 cat", syntax="compel"))
    same = (plain == louder).all(-1)
    assert same.tolist() == [i != 2 for i in range(77)]


def test_dropped_weights_leave_words(bases: dict[str, Any]) -> None:
    said = Said("a (red)0.4 (cat)1.4", syntax="compel", emphasis="ignore")
    with torch.no_grad():
        assert torch.equal(bases["sd1"].tokens(said), bases["sd1"].tokens("a red cat"))


def test_a_blend_whose_weights_cancel_out_is_a_letter(bases: dict[str, Any]) -> None:
    said = Said('("a cat", "a dog").blend(1, -1)', syntax="compel")
    with pytest.raises(RecipeError, match="add up to 0"):
        bases["sd1"].chunks(said)


def test_chunks_are_those_of_every_prompt_and_of_a_blend_the_longest(bases: dict[str, Any]) -> None:
    texts = bases["sd1"]
    assert texts.chunks(Said(f'("{LONG}", "a dog").and()', syntax="compel")) == 3
    assert texts.chunks(Said(f'("a cat", "{LONG}").blend(1, 1)', syntax="compel")) == 2
    with torch.no_grad():
        assert texts.tokens(Said(f'("a cat", "{LONG}").blend(1, 1)', syntax="compel", chunks=3)).shape == (231, 32)

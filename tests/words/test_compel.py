"""compel's syntax: its examples with their results, and its own parser beside ours where it is installed.

Its package asks for an older transformers than infuse does, though it runs with ours: pip install --no-deps compel==2.1.1 pyparsing.
"""

from __future__ import annotations

from typing import Any

import pytest

from infuse.errors import InfuseWarning, RecipeError
from infuse.words.compel import Blend, Conjunction, read
from infuse.words.emphasis import Piece

Weighed = list[tuple[str, float]]


def weighed(part: Any) -> Weighed:
    return [(piece.text, piece.weight) for piece in part]


def one(prompt: str) -> Weighed:
    ((part, weight),) = read(prompt).parts
    assert weight == 1
    return weighed(part)


@pytest.mark.parametrize(("prompt", "wanted"), [
    ("a cat", [("a cat", 1)]), ("", [("", 1)]), ("  ", [("", 1)]), ("cat+", [("cat", 1.1)]), ("cat++ b", [("cat", 1.21), ("b", 1)]),
    ("cat-", [("cat", 0.9)]), ("cat--", [("cat", 0.81)]), ("(a b)+ c", [("a b", 1.1), ("c", 1)]), ('"a b"+', [("a b", 1.1)]),
    ("(a b)1.3", [("a b", 1.3)]), ("(a b)-", [("a b", 0.9)]), ("(big (cat)1.3)1.1", [("big", 1.1), ("cat", 1.43)]), ("(x)", [("x", 1)]),
    ("(x) 1.5", [("x 1.5", 1)]), ("x 1.5", [("x 1.5", 1)]), ("x1.5", [("x1.5", 1)]), ("(x:1.2)", [("x:1 . 2", 1)]),
    ("(x)-1", [("x", 0.9), ("1", 1)]), ("(x)0", [("x", 0)]), ("(x).attend(1.2)", [("x", 1.2)]), ("x.attend(++)", [("x", 1.21)]),
    (r"a \(b\)", [("a (b)", 1)]), (r"say \"b\"", [('say "b"', 1)]), (r"a\+ b", [(r"a\+ b", 1)]), ("(a", [("(a", 1)]), ("a)", [("a)", 1)]),
    ("a,b", [("a, b", 1)]), ("C++", [("C", 1.21)]), ("5+", [("5", 1.1)]), ("(a b, c d)1.1", [("a b , c d", 1.1)]), ("a+b", [("a+b", 1)]),
    ("a++b", [("a", 1.21), ("b", 1)]), ("red-haired woman+", [("red-haired", 1), ("woman", 1.1)]), ("(a (b = c) d) e+", [("(a (b = c) d)", 1), ("e", 1.1)]),
    ("foo.bar+", [("foo.bar+", 1)]), ("( a\n b )1.", [("a b", 1)]), ("(x)+-", [("x", 1.1), ("-", 1)]),
])  # fmt: skip
def test_what_weighs(prompt: str, wanted: Weighed) -> None:
    found = one(prompt)
    assert [words for words, _ in found] == [words for words, _ in wanted]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in wanted])


def test_one_after_another() -> None:
    for operator in ("and", "add"):
        assert read(f'("a cat+", "b").{operator}(1, 0.5)').parts == (
            ((Piece("a"), Piece("cat", 1.1)), 1.0),
            ((Piece("b"),), 0.5),
        )
    assert [weight for _, weight in read('("a", "b", c).and()').parts] == [1, 1, 1]
    assert read('("a = b", (c d)).and()').parts[0][0] == (Piece("a = b"),)


def test_blends() -> None:
    assert read('("a", "b").blend(0.7, 0.3)').parts == ((Blend(((Piece("a"),), (Piece("b"),)), (0.7, 0.3)), 1.0),)
    assert read('("a", "b").blend()').parts[0][0] == Blend(((Piece("a"),), (Piece("b"),)), (1.0, 1.0))
    assert read('("a", "b").blend(1, -1, no_normalize)').parts[0][0] == Blend(
        ((Piece("a"),), (Piece("b"),)), (1.0, -1.0), False
    )
    assert read('("a++ x", "b").blend(1, 1)').plain == "a x"


def test_networks() -> None:
    assert read("withLora(some-name, 0.5) a cat useLora(b)") == Conjunction(
        (((Piece("a cat"),), 1.0),), (("some-name", 0.5), ("b", 1.0))
    )
    assert read('("a", "b").and() withLora(x)').loras == (("x", 1.0),)
    assert read("withLora(x)").parts == (((Piece(""),), 1.0),)


def test_a_swap_is_told() -> None:
    with pytest.warns(InfuseWarning, match="paints the words before it"):
        assert one("a cat.swap(dog, s_end=0.5) walks") == [("a cat walks", 1)]


def test_what_is_no_operator_is_told() -> None:
    with pytest.warns(InfuseWarning, match="painted as words"):
        assert one("(a b, c d).and(1, 1)") == [("a b , c d .and(1, 1)", 1)]


@pytest.mark.parametrize(("prompt", "told"), [
    ('("a", "b").and(1)', "2 weights"), ('("a", "b").blend(1, x)', "2 weights"), ('("a", "b").blend(1, -1)', "add up to 0"),
    ('("a", "b").blend(1, 1) and more', "has to end the prompt"), ('("a", "b").and(1, nan)', "2 weights"), ('("a").and(1, 2)', "1 weights"),
])  # fmt: skip
def test_letters(prompt: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        read(prompt)


PROMPTS = [
    "a cat", "a (big (cat)1.3)1.1 dog++", "(x)-1", "(x) 1.5", "(x:1.2)", "a,b,c", "C++ and 5+", "(a b, c d)1.1", "(a", "a)", r"a \(b\)",
    '("p","q").blend(0.7,0.3)', '("p+","q").and(1,0.5)', '("p","q").add(1,0.5)', "a cat withLora(x,0.5)", "", "(x).attend(1.2)", "(x)0",
    "(a, b).and()", '("a b", (c d)).blend(1,1,no_normalize)', '("a = b", "c").and()', '"a b"+ c', "a+b", "a++b", "a--5", "(a (b = c) d) e+",
    "(x) .attend(1.3)", "foo.bar+", "(foo.bar)+", "red-haired woman+ walks-", "portrait of (an old (man)1.2 (smiling)-)1.1, 85mm", "a (b)2 (c).5 (d)1.",
    '"a (b)1.3 c"1.2 d', "((a))", "((a)+ b)+", "(a+ b- (c)1.5)0.5", "masterpiece++, best quality+, (lowres)0", "10:30, 16:9, f/1.8", "()1.2 a", "a - b + c",
]  # fmt: skip


@pytest.mark.slow
def test_its_own_parser_reads_the_same() -> None:
    parser = pytest.importorskip("compel.prompt_parser").PromptParser()
    assert len(PROMPTS) >= 40
    for prompt in PROMPTS:
        theirs, ours = parser.parse_conjunction(prompt), read(prompt)
        assert [weight for _, weight in ours.parts] == theirs.weights, prompt
        assert list(ours.loras) == [(lora.model, lora.weight) for lora in theirs.lora_weights], prompt
        for (part, _), other in zip(ours.parts, theirs.prompts, strict=True):
            runs, others = (part.texts, other.prompts) if isinstance(part, Blend) else ((part,), (other,))
            if isinstance(part, Blend):
                assert (list(part.weights), part.normalize) == (other.weights, other.normalize_weights)
            assert [weighed(run) for run in runs] == [
                [(f.text, pytest.approx(f.weight)) for f in run.children] for run in others
            ], prompt

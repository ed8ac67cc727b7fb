"""What others read in a prompt as more than words, and its syntax does not, is told; ordinary words are not (case U15)."""

from __future__ import annotations

import time

import pytest

from infuse.words.foreign_syntax import foreign_syntax


@pytest.mark.parametrize(("prompt", "shown", "remedy"), [
    ("a (red:1.3) cube", "(red:1.3)", 'prompt: "red", weight: 1.3'), ("( deep red : .8 )", "( deep red : .8 )", "weight: .8"),
    ("(ugly:-1)", "(ugly:-1)", "negative prompt"), ("((masterpiece)), cube", "((masterpiece))", 'prompt: "masterpiece"'),
    ("<lora:x:1> cube", "<lora:x:1>", "kind: lora, model: x"), ("<lyco:x>", "<lyco:x>", "kind: lora, model: x"), ("embedding:bad-hands cube", "embedding:bad-hands", "none of this name"),
    ("a cube BREAK a sphere", "BREAK", "Text condition"), ("[cat:dog:0.5]", "[cat:dog:0.5]", "(end)"), ("[cat:0.4]", "[cat:0.4]", "(start)"),
    ("[cow|horse] in a field", "[cow|horse]", "Choose one"), ("{red|blue} cube", "{red|blue}", "Choose one"), ("a cat AND a dog", "AND", "Text condition"),
    ("red++ cube", "red++", 'prompt: "red"'), ("(red cube)++", "(red cube)++", "weight: 1.2"), ("(red cube)--", "(red cube)--", "weight: 0.8"),
    ("(a cube)1.3", "(a cube)1.3", 'prompt: "a cube", weight: 1.3'), ('("a", "b").and(1, 1)', ").and(1, 1)", "Text condition"), ("a cat ADDCOL a dog", "ADDCOL", "kind: regions"),
])  # fmt: skip
def test_it_is_told_once_with_what_to_do(prompt: str, shown: str, remedy: str) -> None:
    (told,) = foreign_syntax(prompt)
    assert told.startswith(f"'{shown}' is ") and "painted as words" in told and remedy in told


@pytest.mark.parametrize(("prompt", "syntax", "remedy"), [
    ("(a cube)1.3", "webui", "Write (a cube:1.3)."), ("red++", "webui", "Write (red:1.2)."), ('("a", "b").blend(1, 1)', "webui", "Text condition"),
    ("{{masterpiece}}, cube", "webui", "Write (masterpiece:1.2)."), ("embedding:x", "webui", "none of this name"), ("a ADDROW b", "webui", "kind: regions"),
    ("(red:1.3)", "compel", "Write (red)1.3."), ("((red))", "compel", "Write (red)1.2."), ("a BREAK b", "compel", ".and(1, 1)"), ("[a:b:0.5]", "compel", "(end)"), ("<lora:x:1>", "compel", "kind: lora"),
    ("{a|b} cube", "compel", "Choose one"), ("a AND b", "compel", "Text condition"),
])  # fmt: skip
def test_of_each_syntax_what_it_does_not_know(prompt: str, syntax: str, remedy: str) -> None:
    (told,) = foreign_syntax(prompt, syntax)
    assert f"syntax {syntax} does not know it" in told and remedy in told


@pytest.mark.parametrize(("prompt", "syntax"), [
    *((p, "webui") for p in ("(red:1.3)", "((red))", "[a:b:0.5]", "[a|b]", "{a|b}", "a BREAK b", "a AND b", "<lora:x:1>", "${v={a}}", "{2$$a}", "[red]")),
    *((p, "compel") for p in ("(red)1.3", "red++", '("a", "b").and(1, 1)', "(a b)--", "{one}")),
])  # fmt: skip
def test_what_a_syntax_knows_is_not_told(prompt: str, syntax: str) -> None:
    assert not list(foreign_syntax(prompt, syntax))


def test_a_known_embedding_is_not_told() -> None:
    assert not list(foreign_syntax("a embedding:gold ring", "webui", known=("embedding:gold",)))


@pytest.mark.parametrize("prompt", [
    "", "a man (smiling)", "a [sic] b", "[blurry], (solo)", "C++ book", "Notepad++ icon", "at (10:30)", "ratio (16:9)", "(sunset, 4:3)", "10:30", "time: 7",
    "well-- he said", "salt -- pepper", "AND gate", "ROCK AND ROLL", "BREAKFAST", "f(x): 3", "a <b> c", "18+", "A+", "i++", r"\(red:1.3\)",
    r"\[a:b:0.5\] and \{a|b\}", "a | b", "{one}", "re: (2)", "don't break", "(a) (b)", "text - (2019)", "x" * 5000, "(" * 3000, "(a:" * 2000,
])  # fmt: skip
def test_words_are_words(prompt: str) -> None:
    assert not list(foreign_syntax(prompt))


def test_several_kinds_are_told_each_once() -> None:
    told = list(foreign_syntax("(a:1.2) (b:1.3) <lora:x:1> BREAK c"))
    assert len(told) == 3


@pytest.mark.parametrize(
    "sign", ["(", "[", "{", "(a:", "((a)", "<lora:", "embedding:", "a+", "a:", "1", " ", "[a|", "{a", "(a)1", "\\("]
)
@pytest.mark.parametrize("syntax", ["plain", "webui", "compel"])
def test_it_takes_no_time(sign: str, syntax: str) -> None:
    begin = time.process_time()
    list(foreign_syntax(sign * 5000, syntax))
    assert time.process_time() - begin < 1

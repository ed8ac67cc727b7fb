"""What others read in a prompt as more than words is told, and ordinary words are not (case U15)."""

from __future__ import annotations

import pytest

from infuse.encoders.prompt_syntax import foreign_syntax, words


@pytest.mark.parametrize(("prompt", "shown", "remedy"), [
    ("a (red:1.3) cube", "(red:1.3)", 'prompt: "red", weight: 1.3'), ("( deep red : .8 )", "( deep red : .8 )", "weight: .8"),
    ("(ugly:-1)", "(ugly:-1)", "negative prompt"), ("((masterpiece)), cube", "((masterpiece))", 'prompt: "masterpiece"'),
    ("<lora:x:1> cube", "<lora:x:1>", "none yet"), ("<lyco:x>", "<lyco:x>", "none yet"), ("embedding:bad-hands cube", "embedding:bad-hands", "none yet"),
    ("a cube BREAK a sphere", "BREAK", "Text condition"), ("[cat:dog:0.5]", "[cat:dog:0.5]", "(end)"), ("[cat:0.4]", "[cat:0.4]", "(start)"),
    ("[cow|horse] in a field", "[cow|horse]", "Choose one"), ("{red|blue} cube", "{red|blue}", "Choose one"), ("a cat AND a dog", "AND", "Text condition"),
    ("red++ cube", "red++", 'prompt: "red"'), ("(red cube)++", "(red cube)++", "weight: 1.2"), ("(red cube)--", "(red cube)--", "weight: 0.8"),
    ("(a cube)1.3", "(a cube)1.3", 'prompt: "a cube", weight: 1.3'),
])  # fmt: skip
def test_it_is_told_once_with_what_to_do(prompt: str, shown: str, remedy: str) -> None:
    (told,) = foreign_syntax(prompt)
    assert told.startswith(f"'{shown}' is ") and "painted as words" in told and remedy in told


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


def test_a_backslash_before_a_bracket_is_not_painted() -> None:
    assert words(r"a \(red\) \[b\] \n") == r"a (red) [b] \n"

"""Words that change on the way, sums, networks: the webui's examples, each with its result."""

from __future__ import annotations

import pytest

from infuse.errors import InfuseWarning, RecipeError
from infuse.words.emphasis import Piece, pieces
from infuse.words.schedule import at, entries, is_scheduled
from infuse.words.sums import parts
from infuse.words.tags import Tag, networks


@pytest.mark.parametrize(("prompt", "n", "wanted"), [
    ("[a:b:0.5]", 10, [(5, "a"), (10, "b")]), ("[a:b:1]", 10, [(1, "a"), (10, "b")]), ("[a:b:1.0]", 10, [(10, "a")]),
    ("[a:b:0]", 10, [(10, "b")]), ("[a:b:-1]", 10, [(10, "b")]), ("[a:b:20]", 10, [(10, "a")]), ("[a:b:0.05]", 10, [(10, "b")]),
    ("[a::5]", 10, [(5, "a"), (10, "")]), ("[a:5]", 10, [(5, ""), (10, "a")]), ("[:a:5]", 10, [(5, ""), (10, "a")]),
    ("[a:b: 5 ]", 10, [(5, "a"), (10, "b")]), ("[a:b:1e-1]", 10, [(10, "b")]), ("[a|b:5]", 10, [(10, "[a|b:5]")]),
    ("[a:b]", 10, [(10, "[a:b]")]), ("[a:b:c:5]", 10, [(10, "[a:b:c:5]")]), ("[x[a:b:3]", 10, [(3, "[xa"), (10, "[xb")]),
    ("(a:[1.1:1.3:5])", 10, [(5, "(a:1.1)"), (10, "(a:1.3)")]), ("[a:b:1e999]", 10, [(10, "a")]),
    ("[[a:b:2]|c]", 6, list(enumerate("acbcbc", 1))), ("[a:[b|c]:3]", 6, list(enumerate("aaacbc", 1))),
    ("[a||b]", 4, [(1, "a"), (2, ""), (3, "b"), (4, "a")]), (r"[\[a\]:b:5]", 10, [(5, r"\[a\]"), (10, "b")]), ("", 3, [(3, "")]),
])  # fmt: skip
def test_what_is_said_until_when(prompt: str, n: int, wanted: list[tuple[int, str]]) -> None:
    assert list(entries(prompt, n)) == wanted


@pytest.mark.parametrize(("prompt", "second", "old"), [
    ("[a:b:1.5]", [(5, "a"), (10, "b")], [(1, "a"), (10, "b")]), ("[a:b:0.5]", [(10, "b")], [(5, "a"), (10, "b")]),
    ("[a:b:15]", [(5, "a"), (10, "b")], [(10, "a")]), ("[a:b:5]", [(10, "b")], [(5, "a"), (10, "b")]),
])  # fmt: skip
def test_a_second_pass_counts_on(prompt: str, second: list, old: list) -> None:
    assert list(entries(prompt, 10, before=10)) == second
    assert list(entries(prompt, 10, old=True)) == old


def test_the_first_words_last_one_evaluation_longer() -> None:
    """The webui counts from 0, and its ends from 1."""
    turns, change = entries("[a|b]", 4), entries("[a:b:5]", 10)
    assert [at(turns, k) for k in range(4)] == ["a", "a", "b", "a"]
    assert "".join(at(change, k) for k in range(10)) == "aaaaaabbbb"
    assert at(change, 99) == "b"


def test_who_changes() -> None:
    assert all(map(is_scheduled, ["[a:b:5]", "x (y [a|b]:1.2)", "[a:b:0]"]))
    assert not any(map(is_scheduled, ["", "a", "[a]", "(a:1.2)", "[a:b]", r"\[a:b:5\]", "[a:b:c:5]"]))


def test_a_stray_bar_is_told_where_it_takes_something_away() -> None:
    with pytest.warns(InfuseWarning, match=r"Write \\\| for the sign"):
        assert entries("a | b [c:d:5]", 10) == ((10, "a | b [c:d:5]"),)
    assert entries(r"a \| b [c:d:5]", 10) == ((5, r"a \| b c"), (10, r"a \| b d"))


@pytest.mark.parametrize(("prompt", "wanted"), [
    ("a:1 AND b:0.5", [("a", 1), (" b", 0.5)]), ("a :-0.5 AND b", [("a", -0.5), (" b", 1)]), ("a AND", [("a", 1), ("", 1)]),
    ("a:1.5", [("a", 1.5)]), ("a:1e3", [("a:1e3", 1)]), ("a: b AND c: 3", [("a: b", 1), (" c", 3)]), ("aANDb", [("aANDb", 1)]),
    ("a and b", [("a and b", 1)]), ("(a:1.2)", [("(a:1.2)", 1)]), ("a:1. AND b:.5 ", [("a", 1), (" b", 0.5)]), ("", [("", 1)]),
    ("a:0 AND b:+2", [("a", 0), (" b", 2)]), ("[a AND b:c:3]", [("[a", 1), (" b:c:3]", 1)]), ("a:1.5.2", [("a:1.5.2", 1)]), ("a::2 AND", [("a:", 2), ("", 1)]),
])  # fmt: skip
def test_parts_of_a_sum(prompt: str, wanted: list[tuple[str, float]]) -> None:
    assert list(parts(prompt)) == wanted


def test_a_number_at_the_end_is_a_weight_without_any_and() -> None:
    assert parts("a field, 16:9") == (("a field, 16", 9.0),)


def test_networks_are_taken_out() -> None:
    text, tags = networks("a <lora:x:0.5:0.7:lbw=IND:start=3> cat, <lyco:y><hypernet:z:0.3>end")
    assert text == "a  cat, end"
    assert tags == (
        Tag("lora", "x", 0.5, 0.7, {"lbw": "IND", "start": "3"}), Tag("lora", "y"), Tag("hypernet", "z", 0.3, 0.3),
    )  # fmt: skip


@pytest.mark.parametrize(("tag", "wanted"), [
    ("<lora:a>", Tag("lora", "a")), ("<lora:a:0.5>", Tag("lora", "a", 0.5, 0.5)), ("<lora:a:-1:2>", Tag("lora", "a", -1, 2)),
    ("<lora:a:te=0:unet=1.2>", Tag("lora", "a", 0, 1.2)), ("<lora:a:unet=0.3>", Tag("lora", "a", 1, 0.3)), ("<lora:a:1:te=0.2>", Tag("lora", "a", 0.2, 0.2)),
    ("<lora:a:1:1:MIDD>", Tag("lora", "a", options={"lbw": "MIDD"})), ("<lora:a:1:1:1,0,0:0.5>", Tag("lora", "a", options={"lbw": "1,0,0", "x": "0.5"})),
    ("<lora:a:1:1:64>", Tag("lora", "a", options={"dyn": "64"})), ("<lora:a:w=ALL:x=0.3:step=2-8>", Tag("lora", "a", options={"lbw": "ALL", "x": "0.3", "step": "2-8"})),
    ("<lora:a:lbwe=IN05-OUT05:attn:0.5:te=0>", Tag("lora", "a", 0, 0, {"lbwe": "IN05-OUT05:attn:0.5"})), ("<lora:a b-c_d.e: 1 >", Tag("lora", "a b-c_d.e")),
    ("<lora:a==b>", Tag("lora", "a==b")), ("<lycoris:a>", Tag("lora", "a")), ("<hypernetwork:a:0.5>", Tag("hypernet", "a", 0.5, 0.5)),
])  # fmt: skip
def test_what_a_tag_says(tag: str, wanted: Tag) -> None:
    assert networks(tag) == ("", (wanted,))


@pytest.mark.parametrize("tag", ["<lora:a:x>", "<lora:a:1:x>", "<lora:a:nan>", "<lora:a:1:inf>", "<lora:a:>", "<lora:a:te=b>", "<lora:a:1,0,0>", "<lora:a:dyn=x>", "<lora: :1>", "<lora:te=1>"])  # fmt: skip
def test_a_strength_that_is_none_is_a_letter(tag: str) -> None:
    with pytest.raises(RecipeError, match="Write "):
        networks(f"a cat {tag}")


def test_other_things_between_angles() -> None:
    with pytest.warns(InfuseWarning, match="of the kind 'foo', which nobody knows"):
        assert networks("a <foo:bar> b") == ("a  b", ())
    for prompt in ("a <gold> ring", "<lora:x", "a < b : c", "<:x>", "<lora:>", "1 <2:3", "->"):
        assert networks(prompt) == (prompt, ())


def test_brackets() -> None:
    assert pieces("a (b:1.5) BREAK c") == (
        Piece("a "),
        Piece("b", 1.5),
        Piece(""),
        Piece("BREAK", cut=True),
        Piece("c"),
    )
    assert pieces("[(a)] [((a))] x")[0] == Piece("a "), "what is taken back leaves exactly 1"
    for prompt, wanted in {
        "(a:1e3)": "a:1e3",
        "(a:b)": "a:b",
        "(a:1e9)": "a:1e9",
        "(a": "a",
        "(a:1.2": "a:1.2",
    }.items():
        assert pieces(prompt) == (Piece(wanted, 1.1),)


@pytest.mark.parametrize(("prompt", "told", "wanted"), [
    ("(a:1.2.3)", "is no number", Piece("a:1.2.3", 1.1)), ("(a:5000)", "the most there is", Piece("a", 1000)), ("(" * 9999, "x", Piece("")),
    ("(" * 5000 + "a" + ")" * 5000, "the most there is", Piece("a", 1000)), (f"((a:{'9' * 400}):0)", "x", Piece("a", 0)),
])  # fmt: skip
def test_what_is_hardly_meant_is_told(prompt: str, told: str, wanted: Piece) -> None:
    if told == "x":
        assert pieces(prompt) == (wanted,)
        return
    with pytest.warns(InfuseWarning, match=told):
        assert pieces(prompt) == (wanted,)


def test_break_in_brackets_is_a_word_and_told() -> None:
    with pytest.warns(InfuseWarning, match="Close them before it"):
        assert pieces("(a BREAK b:1.3)") == (Piece("a", 1.3), Piece("BREAK", -1.3), Piece("b", 1.3))
    assert [piece.cut for piece in pieces("(a BREAK b:1)")] == [False, True, False]

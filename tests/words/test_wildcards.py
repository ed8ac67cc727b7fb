"""Choices: all texts that a prompt stands for, one of them by seed, and files that say what a name stands for."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infuse.errors import CapacityError, InfuseError, InfuseWarning, RecipeError
from infuse.media.reading import STRICT, reading
from infuse.words.wildcards import all_of, chosen, has_choice

TREE = """
animal:
  cat: [tabby, "0.5::siamese", {text: lion, weight: 3}]
  dog: [poodle]
one: single
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "col.txt": "red\n#no\n\nblue\nred\n{x|y}\n", "sub/deep.txt": "\ufeff deep \n", "loop.txt": "a__loop__\n", "tree.yaml": TREE,
        "more.json": '{"animal": {"cow": ["cow"]}}', "fill.txt": "${v:none} and ${w}\n", "laughs.txt": "", **{f"l{i}.txt": f"__l{i + 1}__" * 2 for i in range(9)},
        "l9.txt": "x" * 4096, "e9.txt": "{|}", **{f"e{i}.txt": f"__e{i + 1}__" * 9 for i in range(9)}, "other.md": "no",
    }.items():  # fmt: skip
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(content, "utf-8")
    (tmp_path / "out.txt").write_text("secret")
    return tmp_path / "in"


@pytest.mark.parametrize(("prompt", "wanted"), [
    ("__col__", ["blue", "red", "x", "y"]), ("{2$$a|b|c}", ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"]),
    ("{1-2$$ and $$a|b}", ["a", "b", "a and b", "b and a"]), ("{a|}", ["a", ""]), ("{4$$a|b}", ["a,b", "b,a"]), ("{0-1$$a|b}", ["", "a", "b"]),
    ("{a::b|c}", ["a::b", "c"]), ("{0.5::a|2::b}", ["a", "b"]), ("{-1$$a|b}", ["a", "b"]), ("{2-$$a|b}", ["a,b", "b,a"]), ("{2-1$$a|b}", ["a", "b", "a,b", "b,a"]),
    ("{a|b} {c|d}", ["a c", "a d", "b c", "b d"]), ("{{a|b}|c}", ["a", "b", "c"]), ("{a|a} x", ["a x"]), ("{one}", ["one"]),
    ("{2$$__col__}", ["blue,red", "blue,x", "blue,y", "red,blue", "red,x", "red,y", "x,blue", "y,blue", "x,red", "y,red"]),
    ("${v={a|b}}${v}${v}", ["aa", "ab", "ba", "bb"]), ("${v:z}", ["z"]), ("${v=a}${v?=b}${v}", ["a"]), ("${v?=b}${v}", ["b"]),
    ("%{x ... y$${a|b}}", ["x a y", "x b y"]), ("%{x…$$a}", ["xa"]), ("__animal/*__", ["cow", "lion", "poodle", "siamese", "tabby"]),
    ("__animal/d*__", ["poodle"]), ("__one__", ["single"]), ("__deep__", ["deep"]), ("__sub/deep__", ["deep"]), ("__fill(v=a,w={b|c})__", ["a and b", "a and c"]),
    ("[a|b] (c:1.2)", ["[a|b] (c:1.2)"]), (r"\{a|b\}", [r"\{a|b\}"]), ("100% x, $5", ["100% x, $5"]), ("{a|b}}", ["a}", "b}"]), ("a {b", ["a {b"]), ("{a|{b|c}", ["{a|b", "{a|c"]),
    ("$${a|b}", ["$$a", "$$b"]), ("{$$a|b}", ["$$a", "b"]), ("{// why\na|/* no */b}", ["\na", "b"]), ("http://x/{a|b}", ["http://x/a", "http://x/b"]), ("", [""]),
    ("snake__case", ["snake__case"]), ("%{a|b}", ["%{a|b}"]), ("a | b", ["a | b"]),
])  # fmt: skip
def test_all_texts(prompt: str, wanted: list[str], folder: Path) -> None:
    assert list(all_of(prompt, [folder])) == wanted
    assert {chosen(prompt, seed, [folder]) for seed in range(20)} <= set(wanted)


def test_at_most_so_many() -> None:
    assert all_of("{a|b|c}{a|b|c}", most=4) == ("aa", "ab", "ac", "ba")
    begin = time.process_time()
    assert all_of("{a|a}" * 40, most=3) == ("a" * 40,)
    assert time.process_time() - begin < 6  # a busy machine counts its waits


@pytest.mark.slow
def test_one_by_seed(folder: Path) -> None:
    prompt = "{a|b|c} {1-3$$ $$d|e|f} __col__"
    texts = [chosen(prompt, seed, [folder]) for seed in range(60)]
    assert texts == [chosen(prompt, seed, [folder]) for seed in range(60)]
    assert len(set(texts)) > 30
    assert [t.split()[0] for t in texts] == [chosen("{a|b|c}, another", seed).split(",")[0] for seed in range(60)], (
        "what comes later changes nothing"
    )
    assert {chosen("{0::a|b}", seed) for seed in range(20)} == {"b"}
    heavy = [chosen("{9::a|b}", seed) for seed in range(200)]
    assert 150 < heavy.count("a") < 200


def test_in_turns() -> None:
    assert [chosen("{@a|b|c}", seed) for seed in range(4)] == ["a", "b", "c", "a"]
    assert all_of("{~a|b} {x|y}")[0][2:] == "x" and len(all_of("{~a|b} {x|y}")) == 2
    assert chosen("${v=!{a|b|c|d}}${v}${v}${v}", 5) in {"aaa", "bbb", "ccc", "ddd"}


@pytest.mark.parametrize("prompt", ["a cat", "", "(a:1.2) [b|c]", "100% of $5", r"\{a|b\}", "a_b__c", "http://x"])
def test_words_alone_stay(prompt: str) -> None:
    assert not has_choice(prompt) and chosen(prompt, 3) == prompt and all_of(prompt) == (prompt,)


@pytest.mark.parametrize(("prompt", "told"), [
    ("__nope__", "none of this name"), ("__animal/cot__", "there is 'animal/c"), ("__../out__", "leads out of"), ("__/etc/passwd__", "none of this name"), ("__other__", "none of this name"),
])  # fmt: skip
def test_a_name_that_is_none_stays_and_is_told(prompt: str, told: str, folder: Path) -> None:
    with pytest.warns(InfuseWarning, match=told):
        assert chosen(f"a {prompt} b", 0, [folder]) == f"a {prompt} b"


def test_strangers_read_no_files(folder: Path) -> None:
    """Nor do they learn what is there."""
    told = []
    for name in ("col", "nope"):
        with reading(STRICT), pytest.warns(InfuseWarning, match="may not read files") as record:
            assert chosen(f"__{name}__ {{a|b}}", 0, [folder]) in (f"__{name}__ a", f"__{name}__ b")
        told.append(str(record[0].message).replace(name, ""))
    assert told[0] == told[1]


@pytest.mark.slow
def test_what_leads_to_itself(folder: Path) -> None:
    with pytest.warns(InfuseWarning, match="leads to itself"):
        assert chosen("__loop__", 0, [folder]).startswith("aaaaaaaa")
    with pytest.raises(RecipeError, match="leads to itself"):
        chosen("${v=${v}}${v}", 0)
    with pytest.raises(RecipeError, match="is nothing yet"):
        chosen("a ${v}", 0)
    for name in ("l0", "e0"):
        begin = time.process_time()
        with pytest.raises(CapacityError, match="Let fewer of them"):
            chosen(f"__{name}__", 0, [folder])
        assert time.process_time() - begin < 5


@pytest.mark.parametrize(("name", "content", "kind"), [("bad.txt", b"\xff\xfe", RecipeError), ("bad.yaml", b"a: [", RecipeError), ("bad.json", b"{", RecipeError)])  # fmt: skip
def test_a_broken_file_is_a_letter(name: str, content: bytes, kind: type, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(kind, match="bad"):
        chosen("__bad__", 0, [tmp_path])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prompt", [
    "{" * 5000, "{" * 5000 + "a" + "}" * 5000, "}" * 5000, "{a|" * 5000, "${a=" * 5000, "%{" * 5000, "__a(" * 5000, "__a" * 30_000, "__" * 50_000, "{a|b}" * 5000, "{/*" * 5000,
    "{//" * 5000, "{2$$" * 5000, "{" + "1" * 100_000 + "$$a}", "_" * 200_000, "word " * 10_000 + "{a|b}", "__" + "a" * 500_000, "{a|" + "b" * 500_000, "%{...$$" * 3000, "__a(b={c|d})__" * 2000,
    "{9" + "9" * 5000 + "::a|b}",
], ids=str.__len__)  # fmt: skip
def test_it_takes_no_time(prompt: str) -> None:
    begin = time.process_time()
    try:
        chosen(prompt, 0)
        all_of(prompt, most=2)
    except InfuseError:
        pass
    assert time.process_time() - begin < 6  # a busy machine counts its waits


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["{", "}", "|", "$", "%", "__", "a", "2$$", "0.5::", "${v=", "${v", "=!", ":", "...", "~", "@", "!", "\\", "//", "/*", "*/", "(", ")", ",", " "]), max_size=18).map("".join))  # fmt: skip
def test_drawn_ones(prompt: str) -> None:
    try:
        texts = all_of(prompt, most=5)
        assert chosen(prompt, 0) == chosen(prompt, 0) and texts
    except RecipeError as letter:
        assert "${v" in str(letter)

"""Styles and comments."""

from __future__ import annotations

from pathlib import Path

import pytest

from infuse.errors import RecipeError
from infuse.media.reading import STRICT, reading
from infuse.words.comments import without_comments
from infuse.words.styles import Styles

TABLE = """name,prompt,negative_prompt
photo,"photograph of {prompt}, 85mm, {prompt}", drawing
#note,x,y
sharp,"sharp, (crisp:1.2)  # as ever",blurry
plain,,
sharp,sharp,blur
"""


@pytest.fixture
def styles(tmp_path: Path) -> Styles:
    (tmp_path / "styles.csv").write_text(TABLE, "utf-8-sig")
    return Styles.read(tmp_path / "styles.csv")


def test_what_is_read(styles: Styles, tmp_path: Path) -> None:
    assert list(styles.named) == ["photo", "sharp", "plain"] and styles.named["sharp"] == ("sharp", "blur")
    styles.write(tmp_path / "again.csv")
    assert Styles.read(tmp_path / "again.csv") == styles
    assert (tmp_path / "again.csv").read_bytes().startswith(b"\xef\xbb\xbfname,prompt,negative_prompt\r\n")
    (tmp_path / "old.csv").write_text("name,text\nphoto,old\n")
    assert Styles.read(tmp_path / "styles.csv", tmp_path / "old.csv").named["photo"] == ("old", "")


@pytest.mark.parametrize(("names", "prompt", "negative", "wanted"), [
    ([], " a # b ", "", (" a # b ", "")), (["sharp"], " a cat ", "", ("a cat, sharp", "blur")), (["sharp"], "", "ugly", ("sharp", "ugly, blur")),
    (["photo"], "a cat", "ugly", ("photograph of a cat, 85mm, a cat", "ugly, drawing")), (["plain"], "a", "b", ("a", "b")),
    (["sharp", "photo"], "a", "", ("photograph of a, sharp, 85mm, a, sharp", "blur, drawing")), (["sharp"], "a # cat", "", ("a, sharp", "blur")),
])  # fmt: skip
def test_prompts_in_styles(
    styles: Styles, names: list[str], prompt: str, negative: str, wanted: tuple[str, str]
) -> None:
    assert styles.applied(names, prompt, negative) == wanted


def test_a_style_that_is_none_is_a_letter(styles: Styles) -> None:
    with pytest.raises(RecipeError, match="no style 'shrap'. Did you mean 'sharp'"):
        styles.applied(["shrap"], "a", "b")


def test_styles_are_found_again() -> None:
    styles = Styles({"photo": ("photograph of {prompt}, 85mm", "drawing"), "sharp": ("sharp", ""), "plain": ("", "")})
    for names in ((), ("photo",), ("sharp",), ("photo", "sharp"), ("sharp", "photo")):
        assert styles.taken_off(*styles.applied(names, "a cat", "ugly")) == (names, "a cat", "ugly")


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\xfe\x00", b'name,prompt\n"' + b"x" * 200_000 + b'",y\n'])
def test_what_is_no_table_is_a_letter(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(RecipeError, match="no table of styles"):
        Styles.read(tmp_path / "bad.csv")
    with pytest.raises(RecipeError, match="cannot be read"):
        Styles.read(tmp_path / "none.csv")
    assert Styles.read() == Styles({})


def test_strangers_read_no_styles(tmp_path: Path) -> None:
    (tmp_path / "styles.csv").write_text(TABLE)
    with reading(STRICT), pytest.raises(RecipeError, match="may not read files"):
        Styles.read(tmp_path / "styles.csv")


def test_comments() -> None:
    assert without_comments("a cat # not a dog\n# nothing\nb") == "a cat \n\nb"
    assert without_comments("a cat") == "a cat"

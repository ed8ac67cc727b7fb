"""A plain prompt is words."""

from __future__ import annotations

from infuse.encoders.prompt_syntax import words


def test_a_backslash_before_a_bracket_is_not_painted() -> None:
    assert words(r"a \(red\) \[b\] \n") == r"a (red) [b] \n"

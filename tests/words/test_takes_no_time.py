"""Whatever a prompt is, every reader of it is done soon, and says what it has to say in letters."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infuse.errors import InfuseError
from infuse.words.compel import read
from infuse.words.emphasis import pieces
from infuse.words.schedule import entries
from infuse.words.sums import parts
from infuse.words.tags import networks

READERS: tuple[Callable[[str], Any], ...] = (pieces, lambda text: entries(text, 30), parts, networks, read)
PROMPTS = [
    "(" * 5000, "[" * 5000, "(" * 5000 + "a" + ")" * 5000, "[" * 5000 + "a" + ":b:3]" * 5000, "(" * 5000 + "a" + ")1.1" * 5000, "[a|" * 5000 + "b" + "]" * 5000,
    ")" * 5000, "(a[b)c]" * 5000, "(a:1.2 " * 5000, "[a:b:c:" * 5000, "[a|b]" * 5000, "[a:b:0.5]" * 5000, "word " * 10_000, "a" * 1_000_000, " " * 1_000_000,
    ":" * 50_000, ":    " * 20_000, "(a:" + "1" * 100_000, "(a:1" + " " * 100_000, "\\" * 50_000, "BREAK " * 10_000, " " * 50_000 + "BREAK", "a AND " * 10_000, "<a:" * 20_000,
    "<a:b>" * 10_000, '"= ' * 10_000, "a.swap(" * 10_000, "+" * 100_000, "a" + "+" * 100_000, '("a", ' * 10_000, "(x ( = ) " * 10_000, "(a " * 10_000, "{" * 5000, "\x00\ud800(", "|",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("prompt", PROMPTS, ids=[str(i) for i in range(len(PROMPTS))])
def test_long_ones(prompt: str) -> None:
    for reader in READERS:
        assert any(
            seconds(reader, prompt) < 1 for _ in range(3)
        )  # what is squared takes minutes; a busy machine, twice as long


def seconds(reader: Callable[[str], Any], prompt: str) -> float:
    begin = time.process_time()
    with suppress(InfuseError):
        reader(prompt)
    return time.process_time() - begin


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(list('ab ()[]{}<>:|\\"+-.,=12$_~!@%\n') + ["BREAK", "AND", "lora:", ".and(", ".blend(", "__"]), max_size=30).map("".join) | st.text(max_size=30))  # fmt: skip
def test_drawn_ones(prompt: str) -> None:
    for reader in READERS:
        with suppress(InfuseError):
            reader(prompt)

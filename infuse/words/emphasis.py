r"""Brackets weigh words, as in the webui: `(a)` is 1.1, `[a]` is 1/1.1, `(a:1.3)` is 1.3, and what is nested multiplies.

A backslash before a bracket says that it is meant as it stands. `BREAK` begins a new chunk of words. Whatever fits nothing is
words: a bracket that nobody opened, `:1.2)` without one, a number such as 1.2.3. What nobody closed is closed by the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose

from infuse.notices import note

MORE, LESS = 1.1, 1 / 1.1
MOST = 1000.0
"""Beyond it a weight says nothing more, and numbers of 16 bits overflow."""
TOKEN = re.compile(r"\\[()\[\]\\]?|[(\[)\]]|:\s*(?P<number>[-+]?[.\d]+)\s*\)|[^\\()\[\]:]+|:")
BREAK = re.compile(r"\bBREAK\b")
TINY = 1e-9
"""Weights that are nearer to each other are one: brackets that take back what others gave leave exactly 1."""


@dataclass(frozen=True)
class Piece:
    """Words that have one weight. `cut`: no words, but the place where a new chunk begins (`BREAK`; its text says so)."""

    text: str
    weight: float = 1.0
    cut: bool = False


def pieces(text: str) -> tuple[Piece, ...]:
    """A prompt's words with their weights, in order; at least one piece. Never raises; what is hardly meant is noted.

    Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab backend/text_processing/parsing.py.
    """
    found: list[tuple[str, int, int, bool]] = []  # text, the round and the square bracket around it, BREAK
    round_, square = _Brackets(MORE), _Brackets(LESS)

    def say(words: str, cut: bool = False) -> None:
        found.append((words, round_.now, square.now, cut))

    for match in TOKEN.finditer(text):
        token, number = match[0], match["number"]
        if token[0] == "\\":
            say(token[1:])
        elif token == "(":
            round_.opens()
        elif token == "[":
            square.opens()
        elif number is not None and round_.now:
            value = _number(number)
            if value is None:
                note(
                    f"{_shown(token[:-1])} is no weight, since {_shown(number)} is no number; here it is painted as words."
                )
                say(token[:-1].rstrip())
            round_.closes(MORE if value is None else value)
        elif token == ")" and round_.now:
            round_.closes(MORE)
        elif token == "]" and square.now:
            square.closes(LESS)
        else:
            first, *others = BREAK.split(token)
            say(first.rstrip() if others else first)
            for i, words in enumerate(others, 1):
                say("BREAK", cut=True)
                say(words.lstrip() if i == len(others) else words.strip())
    return _joined([(words, _near(round_.factor(r) * square.factor(s)), cut) for words, r, s, cut in found])


class _Brackets:
    """Brackets of one shape. Each multiplies what lies in it, as do those around it: one factor per bracket is enough."""

    def __init__(self, unclosed: float) -> None:
        self.now = 0
        self._outer, self._own = [0], [1.0]  # 0: no bracket
        self._whole: list[float] | None = None
        self._unclosed = unclosed

    def opens(self) -> None:
        self._outer.append(self.now)
        self._own.append(self._unclosed)
        self.now = len(self._own) - 1

    def closes(self, factor: float) -> None:
        self._own[self.now] = factor
        self.now = self._outer[self.now]

    def factor(self, bracket: int) -> float:
        if self._whole is None:
            self._whole = [1.0]
            for outer, own in zip(self._outer[1:], self._own[1:], strict=True):
                self._whole.append(self._whole[outer] * own)
        return self._whole[bracket]


def _joined(found: list[tuple[str, float, bool]]) -> tuple[Piece, ...]:
    """Neighbours of one weight are one piece. BREAK in brackets that weigh is a word, as in the webui."""
    made: list[Piece] = []
    run: list[str] = []
    weight = 1.0

    def close() -> None:
        if run:
            made.append(Piece("".join(run), bounded(weight)))
            run.clear()

    for words, factor, cut in found:
        if cut:
            close()
            if factor != 1:
                note(f"BREAK stands in brackets that weigh it {factor:.4g}, where it is a word. Close them before it.")
            made.append(Piece("BREAK", 1.0, cut=True) if factor == 1 else Piece("BREAK", bounded(-factor)))
            continue
        if not isclose(factor, weight, rel_tol=TINY):
            close()
        run.append(words)
        weight = factor
    close()
    return tuple(made) or (Piece(""),)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _near(weight: float) -> float:
    """1 is 1, however it came about (infinity times 0 is 0: nothing is left of such words)."""
    return 1.0 if abs(weight - 1) < TINY else 0.0 if weight != weight else weight


def bounded(weight: float) -> float:
    """A weight within what makes sense; what lies beyond is noted."""
    if abs(weight) <= MOST:
        return weight
    note(f"Words weigh {weight:.4g} here; that is read as {MOST if weight > 0 else -MOST:g}, the most there is.")
    return MOST if weight > 0 else -MOST


def _shown(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= 40 else f"{text[:37]}...")

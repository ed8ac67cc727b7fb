r"""Words that change on the way, as in the webui: `[a:b:0.5]` is a before half of the evaluations and b after, `[a|b]` takes turns.

    [a:b:when]      a, then b           [b:when]  nothing, then b       [a::when]  a, then nothing
    [a|b|c]         another one at each evaluation, in turns; any may be empty

`when` with a dot is a part of the evaluations, without one a number of them. Both may nest in each other and in brackets that
weigh; a bracket that fits none of this is words. Words escape with a backslash, which stays for whoever reads the weights.
The reader is one pass over one stack: what cannot become a whole bracket any more is given up, with all brackets around it.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab modules/prompt_parser.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import lcm

from infuse.notices import note

Entries = tuple[tuple[int, str], ...]
"""(end, text), in order: each is said until its end, the last until the run's."""

TOKEN = re.compile(r"[^\\\[\]():|]+|\\.|[\[\]():|]")
WHEN = re.compile(r"\s*([-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\s*")
LIKELY = re.compile(r":\s*[-+]?\.?\d[\d.]*\s*\]|\[[^\[\]|]*\|[^\[\]]*\]")
"""What somebody meant to be a schedule, wherever it stands."""


@dataclass(frozen=True, slots=True)
class _Turns:
    """`options`: what is said in turns; or, with a `when`, what is said before and after."""

    options: tuple[tuple[str | _Turns, ...], ...]
    when: str | None = None


@dataclass(slots=True)
class _Open:
    """A bracket that nobody closed yet. Where it and its separators stand among what was read so far."""

    bracket: str
    start: int
    marks: list[tuple[str, int]]


def entries(text: str, n: int, *, before: int | None = None, old: bool = False) -> Entries:
    """What is said until which evaluation: (end, text), ends from 1 to n, rising; the last is n. Never raises.

    n: evaluations of the network in this pass, at least 1. `at` finds the text of one. before: evaluations of the pass before this one,
    if it is a second one over a first one's picture: 0.x then lies in the first pass, 1.x in this, and numbers of evaluations count
    from the first pass on. old: below 1 is a part of this pass, dot or not, and 1 and more a number of evaluations.
    """
    read = _read(text)
    if read is None or not any(isinstance(item, _Turns) for item in read):
        return ((n, text),)
    nodes = tuple(_nodes(read))
    boundaries = {node.when: _boundary(node.when, n, before, old) for node in nodes if node.when is not None}
    turns = {len(node.options) for node in nodes if node.when is None}
    ends = sorted({n, *(t for t in boundaries.values() if t >= 1), *(range(1, n + 1) if turns else ())})
    round_ = lcm(*turns)  # after so many everybody's turn has come, and it begins anew
    said: dict[tuple[int, int], str] = {}
    made: list[tuple[int, str]] = []
    for end in ends:
        moment = ((end - 1) % round_, sum(t < end for t in set(boundaries.values())))
        if moment not in said:
            said[moment] = _said(read, end, boundaries)
        made.append((end, said[moment]))
    return tuple(made)


def at(entries: Sequence[tuple[int, str]], k: int) -> str:
    """The text of evaluation k (from 0): that of the first entry with k <= end.

    So the first entry lasts one evaluation longer than its end says, and `[a|b]` says a, a, b, a: as the webui counts.
    """
    return next((text for end, text in entries if k <= end), entries[-1][1])


def is_scheduled(text: str) -> bool:
    """Does it say different words at different times?"""
    return "[" in text and any(isinstance(item, _Turns) for item in _read(text) or ())


def _read(text: str) -> list[str | _Turns] | None:
    """Words and turns, in order; None if it is all words: of a `|` in no bracket, or a backslash before nothing, nothing can be made."""
    out: list[str | _Turns] = []
    stack: list[_Open] = []
    position = 0
    for match in TOKEN.finditer(text):
        token = match[0]
        if match.start() != position:
            return _given_up(text)
        position = match.end()
        if token in "[(":
            stack.append(_Open(token, len(out), []))
        elif token in ":|":
            if token == "|" and (not stack or stack[-1].bracket == "("):
                return _given_up(text)
            if stack:
                stack[-1].marks.append((token, len(out)))
        elif token in "])":
            made = None
            if stack and (stack[-1].bracket == "[") == (token == "]"):
                made = _closed(out, stack[-1])
            if isinstance(made, _Turns):
                del out[stack.pop().start :]
                out.append(made)
                continue
            if made == token:  # a bracket that weighs
                stack.pop()
            elif _barred(stack):
                return _given_up(text)
            else:
                stack.clear()
        out.append(token)
    return _given_up(text) if position != len(text) or _barred(stack) else out


def _given_up(text: str) -> None:
    if LIKELY.search(text):
        note("The prompt changes on the way, but a | stands outside of its brackets or a backslash before nothing, so that the webui "
             r"reads it all as words, and infuse does. Write \| for the sign.")  # fmt: skip


def _barred(stack: list[_Open]) -> bool:
    return any(mark == "|" for open_ in stack for mark, _ in open_.marks)


def _closed(out: list[str | _Turns], open_: _Open) -> _Turns | str | None:
    """What this bracket is, now that it ends: turns, one that weighs (its closing sign), or None if it fits nothing."""
    signs = [sign for sign, _ in open_.marks]
    if open_.bracket == "(":
        return ")" if len(signs) <= 1 else None
    if not signs:
        return "]"
    starts = [open_.start + 1, *(place + 1 for _, place in open_.marks)]
    ends = [*(place for _, place in open_.marks), len(out)]
    if set(signs) == {"|"}:
        return _Turns(tuple(_option(out[a:b]) for a, b in zip(starts, ends, strict=True)))
    last = out[starts[-1] : ends[-1]]
    when = WHEN.fullmatch("".join(x for x in last if isinstance(x, str)))
    if when is None or "|" in signs or len(signs) > 2 or any(isinstance(x, _Turns) for x in last):
        return None
    options = [_option(out[a:b]) for a, b in zip(starts[:-1], ends[:-1], strict=True)]
    return _Turns(tuple([(), *options][-2:]), when[1])


def _option(items: list[str | _Turns]) -> tuple[str | _Turns, ...]:
    return tuple(items) if any(isinstance(x, _Turns) for x in items) else ("".join(map(str, items)),)


def _nodes(read: Sequence[str | _Turns]) -> Iterator[_Turns]:
    waiting = [read]
    while waiting:
        for item in waiting.pop():
            if isinstance(item, _Turns):
                yield item
                waiting.extend(item.options)


def _boundary(when: str, n: int, before: int | None, old: bool) -> int:
    """The last evaluation, counted from 1, that hears what is said before. At most n; below 1: none does."""
    value = float(when)
    if abs(value) > 1e9:  # longer than any run
        return n if value > 0 else 0
    if old:
        value = value * n if value < 1 else value
    elif "." in when:
        value = (value - (before is not None)) * n
    else:
        value -= before or 0
    return min(n, int(value))


def _said(read: Sequence[str | _Turns], end: int, boundaries: dict[str, int]) -> str:
    words: list[str] = []
    waiting = [iter(read)]
    while waiting:
        for item in waiting[-1]:
            if isinstance(item, str):
                words.append(item)
                continue
            i = (end - 1) % len(item.options) if item.when is None else end > boundaries[item.when]
            waiting.append(iter(item.options[i]))
            break
        else:
            waiting.pop()
    return "".join(words)

r"""The grammar of choices: `{a|b}`, `{2$$a|b|c}`, `__name__`, `${v=text}`, `%{with ... around$$text}`, read into plain nodes.

    {a|b}  {0.5::a|2::b}          one of them, by weight          {2$$a|b|c}  {1-3$$ and $$a|b|c}     several, and what joins them
    {!a|b}  {@a|b}  {~a|b}        all, in turns, by chance         __name__  __~name(v=red)__         a line of a file
    ${v=text}  ${v=!text}         text, evaluated at each use, once   ${v?=text}                      only if v is nothing yet
    ${v}  ${v:default}            what v is                         %{a ... b$$text}                  text, where the dots are

One pass over one stack. A brace that nobody closes or opened, a $ or % before no brace: words. A backslash before a sign says so.

Source: adieyal/dynamicprompts@58815af src/dynamicprompts/parser/parse.py.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from infuse.notices import note

DEEPEST, MOST_WEIGHT = 30, 1e9
"""Braces within braces; deeper ones are words."""


@dataclass(frozen=True)
class Group:
    """least..most of `options` (weight, nodes), joined by `between`. sampler: "~", "!", "@", or "" for that of the whole text."""

    options: tuple[tuple[float, Nodes], ...]
    least: int = 1
    most: int | None = 1
    between: str = ","
    sampler: str = ""


@dataclass(frozen=True)
class Lines:
    """A line of the files of this name. text: how it stands in the prompt, where it stays if there is none."""

    name: str
    text: str
    values: tuple[tuple[str, Nodes, bool], ...] = ()
    sampler: str = ""


@dataclass(frozen=True)
class Variable:
    """What v is (`default` if it is nothing), or, with `sign` "=" or "?=", that it is `nodes` from here on. now: evaluated here."""

    name: str
    sign: str
    nodes: Nodes
    now: bool = False


@dataclass(frozen=True)
class Wrap:
    """`inner` where `around` has three dots."""

    around: Nodes
    inner: Nodes


Node = str | Group | Lines | Variable | Wrap
Nodes = tuple[Node, ...]

TOKEN = re.compile(r"[^\\{}|$%_/]+|\\.|__|.", re.S)
SIZES = re.compile(
    r"(?P<sampler>[~!@]?)(?:\s*+(?P<least>\d*+)(?P<to>-?+)(?P<most>\d*+)\s*+\$\$(?:(?P<between>[^${}]*)\$\$)?)?"
)
WEIGHT = re.compile(r"\s*+(\d++(?:\.\d*+)?|\.\d++)::")
VARIABLE = re.compile(r"\$\{\s*([A-Za-z_]\w*)\s*(?:(\?=|=)(!?)|(:)|(?=\}))")
LINES = re.compile(r"__([~!@]?)(?!\s)((?:(?!__)[^(){}#$|%,\n]){1,300}+)(?<!\s)(\((?:[^()]|\([^()]*+\)){0,2000}+\))?__")
VALUE = re.compile(r"\s*([A-Za-z_]\w*)\s*=(!?)(.*)", re.S)
COMMENT = re.compile(r"//[^\n]*")


@dataclass
class _Open:
    """A brace that is not closed yet: how it began, what lies in it, and where its parts end. `raw`: braces in it that are words."""

    sign: str
    begin: str
    parts: list[list[Node]] = field(default_factory=lambda: [[]])
    weights: list[tuple[float, str]] = field(default_factory=list)
    more: tuple = ()
    raw: int = 0


def parse(text: str) -> Nodes:
    """Words and what is chosen among, in order. Never raises; what is unbalanced is noted, and is words."""
    stack = [_Open("", "")]
    at, blocks = 0, True
    while at < len(text):
        here = stack[-1]
        if text[at] == "/" and _fresh(here):
            comment = COMMENT.match(text, at)
            end = (
                comment.end() if comment else text.find("*/", at + 2) + 2 if blocks and text.startswith("/*", at) else 0
            )
            if end > 1:
                at = end
                continue
            blocks = blocks and not text.startswith("/*", at)  # one search that finds no end is enough
        match = TOKEN.match(text, at)
        assert match
        token, at = match[0], match.end()
        if token == "__" and (lines := LINES.match(text, match.start())) and (made := _lines(lines)):
            here.parts[-1].append(made)
            at = lines.end()
        elif token == "{" and len(stack) > DEEPEST:
            here.raw += 1
            here.parts[-1].append(token)
            if here.raw == 1:
                note(f"Braces lie more than {DEEPEST} deep in each other; from there on they are words.")
        elif token == "{":
            at = _group(stack, text, at)
        elif token == "$" and here.raw == 0 and len(stack) <= DEEPEST and (head := VARIABLE.match(text, match.start())):
            stack.append(_Open("$", head[0], more=(head[1], head[2] or head[4] or "", bool(head[3]))))
            at = head.end()
        elif token == "%" and text.startswith("{", at) and len(stack) <= DEEPEST:
            stack.append(_Open("%", "%{"))
            at += 1
        elif token == "$" and here.sign == "%" and text.startswith("$", at) and len(here.parts) == 1:
            here.parts.append([])
            at += 1
        elif token == "|" and here.sign == "{" and not here.raw:
            at = _option(here, text, at)
        elif token == "}" and here.raw:
            here.raw -= 1
            here.parts[-1].append(token)
        elif token == "}" and here.sign:
            stack.pop()
            made = _closed(here)
            stack[-1].parts[-1] += [made] if made else [*_spelled(here), token]
        else:
            here.parts[-1].append(token)
    if len(stack) > 1:
        note(
            "A brace { is not closed; from there on it is words, as are those around it. A backslash before it says that it is meant so."
        )
    return _whole([node for open_ in stack for node in _spelled(open_)])


def plain(nodes: Sequence[Node]) -> bool:
    """Is there nothing to choose?"""
    return all(isinstance(node, str) for node in nodes)


def _fresh(open_: _Open) -> bool:
    """Does a new element start here, where a comment may stand? Not at a prompt's beginning, which may be all words."""
    last = open_.parts[-1][-1] if open_.parts[-1] else None
    return bool(open_.sign) if last is None else not isinstance(last, str)


def _group(stack: list[_Open], text: str, at: int) -> int:
    sizes = SIZES.match(text, at)
    assert sizes
    counted = sizes["least"] or sizes["most"]
    if not counted:  # {$$a} is no size
        sampler = sizes["sampler"]
        stack.append(_Open("{", "{" + sampler, more=(1, 1, ",", sampler)))
        return _option(stack[-1], text, at + len(sampler), first=True)
    least, most = sizes["least"], sizes["most"]
    bounds = (
        (int(least[:6] or 1), int(most[:6]) if most else None) if sizes["to"] else (int(least[:6] or most[:6]),) * 2
    )
    between = "," if sizes["between"] is None else sizes["between"]
    stack.append(_Open("{", "{" + sizes[0], more=(*bounds, between, sizes["sampler"])))
    return _option(stack[-1], text, sizes.end(), first=True)


def _option(open_: _Open, text: str, at: int, first: bool = False) -> int:
    weight = WEIGHT.match(text, at)
    open_.weights.append((min(float(weight[1]), MOST_WEIGHT), weight[0]) if weight else (1.0, ""))
    if not first:
        open_.parts.append([])
    return weight.end() if weight else at


def _closed(open_: _Open) -> Node | None:
    parts = [_whole(part) for part in open_.parts]
    if open_.sign == "{":
        least, most, between, sampler = open_.more
        if most is not None:
            least, most = sorted((least, most))
        return Group(tuple((weight, nodes) for (weight, _), nodes in zip(open_.weights, parts, strict=True)), least, most, between, sampler)  # fmt: skip
    if open_.sign == "$":
        name, sign, now = open_.more
        return Variable(name, sign, parts[0], now)
    return Wrap(parts[0], parts[1]) if len(parts) == 2 else None


def _spelled(open_: _Open) -> list[Node]:
    """What a brace that proves to be none has in it, as it stood there."""
    between: list[Node] = [{"{": "|", "%": "$$"}.get(open_.sign, "")]
    made: list[Node] = [open_.begin]
    for i, part in enumerate(open_.parts):
        made += between if i else []
        made += [open_.weights[i][1]] if open_.weights else []
        made += part
    return made


def _lines(match: re.Match[str]) -> Lines | None:
    sampler, name, arguments = match[1], match[2], match[3]
    values = []
    for argument in _split(arguments[1:-1]) if arguments else ():
        value = VALUE.fullmatch(argument)
        if value is None:
            return None
        values.append((value[1], parse(value[3].strip()), bool(value[2])))
    return Lines(name, match[0], tuple(values), sampler)


def _split(text: str) -> list[str]:
    """At the commas that lie in no brackets."""
    depth, made = 0, [""]
    for sign in text:
        depth += (sign in "({") - (sign in ")}")
        if sign == "," and depth <= 0:
            made.append("")
        else:
            made[-1] += sign
    return [part for part in made if part.strip()]


def _whole(nodes: Sequence[Node]) -> Nodes:
    """Without empty words; words beside words are one."""
    made: list[Node] = []
    run: list[str] = []
    for node in (*nodes, None):
        if isinstance(node, str):
            run.append(node)
            continue
        if words := "".join(run):
            made.append(words)
        run = []
        if node is not None:
            made.append(node)
    return tuple(made)

"""The webui's grammar once more, as plainly as its rules are written: one scanner, one Earley grammar. Slow, short, independent."""

from __future__ import annotations

import re

import lark

SCAN = re.compile(r"\\\(|\\\)|\\\[|\\\]|\\\\|\\|\(|\[|:\s*([+-]?[\d.]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")


def pieces(text: str) -> list[tuple[str, float]]:
    """[text, weight]; a break is ("BREAK", -1)."""
    out: list[list] = []
    round_: list[int] = []
    square: list[int] = []

    def multiply(start: int, factor: float) -> None:
        for piece in out[start:]:
            piece[1] *= factor

    for match in SCAN.finditer(text):
        token, number = match[0], match[1]
        if token[0] == "\\":
            out.append([token[1:], 1.0])
        elif token == "(":
            round_.append(len(out))
        elif token == "[":
            square.append(len(out))
        elif number is not None and round_:
            try:
                factor = float(number)
            except ValueError:
                out.append([token[:-1].rstrip(), 1.0])
                factor = 1.1
            multiply(round_.pop(), factor)
        elif token == ")" and round_:
            multiply(round_.pop(), 1.1)
        elif token == "]" and square:
            multiply(square.pop(), 1 / 1.1)
        else:
            for i, words in enumerate(re.split(r"\s*\bBREAK\b\s*", token)):
                if i:
                    out.append(["BREAK", -1.0])
                out.append([words, 1.0])
    for start in round_:
        multiply(start, 1.1)
    for start in square:
        multiply(start, 1 / 1.1)
    joined: list[tuple[str, float]] = []
    for words, weight in out:
        if joined and abs(joined[-1][1] - weight) < 1e-9:
            joined[-1] = (joined[-1][0] + words, weight)
        else:
            joined.append((words, weight))
    return joined or [("", 1.0)]


GRAMMAR = r"""
!whole: (_strict | LITERAL)*
_strict: timed | turns | round | square | WORDS
!round: "(" strict ")" | "(" strict ":" strict ")"
!square: "[" strict "]"
timed: "[" (strict ":")? strict ":" WHEN "]"
turns: "[" strict ("|" strict)+ "]"
strict: _strict*
WORDS: /(?:[^\\\[\]():|]|\\.)+/
WHEN.2: /\s*[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?\s*/
LITERAL.-5: /[\[\]():]/
"""
EARLEY = lark.Lark(GRAMMAR, start="whole", parser="earley", ambiguity="explicit")


def entries(text: str, n: int) -> list[tuple[int, str]]:
    """[end, text]."""
    try:
        tree = EARLEY.parse(text) if text else lark.Tree("whole", [])
    except lark.exceptions.LarkError:
        return [(n, text)]
    tree = chosen(tree)
    ends = {n}
    for node in tree.iter_subtrees():
        if node.data == "turns":
            ends |= set(range(1, n + 1))
        elif node.data == "timed":
            ends |= {t for t in [boundary(node.children[-1], n)] if t >= 1}
    return [(end, said(tree, end, n)) for end in sorted(ends)]


def chosen(tree: lark.Tree) -> lark.Tree:
    """Of several readings that with the fewest literal brackets."""

    def strays(node: lark.Tree | lark.Token) -> int:
        if isinstance(node, lark.Token):
            return node.type == "LITERAL"
        return sum(map(strays, node.children))

    children = [chosen(c) if isinstance(c, lark.Tree) else c for c in tree.children]
    return min(children, key=strays) if tree.data == "_ambig" else lark.Tree(tree.data, children)


def boundary(when: str, n: int) -> int:
    return min(n, int(float(when) * n if "." in when else float(when)))


def said(node: lark.Tree | lark.Token, end: int, n: int) -> str:
    if isinstance(node, lark.Token):
        return str(node)
    if node.data == "turns":
        return said(node.children[(end - 1) % len(node.children)], end, n)
    if node.data == "timed":
        *options, when = node.children
        before, after = [*[lark.Tree("strict", [])] * (2 - len(options)), *options]
        return said(before if end <= boundary(when, n) else after, end, n)
    return "".join(said(child, end, n) for child in node.children)

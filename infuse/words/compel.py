r"""compel's syntax: `word+`, `(some words)1.3` and `"some words"--` weigh, `("a", "b").and(1, 0.5)` says one prompt after the other.

    word+  word++  word-             1.1, 1.21, 0.9: the sign directly behind the word
    (a b)1.3  (a b)+  "a b"-         groups; the number directly behind the bracket; what is nested multiplies
    (a b).attend(1.3)                the same
    ("a", "b").blend(0.7, 0.3)       the whole prompt: encodings averaged; no_normalize as last argument leaves their sum
    ("a", "b").and(1, 0.5)           the whole prompt: encodings one after another
    withLora(name, 0.8)              a network

A bracket without a number weighs nothing, and is not painted; `\(` is. Whatever fits nothing is words, up to the next space. The
reader goes once from left to right; a bracket that proves to be none is remembered, and its words are read as such.

Source: damian0815/compel@c60b9fb src/compel/prompt_parser.py.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isclose, isfinite

from infuse.errors import RecipeError
from infuse.notices import note
from infuse.words.emphasis import TINY, Piece, bounded

PLUS, MINUS = 1.1, 0.9
MOST_SIGNS = 200
"""Behind one word; more says nothing more."""
S = r"[ \t\n\r\x0b\x0c]"
NUMBER = r"\d+\.\d*|\.\d+|\d+"
SPACE = re.compile(rf"{S}*+")
FREE = re.compile(r"[^ \t\n\r\x0b\x0c]++")
WORD = re.compile(rf"""(?:\\[()",.+=-]|[-+](?!{S}|[()",.+=-]|\Z)|[^ \t\n\r\x0b\x0c()",.+=-])++""")
QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
LORA = re.compile(rf"(?:useLora|withLora){S}*+\({S}*+([\w-]+){S}*+(?:,{S}*+(-?(?:{NUMBER})){S}*+)?\)", re.ASCII)
ATTEND = re.compile(rf"{S}*+\.attend{S}*+\({S}*+(\++|-+|{NUMBER}){S}*+\)")
SWAP = re.compile(rf"{S}*+\.swap{S}*+\((?:[^()]|\([^()]*+\))*+\)")
SIGNS = re.compile(rf"\++|-+|{NUMBER}")
JOINED = re.compile(rf"{S}*+\.(and|add|blend){S}*+\(([^()]*+)\)")
MEANT = re.compile(rf"\){S}*+\.(?:and|add|blend|swap|attend){S}*+\(")
UNESCAPED = re.compile(r'\\([()"])')


@dataclass(frozen=True)
class Blend:
    """Several prompts whose encodings are averaged: sum(w E), divided by sum(w) if `normalize`."""

    texts: tuple[tuple[Piece, ...], ...]
    weights: tuple[float, ...]
    normalize: bool = True


@dataclass(frozen=True)
class Conjunction:
    """Prompts that are encoded each by itself and stand one after another, each with a weight.

    parts: at least one; usually one of weight 1. loras: (name, weight) as `withLora` names them.
    """

    parts: tuple[tuple[Blend | tuple[Piece, ...], float], ...]
    loras: tuple[tuple[str, float], ...] = ()

    @property
    def plain(self) -> str:
        """The first part's words without weights: what pooled vectors are made of."""
        first = self.parts[0][0]
        return " ".join(piece.text for piece in (first.texts[0] if isinstance(first, Blend) else first) if piece.text)


def read(text: str) -> Conjunction:
    """A prompt in compel's syntax.

    Words of one weight are joined by single spaces, however they were apart. Raises RecipeError for a blend or a conjunction that
    is not the whole prompt, or whose weights are no numbers, are not as many as its prompts, or add up to nothing.
    """
    text = re.sub(r",(?=\S)", ", ", text)
    joined = _joined(text)
    if joined is not None:
        return joined
    if MEANT.search(text):
        note("The prompt has one of .and(), .blend(), .swap() and .attend() behind a bracket that is none of compel's groups; where it is not "
             'understood it is painted as words. Write ("one", "other").and(1, 1).')  # fmt: skip
    scan = _Scan(text)
    scan.run()
    return Conjunction(((scan.pieces(), 1.0),), tuple(scan.loras))


def _joined(text: str) -> Conjunction | None:
    """`(…, …).and(…)` or `.blend(…)`; None if the prompt is neither."""
    scan = _Scan(text)
    scan.pass_loras()
    targets = list[tuple[Piece, ...]]()
    if not text.startswith("(", scan.at):
        return None
    scan.at += 1
    while True:
        scan.at = _match(SPACE, text, scan.at).end()
        inner = scan.target()
        if inner is None:
            return None
        targets.append(inner.pieces())
        scan.loras += inner.loras
        scan.at = _match(SPACE, text, scan.at).end()
        scan.at += 1
        if text.startswith(")", scan.at - 1):
            break
        if not text.startswith(",", scan.at - 1):
            return None
    match = JOINED.match(text, scan.at)
    if match is None:
        return None
    scan.at = match.end()
    scan.pass_loras()
    operator = f".{match[1]}"
    if text[scan.at :].strip():
        raise RecipeError("", f"{operator}(...) has to end the prompt, but {_shown(text[scan.at :].strip())} follows. Put it into one of the quotes.")  # fmt: skip
    arguments = [argument.strip() for argument in match[2].split(",")] if match[2].strip() else []
    normalize = not (operator == ".blend" and arguments[-1:] == ["no_normalize"])
    weights = _weights(operator, arguments if normalize else arguments[:-1], len(targets))
    if operator == ".blend":
        if normalize and isclose(sum(weights), 0, abs_tol=TINY):
            raise RecipeError("", "the weights of .blend(...) add up to 0, and it divides by their sum. Give others, or no_normalize as the last argument.")  # fmt: skip
        return Conjunction(((Blend(tuple(targets), weights, normalize), 1.0),), tuple(scan.loras))
    return Conjunction(tuple(zip(targets, weights, strict=True)), tuple(scan.loras))


def _weights(operator: str, arguments: list[str], n: int) -> tuple[float, ...]:
    try:
        weights = tuple(map(float, arguments)) or (1.0,) * n
    except ValueError:
        weights = (float("nan"),)
    if len(weights) != n or not all(map(isfinite, weights)):
        raise RecipeError("", f"{operator}({_shown(', '.join(arguments))}) should have {n} weights, one for each prompt, or none. Write numbers between commas.")  # fmt: skip
    return tuple(map(bounded, weights))


class _Scan:
    """What was read of a text so far. strict: within quotes, where nothing may be left over.

    `found` has words and the bracket they lie in; `outer` and `own` have each bracket's surrounding one and its weight (0: none).
    """

    def __init__(self, text: str, at: int = 0, strict: bool = False) -> None:
        self.text, self.at, self.strict = text, at, strict
        self.found: list[tuple[str, int]] = []
        self.loras: list[tuple[str, float]] = []
        self.outer, self.own = [0], [1.0]
        self.failed = set[int]()

    def pieces(self) -> tuple[Piece, ...]:
        whole = [1.0]
        for outer, own in zip(self.outer[1:], self.own[1:], strict=True):
            whole.append(whole[outer] * own)
        made: list[tuple[list[str], float]] = []
        for words, bracket in self.found:
            if not made or not isclose(made[-1][1], whole[bracket], rel_tol=TINY):
                made.append(([], whole[bracket]))
            made[-1][0].append(UNESCAPED.sub(r"\1", words))
        return tuple(Piece(" ".join(words), bounded(weight)) for words, weight in made) or (Piece(""),)

    def run(self, one: bool = False) -> bool:
        """Read to the end; or, of `one` group that begins here, to its end. False if it is none, or what is strict leaves something over."""
        text, stack = self.text, list[tuple[int, int, int, int]]()  # where it begins; how much was found; its bracket
        while True:
            self.at = _match(SPACE, text, self.at).end()
            sign = text[self.at : self.at + 1]
            inside = bool(stack) or self.strict
            inner = None
            if not sign:
                if not stack:
                    return True
            elif lora := LORA.match(text, self.at):
                self.at = lora.end()
                self.loras.append((lora[1], bounded(float(lora[2] or 1))))
                continue
            elif sign == "(" and self.at not in self.failed:
                stack.append((self.at, len(self.found), len(self.loras), self.bracket(stack)))
                self.at += 1
                continue
            elif sign == ")" and stack:
                bracket = stack.pop()[3]
                self.at += 1
                if one and not stack:
                    return True
                self.own[bracket] = self.operator()
                continue
            elif sign == '"' and (inner := self.quoted()):
                self.take(inner, self.bracket(stack))
                continue
            elif (word := WORD.match(text, self.at)) and (inside or self.weighs(word.end())):
                self.at = word.end()
                bracket = self.bracket(stack)
                self.own[bracket] = self.operator(numbers=False)
                self.found.append((word[0], bracket))
                continue
            elif inside and sign in ",.":
                self.found.append((sign, stack[-1][3] if stack else 0))
                self.at += 1
                continue
            if stack:  # all these brackets are none; from the outermost on it is words
                self.failed.update(start for start, *_ in stack)
                self.at, found, loras, _ = stack[0]
                del self.found[found:], self.loras[loras:], stack[:]
            if one or self.strict:
                return False
            free = _match(FREE, text, self.at)
            self.found.append((free[0], 0))
            self.at = free.end()

    def target(self) -> _Scan | None:
        """One of the prompts of a blend or a conjunction."""
        match = QUOTED.match(self.text, self.at)
        if match:
            inner = self.quoted()
            if inner is None:
                inner = _Scan(match[1])
                inner.run()
                self.at = match.end()
            return inner
        inner = _Scan(self.text, self.at)
        if self.text.startswith("(", self.at):
            if not inner.run(one=True):
                return None
        elif word := WORD.match(self.text, self.at):
            inner.found.append((word[0], 0))
            inner.at = word.end()
        else:
            return None
        self.at = inner.at
        return inner

    def quoted(self) -> _Scan | None:
        """What stands between quotes here, if it is all of words and groups."""
        match = QUOTED.match(self.text, self.at)
        inner = _Scan(match[1], strict=True) if match else None
        if match is None or inner is None or not inner.run():
            return None
        self.at = match.end()
        return inner

    def take(self, inner: _Scan, bracket: int) -> None:
        """What quotes have in them, as a group of its own."""
        self.own[bracket] = self.operator()
        first = len(self.own) - 1
        self.outer += [outer + first if outer else bracket for outer in inner.outer[1:]]
        self.own += inner.own[1:]
        self.found += [(words, own + first if own else bracket) for words, own in inner.found]
        self.loras += inner.loras

    def pass_loras(self) -> None:
        self.at = _match(SPACE, self.text, self.at).end()
        while lora := LORA.match(self.text, self.at):
            self.loras.append((lora[1], bounded(float(lora[2] or 1))))
            self.at = _match(SPACE, self.text, lora.end()).end()

    def bracket(self, stack: list[tuple[int, int, int, int]]) -> int:
        self.outer.append(stack[-1][3] if stack else 0)
        self.own.append(1.0)
        return len(self.own) - 1

    def weighs(self, at: int) -> bool:
        return self.text.startswith(("+", "-"), at) or any(p.match(self.text, at) for p in (ATTEND, SWAP))

    def operator(self, numbers: bool = True) -> float:
        """The weight that is said right here of what ends here; 1 if none is."""
        text, at = self.text, self.at
        if swap := SWAP.match(text, at):
            note(
                f"{_shown(swap[0].strip())} asks for the pattern of one picture with other words; infuse paints the words before it."
            )
            self.at = swap.end()
            return 1.0
        match = ATTEND.match(text, at)
        said = match[1] if match else ""
        if match is None:
            match = SIGNS.match(text, at)
            if match is None or (match[0][0] not in "+-" and not numbers):
                return 1.0
            said = match[0]
        self.at = match.end()
        if said[0] in "+-":
            return (PLUS if said[0] == "+" else MINUS) ** min(len(said), MOST_SIGNS)
        return float(said)


def _match(pattern: re.Pattern[str], text: str, at: int) -> re.Match[str]:
    match = pattern.match(text, at)
    assert match
    return match


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")

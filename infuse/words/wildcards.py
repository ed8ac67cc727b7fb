"""`{red|blue} __animal__` is one of many texts: one by chance and seed, or all of them in order.

`templates` has the grammar, `shelf` the files. Chance is Python's own, begun with the seed alone, so that what is added at a
prompt's end does not change what was chosen before it; other programs choose otherwise by the same seed.

Source: adieyal/dynamicprompts@58815af src/dynamicprompts/samplers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from random import Random

from infuse.errors import CapacityError, RecipeError
from infuse.notices import note
from infuse.words.comments import without_comments
from infuse.words.shelf import Shelf
from infuse.words.templates import Group, Lines, Node, Nodes, Variable, Wrap, parse, plain

DEEPEST = 40
"""Choices within choices, those in files included."""
LONGEST = 1 << 20
MOST_CHOICES = 30_000
"""For one text."""
DOTS = ("...", "…")

Values = Mapping[str, Nodes]
Said = tuple[str, Values]
"""A text, and what variables are after it."""


def has_choice(text: str) -> bool:
    """Does it say anything but words? No file is looked at."""
    return any(sign in text for sign in ("{", "__")) and not plain(parse(text))


def chosen(text: str, seed: int, folders: Sequence[Path | str] = ()) -> str:
    """One of the texts that a prompt stands for: the same for the same seed, as long as the files in `folders` are.

    Groups in turns ({@a|b}) and those that say all ({!a|b}) give the next one with the next seed. A name that no file has stays, and is
    noted. Raises RecipeError for a variable that is nothing and a file that is none, CapacityError for a text without end.
    """
    if not has_choice(text):
        return text
    return next(_Choice(folders, seed, spread=False).all(parse(text), {}, "~"))[0]


def all_of(text: str, folders: Sequence[Path | str] = (), most: int = 100, seed: int = 0) -> tuple[str, ...]:
    """All texts that a prompt stands for, the first choice changing slowest; each once, and at most so many.

    Groups by chance ({~a|b}) and variables that are evaluated at once are not spread out: they are chosen by seed. Raises as `chosen`.
    """
    if not has_choice(text):
        return (text,)
    found: dict[str, None] = {}
    tries = 1000 + 100 * most  # of texts that may be the same
    choice = _Choice(folders, seed, spread=True)
    for said, _ in choice.all(parse(text), {}, "!"):
        found[said] = None
        choice.count = 0
        tries -= 1
        if len(found) >= most or not tries:
            break
    return tuple(found)


class _Choice:
    """What is chosen for one text. `sampler`: "~" by chance, "!" all, "@" in turns."""

    def __init__(self, folders: Sequence[Path | str], seed: int, spread: bool) -> None:
        self.shelf, self.seed, self.chance, self.spread = Shelf(folders), seed, Random(seed), spread
        self.count = 0
        self.turns: dict[int, int] = {}
        self.read: dict[str, tuple[tuple[float, Nodes], ...]] = {}

    def all(self, nodes: Sequence[Node], values: Values, sampler: str, deep: int = 0) -> Iterator[Said]:
        """Texts of nodes that stand one after another. By chance that is one."""
        if not nodes:
            yield "", values
            return
        waiting = [self.one(nodes[0], values, sampler, deep)]
        texts: list[str] = []
        length = 0
        while waiting:
            del texts[len(waiting) - 1 :]
            said = next(waiting[-1], None)
            if said is None:
                waiting.pop()
                continue
            texts.append(said[0])
            if len(texts) < len(nodes):
                waiting.append(self.one(nodes[len(texts)], said[1], sampler, deep))
                continue
            whole = "".join(texts)
            length = len(whole)
            if length > LONGEST:
                raise CapacityError(
                    "",
                    f"the prompt's choices make a text of more than {LONGEST >> 20} MiB. Let fewer of them lie in each other.",
                )
            yield whole, said[1]

    def one(self, node: Node, values: Values, sampler: str, deep: int) -> Iterator[Said]:
        if isinstance(node, str):
            yield node, values
            return
        self.count += 1
        if self.count > MOST_CHOICES:
            raise CapacityError(
                "",
                f"the prompt's choices lead to more than {MOST_CHOICES} others. Let fewer of them lie in each other.",
            )
        yield from self._within(node, values, sampler, deep + 1)

    def _within(self, node: Node, values: Values, sampler: str, deep: int) -> Iterator[Said]:
        if isinstance(node, Group):
            options = node.options
            if len(options) == 1 and len(options[0][1]) == 1 and isinstance(inner := options[0][1][0], Lines):
                options = self.lines(inner, deep) or options  # {2$$__name__}: two different lines
            yield from self.group(node, options, values, node.sampler or sampler, deep)
        elif isinstance(node, Lines):
            options = self.lines(node, deep)
            given = dict(values)
            for name, nodes, now in node.values if options else ():
                given[name] = self.now(nodes, given, deep) if now else nodes
            if options:
                for text, _ in self.group(Group(options), options, given, node.sampler or sampler, deep):
                    yield text, values
            else:
                yield node.text, values
        elif isinstance(node, Wrap):
            for around, after in self.all(node.around, values, sampler, deep):
                for inner, then in self.all(node.inner, after, sampler, deep):
                    dots = next((dots for dots in DOTS if dots in around), "")
                    yield (around.replace(dots, inner) if dots else around + inner), then
        elif isinstance(node, Variable):
            yield from self.variable(node, values, sampler, deep)

    def variable(self, node: Variable, values: Values, sampler: str, deep: int) -> Iterator[Said]:
        if "=" in node.sign:
            if node.sign == "=" or node.name not in values:
                values = {**values, node.name: self.now(node.nodes, values, deep) if node.now else node.nodes}
            yield "", values
            return
        if node.name not in values and node.sign != ":":
            raise RecipeError(
                "",
                f"${{{node.name}}} is nothing yet. Say ${{{node.name}=...}} before it, or ${{{node.name}:...}} with what it is else.",
            )
        if deep > DEEPEST:
            raise RecipeError("", f"${{{node.name}}} leads to itself again. Let it stand for something else.")
        for text, _ in self.all(values.get(node.name, node.nodes), values, sampler, deep):
            yield text, values

    def group(
        self, node: Group, options: Sequence[tuple[float, Nodes]], values: Values, sampler: str, deep: int
    ) -> Iterator[Said]:
        most = min(len(options) if node.most is None else node.most, len(options))
        least = min(node.least, most)
        for picks in self.picks(options, least, most, sampler):
            run: list[Node] = []
            for i, pick in enumerate(picks):
                run += [node.between, *options[pick][1]] if i else options[pick][1]
            yield from self.all(run, values, sampler, deep)

    def picks(
        self, options: Sequence[tuple[float, Nodes]], least: int, most: int, sampler: str
    ) -> Iterator[tuple[int, ...]]:
        """Which options are said together, in which order."""
        if sampler == "!" and self.spread:
            for n in range(least, most + 1):
                yield from permutations(range(len(options)), n)
        elif sampler in ("@", "!"):
            first = self.turns.get(id(options), self.seed)
            self.turns[id(options)] = first + 1
            yield tuple((first + i) % len(options) for i in range(max(least, min(1, most))))
        else:
            left, picked = list(range(len(options))), list[int]()
            for _ in range(self.chance.randint(least, most)):
                weights = [options[i][0] for i in left]
                picked.append(self.chance.choices(left, weights if sum(weights) > 0 else None)[0])
                left.remove(picked[-1])
            yield tuple(picked)

    def lines(self, node: Lines, deep: int) -> tuple[tuple[float, Nodes], ...]:
        """What a name stands for; nothing where there is no such file, or it leads back to itself."""
        if deep > DEEPEST:
            note(
                f"{node.text} leads to itself again; where it does so for the {DEEPEST}th time it is painted as it stands."
            )
            return ()
        if node.name not in self.read:
            values = self.shelf.values(node.name)
            self.read[node.name] = tuple((weight, parse(without_comments(text))) for weight, text in values)
        return self.read[node.name]

    def now(self, nodes: Nodes, values: Values, deep: int) -> Nodes:
        return (next(self.all(nodes, values, "~", deep))[0],)

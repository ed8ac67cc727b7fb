"""What was understood of a prompt, for people: its parts, when what is said, which words weigh, what it names, what was adjusted.

`understood` has it as data, `lines` says it. Nothing is encoded, no file is looked at: styles and choices come before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from infuse.errors import under
from infuse.notices import gathers
from infuse.words import compel, emphasis, schedule, sums, tags
from infuse.words.emphasis import Piece
from infuse.words.tags import Tag

SHOWN = 70
"""Characters of a text."""
MOST_TURNS, MOST_WEIGHTS = 6, 24


@dataclass(frozen=True)
class Turn:
    """What is said from evaluation `first` to `last`, counted from 1, both included."""

    first: int
    last: int
    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class PartSaid:
    """One of the prompts of a sum, or of compel's `.and` and `.blend`, with its weight."""

    weight: float
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class Understood:
    """A prompt. `how`: what joins its parts: "" (there is one), "AND", ".and" or ".blend". notes: what was adjusted, in sentences."""

    parts: tuple[PartSaid, ...]
    how: str = ""
    networks: tuple[Tag, ...] = ()
    embeddings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def weights(self) -> dict[str, float]:
        """Words that weigh other than 1, in order."""
        pieces = (piece for part in self.parts for turn in part.turns for piece in turn.pieces)
        return {piece.text.strip(): piece.weight for piece in pieces if piece.weight != 1 and piece.text.strip()}

    @property
    def breaks(self) -> int:
        """New chunks that are asked for, at most, at any time."""
        return max(sum(piece.cut for piece in turn.pieces) for part in self.parts for turn in part.turns)


def understood(prompt: str, syntax: str = "webui", n: int = 1, *, negative: bool = False, embeddings: Collection[str] = ()) -> Understood:  # fmt: skip
    """What a prompt says in a syntax (webui, compel, plain), in n evaluations. negative: it is the negative one, which names no networks
    and is no sum. embeddings: the words that stand for vectors.

    Raises RecipeError for what a recipe may not say (see `tags.networks`, `compel.read`).
    """
    with gathers() as notes:
        made = _understood(prompt, syntax, max(n, 1), negative)
    said = prompt.lower()
    named = tuple(name for name in embeddings if name.lower() in said)
    return Understood(made.parts, made.how, made.networks, named, tuple(notes))


def _understood(prompt: str, syntax: str, n: int, negative: bool) -> Understood:
    if syntax == "plain":
        return Understood((PartSaid(1.0, (Turn(1, n, prompt, (Piece(prompt),)),)),))
    if syntax == "compel":
        read = compel.read(prompt)
        loras = tuple(Tag("lora", name, weight, weight) for name, weight in read.loras)
        first, _ = read.parts[0]
        if isinstance(first, compel.Blend):
            pairs, how = tuple(zip(first.texts, first.weights, strict=True)), ".blend"
        else:
            pairs = tuple((run, weight) for run, weight in read.parts if not isinstance(run, compel.Blend))
            how = ".and" if len(pairs) > 1 else ""
        parts = tuple(PartSaid(w, (Turn(1, n, " ".join(piece.text for piece in run), run),)) for run, w in pairs)
        return Understood(parts, how, loras)
    text, named = (prompt, ()) if negative else tags.networks(prompt)
    summed = ((text, 1.0),) if negative else sums.parts(text)
    parts = tuple(PartSaid(weight, tuple(_turns(words, n))) for words, weight in summed)
    return Understood(parts, "AND" if len(parts) > 1 else "", named)


def _turns(text: str, n: int) -> Iterator[Turn]:
    """Neighbours that say the same are one."""
    entries = schedule.entries(text, n)
    first, now = 0, entries[0][1]
    for k in range(1, n + 1):
        following = schedule.at(entries, k) if k < n and len(entries) > 1 else now
        if following != now or k == n:
            yield Turn(first + 1, k, now, emphasis.pieces(now))
            first, now = k, following


def lines(
    prompt: str, negative: str = "", syntax: str = "webui", n: int = 1, embeddings: Collection[str] = ()
) -> list[str]:
    """The same of both prompts, in lines of plain text; of a prompt that is words alone, nothing but these."""
    made = list[str]()
    for field, text in (("prompt", prompt), ("negative_prompt", negative)):
        if field == "prompt" or text:
            with under(field):
                found = understood(text, syntax, n, negative=field != "prompt", embeddings=embeddings)
            made += _lines(field, found)
    return made


def _lines(field: str, found: Understood) -> Iterator[str]:
    weight = _weight(found.parts[0].weight)
    of_all = f"{weight} for all of it" if weight else ""
    if not found.how and len(found.parts[0].turns) == 1:
        yield f"{field}: {_shown(found.parts[0].turns[0])}{of_all}"
    else:
        joins = {"AND": "prompts that are added", ".and": "prompts one after another", ".blend": "prompts, averaged"}
        yield f"{field}: {len(found.parts)} {joins[found.how]}" if found.how else f"{field}: changes on the way{of_all}"
        for part in found.parts:
            yield from (f"  {line}" for line in _part(part, bool(found.how)))
    weights = found.weights
    if weights:
        shown = [f"{_cut(words)} {weight:.4g}" for words, weight in list(weights.items())[:MOST_WEIGHTS]]
        yield f"  weights: {', '.join(shown)}{_more(len(weights), MOST_WEIGHTS)}"
    if found.breaks:
        yield f"  BREAK: {found.breaks + 1} chunks or more, where it stands"
    for tag in found.networks:
        strength = f"{tag.unet:g}" if tag.text == tag.unet else f"{tag.unet:g}, text {tag.text:g}"
        yield f"  {tag.kind} {tag.name}: {', '.join([strength, *(f'{name}={value}' for name, value in tag.options.items())])}"
    if found.embeddings:
        yield f"  embeddings: {', '.join(found.embeddings)}"
    yield from (f"  note: {note}" for note in found.notes)


def _part(part: PartSaid, several: bool) -> Iterator[str]:
    if len(part.turns) == 1:
        yield f"{_shown(part.turns[0])}{_weight(part.weight) or ', weight 1'}"
        return
    if several:
        yield f"changes on the way{_weight(part.weight) or ', weight 1'}"
    for turn in part.turns[:MOST_TURNS]:
        span = f"evaluation {turn.first}" if turn.first == turn.last else f"evaluations {turn.first}-{turn.last}"
        yield f"{'  ' * several}{span}: {_shown(turn)}"
    if more := _more(len(part.turns), MOST_TURNS):
        yield f"{'  ' * several}{more.lstrip(', ')}"


def _shown(turn: Turn) -> str:
    """The words as they are painted, without their syntax."""
    words = " | ".join(map(_joined, _runs(turn.pieces)))
    return _cut(" ".join(words.split())) if words.strip() else "(nothing)"


def _joined(pieces: list[Piece]) -> str:
    """Each piece is spelled by itself, so that a word ends where a piece does."""
    words = ""
    for piece in pieces:
        words += " " * (words[-1:].isalnum() and piece.text[:1].isalnum()) + piece.text
    return words


def _runs(pieces: tuple[Piece, ...]) -> list[list[Piece]]:
    """Between breaks."""
    made: list[list[Piece]] = [[]]
    for piece in pieces:
        if piece.cut:
            made.append([])
        else:
            made[-1].append(piece)
    return made


def _weight(weight: float) -> str:
    return "" if weight == 1 else f", weight {weight:g}"


def _more(n: int, most: int) -> str:
    return f", ... ({n} in all)" if n > most else ""


def _cut(text: str) -> str:
    half = (SHOWN - 5) // 2
    return text if len(text) <= SHOWN else f"{text[:half]} ... {text[-half:]}"

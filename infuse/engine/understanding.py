"""What was understood of a recipe's words: what is said when, how loudly, in how many tokens, and by which LoRAs and embeddings.

`lines` is what `infuse check` prints, `plain` what a record keeps, `odd` what is warned of. All of it is asked of what has been
resolved, and imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import PurePath
from typing import Any, Protocol

from infuse.conditions.base import Condition, Route
from infuse.conditions.lora import Lora, OfWords
from infuse.curves import span
from infuse.encoders.chunks import BREAK, CHUNK, MOST_CHUNKS, Run, at_sentences, filled
from infuse.encoders.embeddings import Names
from infuse.encoders.prompt_syntax import words as unescaped
from infuse.engine.carried import public
from infuse.errors import CapacityError
from infuse.notices import gathers
from infuse.recipe import Recipe
from infuse.timetable import Timetable
from infuse.weights.spelling import spelling
from infuse.words import compel, sums, tags, understood
from infuse.words.comments import without_comments
from infuse.words.emphasis import Piece, pieces
from infuse.words.wording import Wording

LABELS = {"prompt": "prompt", "prompt_2": "prompt 2", "negative_prompt": "negative", "negative_prompt_2": "negative 2"}
MOST_TOKENS = CHUNK * MOST_CHUNKS
MOST_TURNS = 64
"""Of a prompt that changes on the way: how many a record keeps."""
MOST_SAID = 20_000
"""Characters of these."""
MOST_TEXTS = 20
"""Of a prompt that changes on the way: how many are looked at for what is hardly meant."""
MOST_PICTURES = 4
"""Whose words are shown, where each has its own."""


class Speller(Protocol):
    """A tokenizer: `weights.spelling.Spelling`, or that of a base that is loaded."""

    def ids(self, text: str) -> list[int]: ...
    def written(self, ids: Sequence[int]) -> list[str]: ...
    @property
    def comma(self) -> int: ...


@dataclass(frozen=True)
class Reads:
    """What tokens are counted with: the base's tokenizer, and how many places each word that is vectors takes."""

    speller: Speller
    places: Mapping[str, int]


class Resolved(Protocol):
    """What is asked of an `engine.resolve.Resolved`."""

    @property
    def asked(self) -> Recipe: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def speakers(self) -> Mapping[str, Condition]: ...
    @property
    def timetable(self) -> Timetable: ...
    @property
    def routes(self) -> Sequence[tuple[str, str, Route]]: ...
    @property
    def wording(self) -> Wording: ...
    @property
    def each(self) -> Sequence[Resolved]: ...
    @property
    def reads(self) -> Reads: ...


@dataclass(frozen=True)
class Loaded:
    """The tokenizer of a base that is there."""

    tokenizer: Any

    def ids(self, text: str) -> list[int]:
        from infuse.encoders.reader import spelled

        return spelled(self.tokenizer, text)

    def written(self, ids: Sequence[int]) -> list[str]:
        from infuse.encoders.reader import written

        return written(self.tokenizer, ids)

    @property
    def comma(self) -> int:
        return self.ids(",")[0]


def reads(store: Any, model: str, how: Wording) -> Reads:
    """Of a base, without loading it."""
    from infuse.weights.layouts.textual_inversion import outline

    base = store.at_hand(model)
    speller = spelling(store.library.find(model)) if base is None else Loaded(base.texts.tokenizers[0])
    places: dict[str, int] = {}
    for word, name in how.embeddings:
        own = store.own(name)
        places[word] = outline(store.library.find(name, "embeddings")).places[-1] if own is None else own.places
    return Reads(speller, places)


def odd(texts: Mapping[str, str], how: Wording) -> list[str]:
    """What of these texts (by field) is read otherwise than it may be meant, in sentences."""
    out: list[str] = []
    for field, text in texts.items():
        if how.syntax != "webui" or not text:
            continue
        with gathers() as notes:
            for said in islice(dict.fromkeys(said for _, said in how.entries(text)), MOST_TEXTS):
                pieces(said)
        out += [f"{field}: {note}" for note in notes]
    return out


def must_fit(texts: Mapping[str, str], how: Wording, counting: Callable[[], Reads]) -> None:
    """Raises CapacityError for a text (by field) of more than 32 chunks. Counts only those that may be: a token has a letter at least."""
    for field, text in texts.items():
        if len(text) > MOST_TOKENS or text.count("BREAK") >= MOST_CHUNKS:
            try:
                with gathers():
                    counted(_bare(text, field, how), how, counting(), field == "prompt")
            except CapacityError as error:
                raise CapacityError(field, error.message) from None


def lines(found: Resolved) -> Iterator[tuple[str, str]]:
    """(label, text): each line of what was understood. Of words alone: how many tokens they are."""
    if found.each:
        for one in found.each[:MOST_PICTURES]:
            yield "seed", f"{one.asked.seeds[0]}, whose words are its own:"
            yield from _lines(one)
        if len(found.each) > MOST_PICTURES:
            yield "", f"... and {len(found.each) - MOST_PICTURES} pictures more"
    else:
        yield from _lines(found)


def _lines(found: Resolved) -> Iterator[tuple[str, str]]:
    how, recipe, reads = found.wording, found.recipe, found.reads
    told = [f"syntax {how.syntax}"] * (how.syntax != "webui")
    told += [f"emphasis {how.emphasis}"] * (how.emphasis != "original")
    told += [f"clip skip {how.clip_skip}, where 1 is the last layer"] * (how.clip_skip is not None)
    if told:
        yield "words", ", ".join(told)
    for label, field, text in _texts(recipe):
        bare = _bare(text, field, how)
        first, *more = _field(bare, field, how)
        yield label, f"{first}; {counted(bare, how, reads, field == 'prompt')}"
        yield from (("", line) for line in more)
    yield from (("lora", text) for text in loras(found))
    yield from (("embedding", text) for text in embeddings(how, reads.places))


def _bare(text: str, field: str, how: Wording) -> str:
    """Without comments, and tags of networks, which have lines of their own."""
    if how.syntax != "webui":
        return text
    with gathers():  # told already
        text = without_comments(text)
        return tags.networks(text)[0].strip() if field == "prompt" else text


def _texts(recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """(label, field, text) of all words of a recipe. Only "prompt" may be a sum, and names networks."""
    for field, label in LABELS.items():
        if text := getattr(recipe, field):
            yield label, field, text
    for i, c in enumerate(recipe.conditions):
        for field in ("prompt", "negative_prompt"):
            if text := getattr(c, field, None):
                yield f"{i}: {'text' if field == 'prompt' else 'negative'}", f"conditions.{i}.{field}", text
        for k, area in enumerate(getattr(c, "regions", ())):
            if text := getattr(area, "prompt", None):
                yield f"{i}: region {k}"[:10], f"conditions.{i}.regions.{k}", text


def _field(text: str, field: str, how: Wording) -> list[str]:
    """`words.understood`'s lines of one text, without what is told elsewhere."""
    asked = (text, "") if field == "prompt" else ("", text)
    made = understood.lines(*asked, how.syntax, max(how.evaluations, 1))
    kept = [x for x in made[field != "prompt" :] if not x.startswith(("  lora ", "  note: "))]
    return [kept[0].partition(": ")[2], *(x[2:] for x in kept[1:])]


def counted(text: str, how: Wording, reads: Reads, summed: bool = False) -> str:
    """How many tokens a text is, in which chunks: "12 tokens", "106 tokens in 2 chunks (75 + 31)", of a sum each part's."""
    with gathers():  # told already
        parts = [t for t, _ in sums.parts(text)] if summed and how.syntax == "webui" else [text]
        said = []
        for part in parts:
            entries = islice(dict.fromkeys(t for _, t in how.entries(part)), MOST_TEXTS)
            each = max((chunks(t, how, reads) for t in entries), key=lambda c: (len(c), sum(c)))
            said.append(f"{sum(each)} token{'s' * (sum(each) != 1)}")
            if len(each) > 1:
                said[-1] += f" in {len(each)} chunks ({' + '.join(map(str, each))})"
    return " AND ".join(said)


def chunks(text: str, how: Wording, reads: Reads) -> list[int]:
    """How many tokens each chunk has. Counts one for each embedding's vector. Raises CapacityError for more than 32 chunks."""
    speller, places = reads.speller, reads.places
    names = Names({w: speller.ids(w) for w in places}, places)

    def split(said: Sequence[Piece]) -> Iterator[Run]:
        for piece in said:
            if piece.cut:
                yield BREAK
            else:
                for one in names.parts(piece.text):
                    yield from names.runs(speller.ids(one))

    if how.syntax != "compel":
        plain = how.syntax == "plain"
        said = (Piece(unescaped(text)),) if plain else pieces(text)
        return [len(c) for c in filled(split(said), speller.comma, late=plain)]
    out: list[int] = []
    for part, _ in compel.read(text).parts:
        each = part.texts if isinstance(part, compel.Blend) else (part,)
        out += max(
            ([len(c) for c in at_sentences(split(t), speller.written)] for t in each), key=lambda c: (len(c), sum(c))
        )
    return out


def loras(found: Resolved) -> Iterator[str]:
    """A line for each that is heard: its strength, in which evaluations, and what it changes."""
    told = {where: route.shape for where, kind, route in found.routes if kind == "lora"}
    n = len(found.timetable)
    for who, c in found.speakers.items():
        if not isinstance(c, Lora):
            continue
        low, high = (0.0, 0.0) if isinstance(c, OfWords) else span(c.weight)
        said = [f"{public(c.model)} {low:g}" + f" to {high:g}" * (low != high)]
        if c.text_weight is not None or (c.factors and c.factors[0] != 1):
            said[0] += f" (text encoders {c.text_strength:g})"
        if c.blocks is not None:
            said.append(f"blocks {c.blocks if isinstance(c.blocks, str) else ' '.join(f'{b:g}' for b in c.blocks)}")
        heard = [k for k, e in enumerate(found.timetable, 1) if who in e.weights]
        if len(heard) < n:
            said.append(f"evaluations {heard[0]}-{heard[-1]} of {n}")
        said += ["where its mask is"] * (c.mask is not None) + ["merged"] * c.merge
        yield f"{', '.join(said)}: {told.get(who, '')}"


def embeddings(how: Wording, places: Mapping[str, int]) -> Iterator[str]:
    """A line for each that the words name."""
    files: dict[str, list[str]] = {}
    for word, model in how.embeddings:
        files.setdefault(model, []).append(word)
    for model, words in files.items():
        word = max(words, key=len)
        n = places.get(word, 1)
        file = "" if model == word.strip("<>") else f", from {PurePath(model).name}"
        yield f"{word}: {n} vector{'s' * (n != 1)}{file}"


def plain(found: Resolved, asked: Recipe | None = None) -> dict[str, Any]:
    """What a record keeps of it, as far as it differs from what was asked: words with all choices made, parts, turns, LoRAs,
    embeddings. Where each picture has words of its own: "pictures", by seed."""
    if found.each:
        return {"pictures": {str(one.asked.seeds[0]): plain(one, found.asked) for one in found.each}}
    how, made, asked = found.wording, found.recipe, asked or found.asked
    out: dict[str, Any] = {f: t for f in LABELS if (t := getattr(made, f)) and t != getattr(asked, f)}
    bare = _bare(made.prompt, "prompt", how)
    with gathers():
        parts = sums.parts(bare) if how.syntax == "webui" else ((bare, 1.0),)
        if len(parts) > 1 or any(weight != 1 for _, weight in parts):
            out["parts"] = [{"prompt": text.strip(), "weight": weight} for text, weight in parts]
        for field in LABELS:
            turns = [
                [end, *texts] for end, texts, _ in _changing(bare if field == "prompt" else getattr(made, field), how)
            ]
            if len(turns) > 1:
                most = max(2, min(MOST_TURNS, MOST_SAID // max(len(turns[0][1]), 1)))
                out.setdefault("until", {})[field] = turns[:most]
    said = {
        public(c.model): c.weight
        for who, c in found.speakers.items()
        if isinstance(c, Lora) and who.startswith("prompt ")
    }
    return (
        out
        | ({"loras": said} if said else {})
        | ({"embeddings": {w: public(m) for w, m in how.embeddings}} if how.embeddings else {})
    )


def _changing(text: str | None, how: Wording) -> list[Any]:
    return replace(how, edits=()).turns(text) if text else []

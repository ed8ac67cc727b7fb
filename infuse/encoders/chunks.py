"""Tokens fill chunks of 75, and an encoder reads each by itself. Where a chunk ends is a rule: the webui's, or compel's.

Source: lllyasviel/stable-diffusion-webui-forge@dfdcbab backend/text_processing/classic_engine.py, damian0815/compel@c60b9fb
embeddings_provider.py. Unlike in the webuis, an embedding that the comma rule moves arrives with its vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from infuse.errors import CapacityError

CHUNK = 75
LOOK_BACK = 20
"""A chunk that is full ends at a comma, if there is one among its last tokens (webui's rule)."""
MOST_CHUNKS = 32


class Token(NamedTuple):
    """A place in a chunk."""

    id: int
    weight: float = 1.0
    piece: int = 0
    """Which of the prompt's weighted pieces said it."""
    begins: str = ""
    """The embedding whose vectors stand from here on."""
    inside: bool = False
    """A place of an embedding that began before."""


Run = tuple[Token, ...]
"""What stays together: one token, or the places of an embedding."""
BREAK: Run = ()
"""Ends a chunk, even an empty one."""
Chunk = list[Token]


def filled(runs: Iterable[Run], comma: int, late: bool = False) -> list[Chunk]:
    """The webui's chunks: at least one, which may be empty.

    A full chunk ends after its last comma, if that is among the last 20, and what came after moves on. The webui doesn't look
    for one when the 76th token is a comma itself; `late` does. Raises CapacityError if there are more than 32.
    """
    chunks: list[Chunk] = []
    chunk: Chunk = []
    comma_at = -1

    def close(end: int) -> None:
        nonlocal chunk, comma_at
        chunks.append(chunk[:end])
        chunk, comma_at = chunk[end:], -1

    for run in runs:
        if run == BREAK:
            close(len(chunk))
            continue
        is_comma = run[0].id == comma and not run[0].begins
        if len(chunk) == CHUNK and (late or not is_comma) and comma_at >= 0 and CHUNK - comma_at <= LOOK_BACK:
            close(comma_at + 1)
        if len(chunk) + len(run) > CHUNK:
            close(len(chunk))
        if is_comma:
            comma_at = len(chunk)
        chunk.extend(run)
    if chunk or not chunks:
        close(len(chunk))
    allowed(len(chunks))
    return chunks


SENTENCE, PHRASE = (".</w>",), (".</w>", ",</w>", ";</w>", ":</w>")


def at_sentences(runs: Iterable[Run], spelling: Callable[[Sequence[int]], Sequence[str]]) -> list[Chunk]:
    """compel's chunks: what is longer than 75 ends at its last sentence, else phrase, else word within the first 75.

    `spelling`: ids to tokens as written. Raises CapacityError if there are more than 32.
    """
    tokens = [token for run in runs for token in run]
    chunks: list[Chunk] = []
    while len(tokens) > CHUNK:
        written = spelling([t.id for t in tokens[:CHUNK]])
        ends = [i + 1 for i in range(CHUNK) if not tokens[i + 1].inside]  # an embedding is not divided
        rules: tuple[Callable[[str], bool], ...] = (
            SENTENCE.__contains__, PHRASE.__contains__, lambda token: token.endswith("</w>"), lambda _: True
        )  # fmt: skip
        cut = next(found[-1] for rule in rules if (found := [end for end in ends if rule(written[end - 1])]))
        chunks.append(tokens[:cut])
        tokens = tokens[cut:]
    chunks.append(tokens)
    allowed(len(chunks))
    return chunks


def allowed(n: int) -> int:
    """Raises CapacityError for more than 32 chunks."""
    if n > MOST_CHUNKS:
        raise CapacityError(
            "prompt", f"it takes {n} chunks of {CHUNK} tokens; the limit is {MOST_CHUNKS}. Say it shorter."
        )
    return n

"""A textual inversion is a few vectors with a name. Wherever the name's tokens are met, the vectors stand instead of them.

Names are matched by exact ids, at any token, the longest first (webui; lllyasviel/stable-diffusion-webui-forge@dfdcbab
backend/text_processing/textual_inversion.py). CLIP's tokenizer knows no capitals, so names have none either.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from infuse.encoders.chunks import CHUNK, Run, Token
from infuse.errors import RecipeError

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

MOST = CHUNK
"""Vectors of one embedding: it is never divided between chunks."""
FOR = {
    (768,): "SD 1.x (width 768)",
    (1024,): "SD 2.x (width 1024)",
    (768, 1280): "SDXL (widths 768 and 1280)",
    (1280,): "SDXL's refiner (width 1280)",
}
"""Widths of the text encoders -> whose they are."""
HOLDER = 0
"""The id of a place that a vector takes."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """`vectors`: (n d) for each text encoder. n may differ; the last encoder's is the number of places they take together."""

    name: str
    vectors: tuple[Float[Tensor, "n d"], ...]

    @property
    def places(self) -> int:
        return len(self.vectors[-1])

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(v.shape[-1] for v in self.vectors)

    def fitted(self, widths: Sequence[int]) -> tuple[Float[Tensor, "n d"], ...]:
        """The vectors for encoders of these widths. Raises RecipeError if it was trained for others."""
        theirs = fitting(self.name, self.widths, widths)
        return self.vectors[-len(theirs) :]


def fitting(name: str, own: Sequence[int], widths: Sequence[int]) -> tuple[int, ...]:
    """Which of an embedding's widths are used by encoders of `widths`: all, or of an SDXL pair the last, by its refiner.

    Raises RecipeError that names both families.
    """
    for used in (tuple(own), tuple(own[1:])):
        if used == tuple(widths):
            return used
    raise RecipeError(
        "embeddings",
        f'"{name}" was trained for {family(own)}, this recipe\'s base is of {family(widths)}. Choose an embedding for that '
        "family, or another base.",
    )


def family(widths: Sequence[int]) -> str:
    """Whose text encoders are so wide."""
    return FOR.get(tuple(widths)) or f"encoders of width {' and '.join(map(str, widths))}"


class Names:
    """Names of embeddings, as one tokenizer spells them."""

    def __init__(self, spelled: Mapping[str, Sequence[int]], places: Mapping[str, int]) -> None:
        """name -> its ids, and how many places its vectors take. Raises RecipeError for a name without any token."""
        self._begun: dict[int, list[tuple[tuple[int, ...], str]]] = {}
        self._places = places
        for name, ids in spelled.items():
            if not ids:
                raise RecipeError(
                    "embeddings", f"{name!r} is no name that a prompt could say. Give the embedding another one."
                )
            self._begun.setdefault(ids[0], []).append((tuple(ids), name))
        for names in self._begun.values():
            names.sort(key=lambda one: -len(one[0]))
        marked = sorted((n for n in spelled if n.startswith("<") and n.endswith(">")), key=len, reverse=True)
        self._marked = re.compile(f"({'|'.join(map(re.escape, marked))})", re.IGNORECASE) if marked else None

    def parts(self, text: str) -> list[str]:
        """A text, cut before and after every name in `<>`, as diffusers cuts it: else `<cat>,` ends in the token `>,`, and is not met."""
        return [part for part in self._marked.split(text) if part.strip()] if self._marked else [text]

    def runs(self, ids: Sequence[int], weight: float = 1.0, piece: int = 0) -> Iterator[Run]:
        """Tokens one by one; where a name was, the places of its vectors, all with the weight of the words around."""
        i = 0
        while i < len(ids):
            for spelling, name in self._begun.get(ids[i], ()):
                if tuple(ids[i : i + len(spelling)]) == spelling:
                    first = Token(HOLDER, weight, piece, name)
                    yield (first, *[Token(HOLDER, weight, piece, inside=True)] * (self._places[name] - 1))
                    i += len(spelling)
                    break
            else:
                yield (Token(ids[i], weight, piece),)
                i += 1

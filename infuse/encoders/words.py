"""Words of one recipe to tokens: as its wording reads them, in turns where words or LoRAs of the text encoders change on the way."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from infuse.encoders.text import Embedding, Said, TextEncoders
from infuse.network.edits import Edits, telling
from infuse.ports import Edit, Turning
from infuse.spoken import SpokenEdit
from infuse.words.wording import WordEdit, Wording


@dataclass(eq=False)
class Words:
    """The text encoders of a base, under a wording. `store` finds LoRAs and words that are vectors."""

    base: Any
    """An `encoders.kit.Base`."""
    store: Any
    how: Wording
    _said: dict[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> TextEncoders:
        return self.base.texts

    @property
    def dtype(self) -> torch.dtype:
        return self.base.network.dtype

    @property
    def device(self) -> torch.device:
        return self.base.network.device

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._said:
            self._said[key] = make()
        return self._said[key]

    def text(self, prompt: str, second: str | None = None) -> Float[Tensor, "n d"] | Turning:
        """(77 k, context width) tokens. second: what SDXL's second text encoder reads instead."""
        texts = self.texts

        def encoded(said: Said) -> Tensor:
            return texts.tokens(replace(said, chunks=longest)).to(self.device, self.dtype)

        longest = max((texts.chunks(self._reading(t, s)) for _, (t, s), _ in self._turns(prompt, second)), default=1)
        return self._turning(prompt, second, encoded, f"text {longest}")

    def pooled(self, prompt: str, second: str | None = None) -> Float[Tensor, " e"] | Turning | None:
        """SDXL's pooled text; None for networks that do not hear it."""
        if not self.texts.wide:
            return None

        def encoded(said: Said) -> Tensor:
            pooled = self.texts.pooled(said)
            assert pooled is not None
            return pooled.to(self.device, self.dtype)

        return self._turning(prompt, second, encoded, "pooled")

    def phrase(self, text: str) -> Float[Tensor, " e"]:
        """A few words as one vector, as GLIGEN hears them."""
        edits = tuple(e for e in self.how.edits if not e.heard or e.heard[0])
        with self._edited(edits):
            return self._once(f"phrase {text}", lambda: self.texts.phrase(text).to(self.device, self.dtype))

    def _turns(self, prompt: str, second: str | None) -> list[tuple[int, tuple[str, str | None], tuple[WordEdit, ...]]]:
        said = self.how.turns(prompt, *(() if second is None else (second,)))
        return [(end, (texts[0], texts[1] if len(texts) > 1 else None), edits) for end, texts, edits in said]

    def _reading(self, prompt: str, second: str | None) -> Said:
        how = self.how
        return Said(prompt, second, how.syntax, how.emphasis, how.clip_skip, self._embeddings)

    @cached_property
    def key(self) -> Hashable:
        """What decides how words are read here: the wording, and what its models are now."""
        how = self.how
        named = [("embedding", m) for _, m in how.embeddings] + [("lora", e.model) for e in how.edits]
        return (how, *(self.store.version(model, kind) for kind, model in named))

    @cached_property
    def _embeddings(self) -> Mapping[str, Any]:
        """Words that are vectors, by name."""
        found = {word: self.store.embedding(model, self.base) for word, model in self.how.embeddings}
        for e in self.how.edits:
            bundled = self.store.lora(e.model, self.base, self.dtype, self.device).words
            found = {name: Embedding(name, vectors) for name, vectors in bundled.items()} | found
        return found

    def _turning(
        self, prompt: str, second: str | None, encode: Callable[[Said], Tensor], what: str
    ) -> Tensor | Turning:
        """What an encoder says of a prompt; in turns if words or LoRAs of the text encoders change on the way."""
        ends, values = [], []
        for end, (text, other), edits in self._turns(prompt, second):
            key = f"{what} {text!r} {other!r} {[(e.model, e.strength) for e in edits]}"
            said = self._reading(text, other)
            with self._edited(edits):
                values.append(self._once(key, partial(encode, said)))
            ends.append(self.how.progress(end))
        return values[0] if len(values) == 1 else Turning(tuple(ends), tuple(values))

    def _edited(self, edits: tuple[WordEdit, ...]) -> Any:
        """The text encoders with what these LoRAs add to their layers, until the end of the block."""
        if not edits:
            return telling(None)
        said = [
            SpokenEdit(Edit(self.store.lora(e.model, self.base, self.dtype, self.device)), (0,), (e.strength,), (None,))
            for e in edits
        ]
        return telling(Edits(said))

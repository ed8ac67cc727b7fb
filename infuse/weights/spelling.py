"""How a base's tokenizer spells words, before anything is loaded: counting tokens takes no torch and no transformers.

The same byte-pair encoding as `transformers.CLIPTokenizer`'s, from the base's folder, or CLIP's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from infuse.weights.source import Source
from infuse.weights.tokenizer import END, START, vocabulary

WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What is spelled by itself: words, single digits, and runs of other signs."""
COMMA = ",</w>"


@dataclass(frozen=True)
class Spelling:
    """Text to ids, without start and end."""

    tokenizer: Any
    """A `tokenizers.Tokenizer`."""
    lock: Lock

    def ids(self, text: str) -> list[int]:
        with self.lock:
            return self.tokenizer.encode(text, add_special_tokens=False).ids

    def written(self, ids: Sequence[int]) -> list[str]:
        """The tokens as the vocabulary has them: `cat</w>`."""
        with self.lock:
            return [self.tokenizer.id_to_token(i) or "" for i in ids]

    @property
    def comma(self) -> int:
        with self.lock:
            return self.tokenizer.token_to_id(COMMA)


def spelling(source: Source | None) -> Spelling:
    """That of a base; CLIP's own, if the base brings none along (or None is given)."""
    return _spelling(None if source is None else source.component("tokenizer"))


@lru_cache(maxsize=4)
def _spelling(folder: Path | None) -> Spelling:
    from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    if folder is not None and (folder / "tokenizer.json").is_file():
        return Spelling(Tokenizer.from_file(str(folder / "tokenizer.json")), Lock())
    said: dict[str, Any] = {
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>",
        "fuse_unk": False,
        "unk_token": END,
    }
    own = None if folder is None else (folder / "vocab.json", folder / "merges.txt")
    if own is not None and all(p.is_file() for p in own):
        model = BPE.from_file(*map(str, own), **said)
    else:
        vocab, merges = vocabulary()
        model = BPE(vocab=dict(vocab), merges=[(a, b) for a, _, b in (m.partition(" ") for m in merges)], **said)
    made: Any = Tokenizer(model)
    made.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    made.add_special_tokens([t for t in (START, END) if made.token_to_id(t) is not None])
    return Spelling(made, Lock())

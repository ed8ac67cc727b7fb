"""CLIP's tokenizer without the Hub: OpenAI's byte-pair merges are in this package, the vocabulary follows from them.

Ids: 256 byte symbols, the same 256 at the end of a word (`</w>`), 48,894 merges, then <|startoftext|> 49406 and
<|endoftext|> 49407. Source: openai/CLIP `simple_tokenizer.py`; the file's licence (MIT) lies beside it.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = 49152 - 256 - 2
"""Merges in use; the file holds more than the models were trained with."""


@lru_cache(maxsize=1)
def vocabulary() -> tuple[dict[str, int], list[str]]:
    """Token -> id (49,408 entries), and the merges in order."""
    packed = files("infuse.weights").joinpath("data/bpe_simple_vocab_16e6.txt.gz").read_bytes()
    merges = gzip.decompress(packed).decode("utf-8").split("\n")[1 : MERGES + 1]
    symbols = byte_symbols()
    tokens = [*symbols, *(s + "</w>" for s in symbols), *(m.replace(" ", "") for m in merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def byte_symbols() -> list[str]:
    """A visible character for each of the 256 bytes: itself if printable in Latin-1, else one from 256 upwards."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in visible]
    return [chr(b) for b in visible] + [chr(256 + n) for n in range(len(hidden))]


def clip_tokenizer(pad: str = END, length: int = 77) -> CLIPTokenizer:
    """A fresh tokenizer. `pad`: <|endoftext|> for ViT-L (SD 1.x, SDXL's first), "!" (id 0) for OpenCLIP's (SD 2.x, bigG).

    Fresh, because textual inversion adds tokens to it.
    """
    from transformers import CLIPTokenizer

    vocab, merges = vocabulary()
    pairs = [tuple(m.split(" ")) for m in merges]
    return CLIPTokenizer(vocab=dict(vocab), merges=pairs, pad_token=pad, model_max_length=length)  # pyright: ignore[reportArgumentType]

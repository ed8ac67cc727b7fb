"""A CLIP tokenizer with a vocabulary of its own: every byte, and every word of the tabletop as one token.

It is a real `transformers.CLIPTokenizer`, so whatever works with Stable Diffusion 1's works with this one. Words the
world does not know fall apart into bytes; nothing is ever unknown.
"""

import json
from pathlib import Path

from transformers import CLIPTokenizer

from infuse.tabletop.captions import world_words

START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77


def byte_letters() -> list[str]:
    """The 256 printable stand-ins for bytes that byte-level BPE uses: printable Latin-1 as is, the rest from 256 up."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(spare)) for b in range(256)]


def merges_for(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Merges that make one token of each word. Later merges rank lower, so they never disturb an earlier word."""
    merges: list[tuple[str, str]] = []
    for word in words:
        pieces = _split([*word[:-1], word[-1] + "</w>"], merges)
        while len(pieces) > 1:
            merges.append((pieces[0], pieces[1]))
            pieces = [pieces[0] + pieces[1], *pieces[2:]]
    return merges


def _split(pieces: list[str], merges: list[tuple[str, str]]) -> list[str]:
    """Byte-pair encoding as its definition reads: apply the lowest-ranking merge everywhere, again and again."""
    rank = {pair: i for i, pair in enumerate(merges)}
    while True:
        pairs = [p for p in zip(pieces, pieces[1:], strict=False) if p in rank]
        if not pairs:
            return pieces
        best = min(pairs, key=rank.__getitem__)
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt, tokenizer_config.json and special_tokens_map.json; the tokenizer they make."""
    letters = byte_letters()
    merges = merges_for(tuple(w for w in world_words() if len(w) > 1))
    tokens = dict.fromkeys([*letters, *(c + "</w>" for c in letters), *(a + b for a, b in merges), START, END])
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": LENGTH, "do_lower_case": True, **special}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    return CLIPTokenizer.from_pretrained(folder)

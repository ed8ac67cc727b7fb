"""Words that are bundled with a LoRA: while it is active they are words of the text encoders, as files of their own would be.

Names and shapes only; imports no torch. Source: KohakuBlueleaf/LyCORIS @ f49d30d (tools/pack_bundle.py), Nerogar/OneTrainer
@ 23df383, whose `*_out` are for an encoder's output and are not read.
"""

from __future__ import annotations

from collections.abc import Mapping

from infuse.weights.layouts.lora_names import Shape

NAMED = ("clip_l", "clip_g")
"""Tensors for SDXL's two encoders; files for one encoder call it the first, or something of their own."""


def words_of(
    words: Mapping[str, Mapping[str, str]], shapes: Mapping[str, Shape], widths: tuple[int, ...]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """(word -> the keys of its vectors, one for each text encoder; sentences about words that these encoders cannot hear).

    words: of a file, each with its tensors' names and keys. widths: of what each encoder reads.
    """
    found: dict[str, tuple[str, ...]] = {}
    unheard: list[str] = []
    for word, tensors in words.items():
        if not word:
            unheard.append("a bundled word has no name: it is not heard")
            continue
        keys = _keys({n: k for n, k in tensors.items() if not n.endswith("_out")}, len(widths))
        has = tuple(shapes[k][-1] if shapes[k] else 0 for k in keys)
        if has == widths and all(0 not in shapes[k] for k in keys):
            found[word] = keys
        else:
            theirs, ours = (" and ".join(map(str, n)) or "none" for n in (has, widths))
            unheard.append(
                f'the word "{word}" bundled with it has vectors of width {theirs}, this base hears {ours}: it is not heard'
            )
    return found, unheard


def _keys(tensors: Mapping[str, str], encoders: int) -> tuple[str, ...]:
    if encoders > 1 or len(tensors) > 1:
        return tuple(tensors[n] for n in NAMED[:encoders] if n in tensors)
    return tuple(tensors.values())

"""A textual inversion's file: a few vectors for each text encoder, under whatever name its trainer gave them.

webui: `string_to_param.*` in a .pt, or a single `emb_params`; diffusers: a single tensor under the word itself; SDXL: `clip_l` and
`clip_g`, as many rows as the word takes places. Vectors that a LoRA brings along (`bundle_emb`) are its own affair. Source:
lllyasviel/stable-diffusion-webui-forge@dfdcbab textual_inversion.py, huggingface/diffusers@58eb52c loaders/textual_inversion.py,
Nerogar/OneTrainer@23df383. All but `read` is said by the header alone, and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from infuse.encoders.embeddings import MOST, Embedding
from infuse.errors import RecipeError, WeightsError
from infuse.media.png_text import png_texts
from infuse.media.reading import Reading
from infuse.notices import note
from infuse.weights.formats import Header, read_keys
from infuse.weights.kinds import wrong_kind
from infuse.weights.looks.attended import NAMELESS, PAIR, WEBUI, word_of
from infuse.weights.source import Source

OUT = "_out"
PICTURES = (".png", ".webp", ".jpg", ".jpeg", ".jxl", ".gif", ".avif")
CARD = "sd-ti-embedding"


@dataclass(frozen=True)
class Outline:
    """What a file holds, without its numbers. One entry for each text encoder."""

    names: tuple[str, ...]
    """What prompts may call it: the word that the file itself gives, then the file's name."""
    keys: tuple[str, ...]
    widths: tuple[int, ...]
    places: tuple[int, ...]
    """Vectors."""


def outline(source: Source) -> Outline:
    """Raises WeightsError unless it is a textual inversion of 1 to 75 vectors, and one that has a name."""
    if not source.is_folder and source.path.suffix.lower() in PICTURES:
        raise WeightsError(source.field, _picture(source))
    header = source.header
    keys = _keys(source, header)
    shapes = [header[k].shape for k in keys]
    for key, shape in zip(keys, shapes, strict=True):
        if len(shape) not in (1, 2) or not header[key].floating or 0 in shape:
            raise WeightsError(source.field, f'"{source.name}": {key!r} is {"x".join(map(str, shape)) or "a single number"} of type {header[key].dtype}, '
                                             "which are no vectors of words. Choose another file.")  # fmt: skip
    places = tuple(shape[0] if len(shape) == 2 else 1 for shape in shapes)
    if max(places) > MOST:
        raise WeightsError(source.field, f'"{source.name}" has {max(places)} vectors; a chunk of a prompt has room for {MOST}. Choose one with fewer.')  # fmt: skip
    return Outline(_names(source, keys), keys, tuple(shape[-1] for shape in shapes), places)


def read(source: Source) -> Embedding:
    """Its vectors, as stored. Raises WeightsError as `outline` does, and for vectors that are not numbers (NaN, infinite)."""
    said = outline(source)
    found = read_keys(source.header, said.keys) if not source.is_folder else _of_folder(source, said.keys)
    vectors = tuple(found[k].reshape(-1, width) for k, width in zip(said.keys, said.widths, strict=True))
    if not all(v.isfinite().all() for v in vectors):
        raise WeightsError(source.field, f'"{source.name}" holds values that are no numbers (NaN or infinite): its training failed, or the file is damaged. '
                                         "Download it again, or choose another.")  # fmt: skip
    if len(set(said.places)) > 1:
        note(f'"{source.name}" has {said.places[0]} vectors for SDXL\'s first text encoder and {said.places[1]} for its second: it takes '
             f"{said.places[-1]} places, and what the first has more stands over the words that follow, as in the webui.")  # fmt: skip
    return Embedding(said.names[0], vectors)


def _of_folder(source: Source, keys: tuple[str, ...]) -> dict:
    from infuse.weights.formats import read_all

    found = read_all(source.weights)
    return {k: found[source.header.stored.get(k, k)] for k in keys}


def _keys(source: Source, header: Header) -> tuple[str, ...]:
    """The tensors of each encoder."""
    own = [k for k in header if k.startswith(WEBUI)]
    if own:
        words = own
    elif any(k in header for k in PAIR):
        pair = tuple(k for k in PAIR if k in header)
        others = [k for k in header if k.removesuffix(OUT) not in PAIR]
        if others:
            raise WeightsError(source.field, f'"{source.name}" has vectors for a text encoder that no base of infuse has ({", ".join(others)[:100]}): '
                                             "it was trained for another family (SD 3, Flux). Choose one for SD 1.x, SD 2.x or SDXL.")  # fmt: skip
        if any(k.endswith(OUT) for k in header):
            note(
                f'"{source.name}" has vectors for what its encoders say, too (clip_l_out); only those for what they hear are used.'
            )
        return pair
    else:
        words = list(header)
        if any(len(header[k].shape) > 2 or k.endswith((".weight", ".bias", ".alpha")) for k in words):
            raise wrong_kind(source.field, source.identity, "textual_inversion", name=source.name)
    if len(words) > 1:
        shown = ", ".join(repr(k.removeprefix(WEBUI)) for k in words[:4])
        raise WeightsError(source.field, f'"{source.name}" holds {len(words)} words ({shown}{", ..." if len(words) > 4 else ""}); infuse reads files of one. '
                                         "Save each under its own name.")  # fmt: skip
    return tuple(words)


def _names(source: Source, keys: tuple[str, ...]) -> tuple[str, ...]:
    found = (word_of(keys[0]), source.path.name if source.is_folder else source.path.stem)
    names = tuple(dict.fromkeys(n.strip() for n in found if n.strip("* ") and not NAMELESS.fullmatch(n.strip())))
    if not names:
        raise WeightsError(source.field, f'"{source.name}" has no name that a prompt could say: the file gives no word, and "{found[1]}" is what any may be called. '
                                         "Rename the file to the word you want to write.")  # fmt: skip
    return names


def _picture(source: Source) -> str:
    try:
        card = source.path.suffix.lower() == ".png" and CARD in png_texts(source.path, Reading())
    except (RecipeError, OSError):
        card = False
    what = "the card of a textual inversion, a picture that carries its vectors" if card else "a picture"
    return (
        f'"{source.name}" is {what}. infuse reads textual inversions from .safetensors, .pt and .bin: take that file of it, '
        "or save it as one in the program that made the card."
    )

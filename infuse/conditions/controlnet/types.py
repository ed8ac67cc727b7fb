"""The kinds of map that a ControlNet-Union is told apart by: numbers in its files, and the names that tools have for them.

Source: xinsir6/ControlNetPlus@b484205; ComfyUI's SetUnionControlNetType and the webui extension's tags count alike.
"""

from __future__ import annotations

import re

from infuse.errors import RecipeError

TYPES: tuple[tuple[str, ...], ...] = (
    ("openpose", "pose", "dwpose", "dw_openpose", "animal_openpose"),
    ("depth", "midas", "zoe", "leres", "depth_anything"),
    ("softedge", "hed", "pidi", "pidinet", "scribble", "ted", "teed", "sketch"),
    ("canny", "lineart", "anime_lineart", "lineart_anime", "mlsd", "edges"),
    ("normal", "normalmap", "normalbae"),
    ("segmentation", "segment", "seg", "ade20k"),
    ("tile", "blur"),
    ("inpaint", "repaint", "inpainting"),
)
"""Number -> its names, ours first; the last two are ProMax's."""
UNTYPED = ("auto", "none")
"""The hint is shown without a type, as ComfyUI's `auto` does."""
REPAINT = 7
DRAWN = {"canny": 3, "scribble": 2, "tile": 6, "blur": 6}
"""The type of what an annotator draws."""


def number(said: str | int, known: int, model: str) -> int | None:
    """The number of a type that a union of `known` types is told; None: without one. Raises RecipeError if it has no such type."""
    if isinstance(said, bool):
        raise RecipeError("type", f"{said} is no type of map. {listed(known, model)}")
    if isinstance(said, int):
        found: int | None = said
    else:
        word = said.lower().replace("-", "").replace("_", "").replace(" ", "")
        words = word.split("/")  # ComfyUI joins the names of a type: hed/pidi/scribble/ted
        if word in UNTYPED:
            return None
        if word.isdecimal():
            return number(int(word), known, model)
        found = next((i for i, names in enumerate(TYPES) if any(n.replace("_", "") in words for n in names)), -1)
        if found < 0:  # a preprocessor's name, which begins with that of what it draws: openpose_full, lineart_coarse
            first = re.split(r"[-_ ]", said.lower())[0]
            found = next((i for i, names in enumerate(TYPES) if first in names), -1)
        if found < 0:
            raise RecipeError("type", f"no type of map is called {said!r}. {listed(known, model)}")
    if found is None or not 0 <= found < known:
        shown = said if isinstance(said, int) else f"{said!r} (number {found})"
        promax = " A ProMax file has 8." if found in (6, 7) else ""
        raise RecipeError(
            "type", f"{model!r} knows {known} types, and {shown} is none of them.{promax} {listed(known, model)}"
        )
    return found


def called(number: int) -> str:
    """A type's own name and number; of a file that knows more than we do, its number."""
    return f"{TYPES[number][0]} ({number})" if number < len(TYPES) else str(number)


def listed(known: int, model: str) -> str:
    """What may be said, for letters."""
    names = [f"{names[0]} ({i})" for i, names in enumerate(TYPES[:known])]
    more = "" if known <= len(TYPES) else f", and the numbers up to {known - 1}"
    return f"{model!r} has: {', '.join(names)}{more}; auto shows it without a type."

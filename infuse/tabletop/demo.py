"""The main job on one sheet: what each condition did, beside what comes of the same seed without it.

Every picture is one call of one engine; the last rows of pictures are all conditions in a single call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infuse.errors import RecipeError
from infuse.tabletop import demo_looks as looks
from infuse.tabletop import demo_maps as maps
from infuse.tabletop import demo_pictures as pictures
from infuse.tabletop import demo_powerpaint as powerpaint
from infuse.tabletop import demo_video as video
from infuse.tabletop.sheet import Row, moving, save_moving, sheet
from infuse.tabletop.stage import Cast, Stage

if TYPE_CHECKING:
    from infuse.engine.engine import Engine

SHEET, CLIPS = "contact_sheet.png", "clips.gif"

STILL: Mapping[str, Callable[[Stage], Row | list[Row]]] = {
    "text": pictures.text, "img2img": pictures.img2img, "inpaint": pictures.inpaint,
    "depth": maps.depth, "edit": maps.edit,
    "powerpaint-text": powerpaint.text, "powerpaint-removal": powerpaint.removal, "powerpaint-shape": powerpaint.shape,
    "powerpaint-outpaint": powerpaint.outpaint, "powerpaint-regions": powerpaint.regions,
    "edges": pictures.controlnet, "depths": maps.depths, "segments": maps.segments,
    "ip-adapter": pictures.ip_adapter, "reference": maps.reference, "looks": looks.looks, "three": pictures.combination, "five": maps.five,
}  # fmt: skip
MOVING: Mapping[str, Callable[[Stage], Row | list[Row]]] = {
    "clip-words": video.words, "clip-depth": video.depth, "clip-image": video.image, "clip-hole": video.hole, "clip-together": video.together,
}  # fmt: skip
"""Rows of the sheet by the name that chooses them, from top to bottom; those of clips come last."""


def demo(
    out: Path, engine: Engine | None = None, cast: Cast | None = None, say: Callable[[Path], None] = lambda path: None,
    rows: Sequence[str] = (),
) -> Path:  # fmt: skip
    """Make every picture and the sheet in `out`; returns the sheet's path. `say` is told of each picture.

    Clips are on the sheet as four of their frames; beside it lies a GIF of their rows in which they move. `rows` names those to
    be made, all of them if left out. Raises RecipeError for a row that is not there.
    """
    chosen = known(rows)
    from infuse.engine.engine import Engine

    cast = cast or Cast()
    stage = Stage(engine or Engine(cast.base, max_rows=1), cast, out, say)
    still, clips = (
        [row for name, make in group.items() if name in chosen for row in _several(make(stage))]
        for group in (STILL, MOVING)
    )
    path = out / SHEET
    sheet("infuse: any combination of conditions, in one call", [*still, *clips]).save(path)
    if clips:
        say(save_moving(moving("infuse: the same for clips", clips), out / CLIPS))
    return path


def known(rows: Sequence[str]) -> tuple[str, ...]:
    """The rows that are asked for, all if none is named. Raises RecipeError for one that is not there."""
    names = (*STILL, *MOVING)
    for row in rows:
        if row not in names:
            raise RecipeError("--rows", f"there is no row {row!r}. Rows: {', '.join(names)}.")
    return tuple(rows) or names


def _several(made: Row | list[Row]) -> list[Row]:
    return made if isinstance(made, list) else [made]

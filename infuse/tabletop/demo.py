"""The main job on one sheet: what each condition did, beside what comes of the same seed without it.

Every picture is one call of one engine; the last row of pictures is all conditions in a single call.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infuse.tabletop import demo_pictures as pictures
from infuse.tabletop import demo_powerpaint as powerpaint
from infuse.tabletop import demo_video as video
from infuse.tabletop.sheet import moving, save_moving, sheet
from infuse.tabletop.stage import Cast, Stage

if TYPE_CHECKING:
    from infuse.engine.engine import Engine

SHEET, CLIPS = "contact_sheet.png", "clips.gif"


def demo(
    out: Path, engine: Engine | None = None, cast: Cast | None = None, say: Callable[[Path], None] = lambda path: None
) -> Path:
    """Make every picture and the sheet in `out`; returns the sheet's path. `say` is told of each picture.

    Clips are on the sheet as four of their frames; beside it lies a GIF of their rows in which they move.
    """
    from infuse.engine.engine import Engine

    cast = cast or Cast()
    stage = Stage(engine or Engine(cast.base, max_rows=1), cast, out, say)
    rows = [
        pictures.text(stage),
        pictures.img2img(stage),
        pictures.inpaint(stage),
        *powerpaint.rows(stage),
        pictures.controlnet(stage),
        pictures.ip_adapter(stage),
        pictures.combination(stage),
    ]
    clips = video.rows(stage)
    path = out / SHEET
    sheet("infuse: any combination of conditions, in one call", [*rows, *clips]).save(path)
    say(save_moving(moving("infuse: the same for clips", clips), out / CLIPS))
    return path

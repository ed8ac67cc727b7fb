"""Pictures to try things with: the documents and examples name `room.png` and the like, and here they come from."""

from __future__ import annotations

import shutil
from pathlib import Path

PICTURES = Path(__file__).parent / "pictures"


def examples(folder: str | Path = ".") -> list[Path]:
    """Puts the pictures that the documents speak of into a folder, and returns their paths there.

    `room.png`, a hole in it (`mask.png`; `left.png` and `right.png` for two), maps of what might fill it (`edges.png`,
    `depth.png`, `segments.png`), a `look.png` to follow; and two short films, `walk.gif` and `depths.gif`. What lies there
    under one of these names already is left as it is.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for picture in sorted(p for p in PICTURES.iterdir() if p.suffix in (".png", ".gif")):
        made.append(folder / picture.name)
        if not made[-1].exists():
            shutil.copyfile(picture, made[-1])
    return made

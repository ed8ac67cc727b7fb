"""The pictures that come with infuse, drawn: what `infuse.examples()` puts into a folder.

`python -m infuse.tabletop.making.example_pictures` draws them anew.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from infuse.tabletop.demo_pictures import COLOURS, TARGET
from infuse.tabletop.demo_video import HOPPING, STILL
from infuse.tabletop.examples import PICTURES
from infuse.tabletop.flow import film
from infuse.tabletop.maps import kinds, painted
from infuse.tabletop.moves import STAY, Move, Route
from infuse.tabletop.sheet import save_moving
from infuse.tabletop.stage import TABLE, drawn
from infuse.tabletop.world import Scene

SIDE, FRAMES, MILLISECONDS = 128, 8, 125
WALK = Move(STILL, (Route(0.0, 1.0), STAY))
ROOM = SIDE // 20
"""Pixels of a hole around what stands there."""


def draw(folder: Path) -> None:
    """All of them, under their names."""
    folder.mkdir(parents=True, exist_ok=True)
    cube, sphere = _box(TABLE, 0), _box(TABLE, 1)
    pictures = {
        "room": drawn(TABLE, SIDE).rgb, "look": drawn(COLOURS, SIDE).rgb, "edges": drawn(TARGET, SIDE).edges,
        "mask": cube | _box(TARGET, 0), "left": cube, "right": sphere,
        "depth": _grey(drawn(TARGET, SIDE).inverse_depth),
        "segments": painted(kinds(TARGET, drawn(TARGET, SIDE).segments)),
    }  # fmt: skip
    for name, array in pictures.items():
        Image.fromarray(array).save(folder / f"{name}.png", optimize=True)
    depths = _grey(film(HOPPING, FRAMES, (SIDE, SIDE)).inverse_depth)
    for name, frames in (("walk", film(WALK, FRAMES, (SIDE, SIDE)).rgb), ("depths", depths)):
        shown = [Image.fromarray(f).convert("RGB") for f in frames]
        save_moving(shown, folder / f"{name}.gif", MILLISECONDS, MILLISECONDS)


def _grey(values: np.ndarray) -> np.ndarray:
    """0-1 as uint8."""
    return (values * 255).round().astype(np.uint8)


def _box(scene: Scene, thing: int) -> np.ndarray:
    """(h, w) uint8: white in the box around a thing, and a little around it."""
    left, top, right, bottom = (int(v) for v in drawn(scene, SIDE).positions[thing].box)
    covered = np.zeros((SIDE, SIDE), np.uint8)
    covered[max(top - ROOM, 0) : bottom + ROOM, max(left - ROOM, 0) : right + ROOM] = 255
    return covered


if __name__ == "__main__":
    draw(PICTURES)

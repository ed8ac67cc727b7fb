"""Paths for moving scenes: what a user would draw over the first frame to say where everything goes."""

from __future__ import annotations

import numpy as np

from infuse.encoders.drawn_motion import Path
from infuse.tabletop.moves import HOLD, Move, centre, scenes
from infuse.tabletop.world import box


def drawn_paths(move: Move, frames: int) -> tuple[Path, ...]:
    """Where each solid goes that moves, one path for each. () if the camera moves, which no path tells."""
    if move.camera != HOLD:
        return ()
    stills, camera = scenes(move, frames), move.scene.camera
    out = []
    for i, (thing, route) in enumerate(zip(move.scene.things, move.routes, strict=True)):
        left, top, right, bottom = box(thing, camera)
        if route.length:
            points = tuple(
                (float(x), float(y)) for x, y in np.clip([centre(s.things[i], camera) for s in stills], 0, 1)
            )
            out.append(Path(points=points, radius=min(max(right - left, bottom - top) / 2, 1.0)))
    return tuple(out)

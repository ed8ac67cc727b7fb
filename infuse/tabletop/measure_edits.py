"""Was changed what was asked for, and only that? And does a picture follow the map it was drawn from?

"Seen" is the judge's reading of a picture. A solid counts as the same if the judge finds its shape, colour and size close
to where it stood.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from infuse.tabletop.edits import DARK, Edit, darkened
from infuse.tabletop.judge import Seen, SeenThing
from infuse.tabletop.render import FIRST_THING
from infuse.tabletop.world import Camera, Thing, box

NEAR = 0.09
"""Of the picture: how far a solid's seen centre may lie from where its box's centre is."""


@dataclass(frozen=True)
class Edited:
    """What became of one edit."""

    asked: float  # 1 if what was to change has changed as asked
    kept: float  # the fraction of the other solids, floor and wall that are as they were
    only: float  # 1 if all of them are, and nothing has come besides


def edited(
    edit: Edit, result: np.ndarray, before: np.ndarray, after: np.ndarray, look: Callable[[np.ndarray], Seen]
) -> Edited:
    """`result`, `before` and `after` (h w 3) uint8: the picture made, the one it was made from, a render of what was wanted.

    The judge never saw dark pictures, so it is shown them with their light on.
    """
    seen = look(darkened(result, 1 / DARK) if edit.after.dark else result)
    scene, i = edit.after.scene, edit.thing
    others = [t for j, t in enumerate(scene.things) if j != i or edit.kind == "less"]
    found = [_there(t, seen.things, scene.camera) for t in others]
    rooms = [getattr(seen, part) == getattr(scene.room, part) for part in ("floor", "wall") if part != edit.kind]
    asked = _asked(edit, seen, result, before, after)
    kept = [*found, *rooms]
    # where the asked change failed, a solid too many or too few is that failure, not another
    only = all(kept) and (len(seen.things) == len(scene.things) or not asked)
    return Edited(float(asked), float(np.mean(kept)), float(only))


def _asked(edit: Edit, seen: Seen, result: np.ndarray, before: np.ndarray, after: np.ndarray) -> bool:
    scene, i = edit.after.scene, edit.thing
    if edit.kind in ("wall", "floor"):
        return getattr(seen, edit.kind) == getattr(scene.room, edit.kind)
    if edit.kind in ("light", "dark", "bright"):  # nobody reads light, so: nearer to what was wanted than to what was
        return bool(_distance(result, after) < _distance(result, before))
    assert i is not None
    if edit.kind == "less":
        gone = edit.before.scene.things[i]
        return not _there(gone, seen.things, scene.camera) and len(seen.things) <= len(scene.things)
    thing = scene.things[i]
    if edit.kind == "more":  # where it stands was left open; sizes where they were not said are, too
        known = sum((t.shape, t.colour) == (thing.shape, thing.colour) for t in edit.before.scene.things)
        return sum((t.shape, t.colour) == (thing.shape, thing.colour) for t in seen.things) > known
    return _there(thing, seen.things, scene.camera)


def _there(thing: Thing, things: Sequence[SeenThing], camera: Camera) -> bool:
    left, top, right, bottom = box(thing, camera)
    x, y = (left + right) / 2, (top + bottom) / 2
    return any(
        (t.shape, t.colour, t.size) == (thing.shape, thing.colour, thing.size)
        and np.hypot(t.centre[0] / 128 - x, t.centre[1] / 128 - y) < NEAR
        for t in things
    )


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(np.float32) - other).mean())


def map_iou(seen: Seen, classes: np.ndarray) -> float:
    """Intersection over union of each kind of solid in the map (h w) with what the judge sees, their mean; 1 for none."""
    asked = [c for c in np.unique(classes) if c >= FIRST_THING]
    pairs = [(seen.segments == c, classes == c) for c in asked]
    return float(np.mean([(a & b).sum() / max((a | b).sum(), 1) for a, b in pairs])) if pairs else 1.0

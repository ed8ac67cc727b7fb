"""PowerPaint's four tasks on held-out scenes, against what is known exactly: the scene without the solid, or all of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from infuse.conditions import AnyCondition, Inpaint, PowerPaint
from infuse.media.pictures import Picture
from infuse.tabletop import measure
from infuse.tabletop.captions import Asked
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.judge import Seen
from infuse.tabletop.making.data_sources import around
from infuse.tabletop.making.scorer import Example, Scorer
from infuse.tabletop.render import FIRST_THING, render
from infuse.tabletop.world import COLOURS, SHAPES, Thing
from infuse.training.powerpaint_masks import grown

MODEL = "tabletop-inpaint"
SIDE = 128
LEFT, RIGHT = 22, 21
"""Columns taken off for outpainting to put back: the canvas is 1.5 times as wide as what is left."""
STRIP = 4
"""Columns beyond the seam whose colours are compared with the truth."""
BESIDE = 10
"""Columns of the picture that outpainting repaints beside the seam (the condition's own default)."""


@dataclass(frozen=True)
class Stand:
    """The solid of a scene that is seen best, its silhouette, a hole around it, and the scene without it."""

    thing: Thing
    instance: np.ndarray
    """(h w) 0/1."""
    hole: np.ndarray
    """(h w) 0/1, drawn as people do: a box or ellipse, up to a third larger on each side."""
    without: np.ndarray
    """(h w 3)"""
    others: np.ndarray
    """(h w) bool: where the remaining solids are."""


def stand(e: Example) -> Stand:
    """The same for every experiment on one example."""
    areas = [int((e.picture.segments == FIRST_THING + i).sum()) for i in range(len(e.scene.things))]
    best = int(np.argmax(areas))
    thing = e.scene.things[best]
    instance = (e.picture.segments == FIRST_THING + best).astype(np.uint8)
    rest = render(replace(e.scene, things=tuple(t for t in e.scene.things if t is not thing)), (SIDE, SIDE))
    hole = around(thing, e.scene.camera, SIDE, np.random.default_rng((HELD_OUT, e.index, 3))) | grown(instance, 1)
    return Stand(thing, instance, hole, rest.rgb, rest.segments >= FIRST_THING)


def another(e: Example, old: Thing, apart: bool = False) -> Asked:
    """Another solid of another colour. `apart`: of the old shape, in a colour unlike floor and wall."""
    rng = np.random.default_rng((HELD_OUT, e.index, 2))
    shape = old.shape if apart else str(rng.choice([s for s in SHAPES if s != old.shape]))
    return Asked(shape, str(rng.choice([c for c in COLOURS if c != old.colour])))


def white(mask: np.ndarray) -> Picture:
    return Picture.of(mask.astype(np.uint8) * 255)


def removal(scorer: Scorer, task: bool = True) -> dict[str, float]:
    """The solid taken away from its picture, shadow and all that lies outside of the hole left as they are.

    `gone`: the judge sees no more solids in the hole than in the render without it. `inside_error`: mean distance from
    that render in the hole, in % of full range. `task` False asks the same network by plain inpainting, without words.
    """
    stands: dict[int, Stand] = {}

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        s = stands[e.index] = stand(e)
        picture, mask = Picture.of(e.picture.rgb), white(s.hole)
        asked = PowerPaint(task="removal", image=picture, mask=mask) if task else Inpaint(image=picture, mask=mask)
        return MODEL, "", [asked]

    gone, error = [], []
    for e, p, seen in scorer.made("removal" if task else "removal by inpainting", recipe):
        s = stands[e.index]
        truth = scorer.judge.look(torch.from_numpy(s.without).permute(2, 0, 1)[None].float() / 255)[0]
        gone.append(len(inside(seen, s.hole)) <= len(inside(truth, s.hole)))
        error.append(distance(p, s.without, s.hole > 0))
    return {"gone": float(np.mean(gone)), "inside_error": float(np.mean(error))}


def text(scorer: Scorer, paste: bool) -> dict[str, float]:
    """Another solid asked for in the hole where one stood: colour and shape right, and the rest unchanged."""
    stands: dict[int, tuple[Stand, Asked]] = {}

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        s = stand(e)
        new = another(e, s.thing)
        stands[e.index] = s, new
        asked = PowerPaint(task="text", image=Picture.of(e.picture.rgb), mask=white(s.hole), paste=paste)
        return MODEL, f"a {s.thing.size} {new.colour} {new.shape}", [asked]

    found, colours, shapes = [], [], []
    for e, p, seen in scorer.made("text in a hole", recipe):
        s, new = stands[e.index]
        found.append(measure.inpainting(p, e.picture.rgb, s.hole > 0, [new], seen))
        things = inside(seen, s.hole)
        colours.append(any(t.colour == new.colour for t in things))
        shapes.append(any(t.shape == new.shape for t in things))
    return {
        "inside": float(np.mean([f.inside for f in found])),
        "colour": float(np.mean(colours)),
        "shape": float(np.mean(shapes)),
        "outside_psnr": float(np.mean([f.outside for f in found])),
    }


def shape(scorer: Scorer, fit: float) -> dict[str, float]:
    """A solid in the silhouette of one that never stood there: the hole lies in the render without it.

    `iou`: of the hole with what the judge's segments call a solid (other solids left out). `area`: of that solid, as a
    share of the hole. `colour`: the asked one is seen in the hole. A lower `fit` should fill less of the hole.
    """
    stands: dict[int, tuple[Stand, Asked]] = {}

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        s = stand(e)
        new = another(e, s.thing, apart=True)
        stands[e.index] = s, new
        asked = PowerPaint(task="shape", image=Picture.of(s.without), mask=white(s.instance), fit=fit, paste=False)
        return MODEL, f"a {s.thing.size} {new.colour} {new.shape}", [asked]

    iou, area, colours = [], [], []
    for e, _, seen in scorer.made(f"shape at {fit:g}", recipe):
        s, new = stands[e.index]
        hole = s.instance > 0
        painted = (seen.segments >= FIRST_THING) & ~(s.others & ~hole)
        iou.append((painted & hole).sum() / max(1, (painted | hole).sum()))
        area.append((painted & hole).sum() / hole.sum())
        colours.append(any(t.colour == new.colour for t in inside(seen, grown(s.instance, 4))))
    return {"iou": float(np.mean(iou)), "area": float(np.mean(area)), "colour": float(np.mean(colours))}


def outpaint(scorer: Scorer) -> dict[str, float]:
    """The middle of a scene, continued to both sides without words.

    `seam_error`: mean distance of floor and wall from the truth in the columns just beyond the known part, in % of full
    range. `room`: the judge sees the scene's floor and wall. `calm`: it sees no solid in what was added that is not
    there in truth.
    """

    def recipe(e: Example) -> tuple[str, str, Sequence[AnyCondition]]:
        middle = Picture.of(np.ascontiguousarray(e.picture.rgb[:, LEFT : SIDE - RIGHT]))
        return MODEL, "", [PowerPaint(task="outpaint", image=middle, left=LEFT, right=RIGHT, paste=False)]

    added = np.zeros((SIDE, SIDE), np.uint8)
    added[:, : LEFT + BESIDE] = added[:, SIDE - RIGHT - BESIDE :] = 1
    seam = np.zeros((SIDE, SIDE), bool)
    seam[:, LEFT + BESIDE - STRIP : LEFT + BESIDE] = True
    seam[:, SIDE - RIGHT - BESIDE : SIDE - RIGHT - BESIDE + STRIP] = True
    errors, rooms, calm = [], [], []
    for e, p, seen in scorer.made("outpaint", recipe):
        truth = measure.truth(e.scene, e.picture)
        errors.append(distance(p, e.picture.rgb, seam & (e.picture.segments < FIRST_THING)))
        rooms.append((seen.floor, seen.wall) == (truth.floor, truth.wall))
        calm.append(len(inside(seen, added)) <= len(inside(truth, added)))
    return {"seam_error": float(np.mean(errors)), "room": float(np.mean(rooms)), "calm": float(np.mean(calm))}


def inside(seen: Seen, hole: np.ndarray) -> list[Any]:
    """The solids whose centre lies in the hole."""
    height, width = hole.shape
    at = [(min(max(int(t.centre[1]), 0), height - 1), min(max(int(t.centre[0]), 0), width - 1)) for t in seen.things]
    return [t for t, place in zip(seen.things, at, strict=True) if hole[place]]


def distance(picture: np.ndarray, other: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute difference in % of full range."""
    return float(100 * np.abs(picture[where].astype(np.float64) - other[where]).mean() / 255)


def experiments(scorer: Scorer) -> dict[str, Callable[[], dict[str, float]]]:
    """By their names in the scores."""
    return {
        "removal": lambda: removal(scorer), "removal_by_inpaint": lambda: removal(scorer, False),
        "powerpaint_text": lambda: text(scorer, False), "powerpaint_text_pasted": lambda: text(scorer, True),
        "shape_tight": lambda: shape(scorer, 1.0), "shape_loose": lambda: shape(scorer, 0.5), "outpaint": lambda: outpaint(scorer),
    }  # fmt: skip

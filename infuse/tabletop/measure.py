"""Did the picture do as it was told? Pure functions from what was asked and what was seen to numbers, 1 being perfect.

"Seen" is the judge's reading of a generated picture; "asked" is the Prompt, the hint or the reference it was made from.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import permutations

import numpy as np

from infuse.tabletop.captions import Asked, Prompt
from infuse.tabletop.judge import Seen, SeenThing
from infuse.tabletop.render import FIRST_THING, Render, contours
from infuse.tabletop.world import SHAPES, Scene


@dataclass(frozen=True)
class Answer:
    """How well one picture answers its prompt, each in 0..1. What the prompt leaves open counts as right."""

    colour: float  # fraction of the asked colours that are there, each solid counted once
    shape: float  # the same of shapes
    pair: float  # fraction of asked solids with the right shape and colour together
    count: float  # 1 if there are as many solids as asked
    room: float  # 1 if the asked floor and wall are there
    everything: float  # 1 if the count is right and every asked solid is there with shape, colour and asked size


def answer(prompt: Prompt, seen: Seen) -> Answer:
    """Compare one picture with its prompt."""
    asked, things, n = prompt.things, seen.things, len(prompt.things)
    pairs = _common(((a.shape, a.colour) for a in asked), ((t.shape, t.colour) for t in things))
    right_count = len(things) == n
    return Answer(
        colour=_common((a.colour for a in asked), (t.colour for t in things)) / n,
        shape=_common((a.shape for a in asked), (t.shape for t in things)) / n,
        pair=pairs / n,
        count=float(right_count),
        room=float(prompt.floor in (None, seen.floor) and prompt.wall in (None, seen.wall)),
        everything=float(right_count and fulfilled(asked, things)),
    )


def mean(answers: Sequence[Answer]) -> Answer:
    """The average over many pictures."""
    return Answer(**{f.name: float(np.mean([getattr(a, f.name) for a in answers])) for f in fields(Answer)})


def fulfilled(asked: Sequence[Asked], things: Sequence[SeenThing]) -> bool:
    """Whether every asked solid can be given a seen one of its own with that shape, colour and (if asked) size."""
    return any(
        all(
            a.shape == t.shape and a.colour == t.colour and a.size in (None, t.size)
            for a, t in zip(asked, order, strict=True)
        )
        for order in permutations(things, len(asked))
    )


def truth(scene: Scene, picture: Render) -> Seen:
    """What a perfect judge would say of a render."""
    things = tuple(
        SeenThing(t.shape, t.colour, t.size, p.centre, p.box, 1.0)
        for t, p in zip(scene.things, picture.positions, strict=True)
    )
    classes = np.array([0, 1, *(FIRST_THING + SHAPES.index(t.shape) for t in scene.things)], np.uint8)
    return Seen(things, scene.room.floor, scene.room.wall, classes[picture.segments], picture.inverse_depth)


def _common(first: Iterable[object], second: Iterable[object]) -> int:
    return (Counter(first) & Counter(second)).total()


@dataclass(frozen=True)
class Agreement:
    """How much two pictures share, each in 0..1: the solids' colours and shapes (shared of all), and the room's colours."""

    colours: float
    shapes: float
    room: float


def agreement(seen: Seen, reference: Seen) -> Agreement:
    """Compare a picture with the one it was modelled on, wherever the solids stand."""
    most = max(len(seen.things), len(reference.things), 1)
    colours = _common((t.colour for t in seen.things), (t.colour for t in reference.things)) / most
    shapes = _common((t.shape for t in seen.things), (t.shape for t in reference.things)) / most
    nothing = not seen.things and not reference.things
    room = ((seen.floor == reference.floor) + (seen.wall == reference.wall)) / 2
    return Agreement(1.0 if nothing else colours, 1.0 if nothing else shapes, room)


def edge_f1(picture: np.ndarray, seen: Seen, hint: np.ndarray, tolerance: int = 2) -> float:
    """Agreement of a picture (h, w, 3) uint8 with the edges (h, w) uint8 it was drawn from, within `tolerance` pixels.

    Precision: the contours of what the judge recognises must lie on hinted edges. (A Canny map would be punished for
    cast shadows and highlights, which no hint shows.) Recall: every hinted edge must be found as such a contour or in
    the picture's Canny map. (The judge knows no creases within a solid.) On 200 held-out renders after a round trip
    through the autoencoder this gives 0.98 (0.42 against another scene's edges), where Canny alone gives 0.89.
    """
    drawn, outlines = hint > 127, contours(seen.segments) > 0
    if not drawn.any() or not outlines.any():
        return float(drawn.any() == outlines.any())
    precision = (outlines & _grown(drawn, tolerance)).sum() / outlines.sum()
    recall = (drawn & _grown(outlines | canny(picture), tolerance)).sum() / drawn.sum()
    return float(2 * precision * recall / (precision + recall + 1e-9))


def canny(picture: np.ndarray, low: float = 40, high: float = 90) -> np.ndarray:
    """(h, w, 3) uint8 to (h, w) bool: the union of the three colour channels' Canny edges."""
    import cv2

    smooth = cv2.GaussianBlur(picture, (3, 3), 0)
    return np.any([cv2.Canny(np.ascontiguousarray(smooth[..., c]), low, high) > 0 for c in range(3)], axis=0)


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask and all that lies within `pixels` (Chebyshev) of it."""
    padded = np.pad(mask, pixels)
    height, width = mask.shape
    steps = range(2 * pixels + 1)
    return np.any([padded[y : y + height, x : x + width] for y in steps for x in steps], axis=0)


def depth_agreement(seen: Seen, hint: np.ndarray) -> float:
    """1 less the mean absolute difference of inverse depths; `hint` (h, w) in 0..1, in the world's scale."""
    return float(1 - np.abs(seen.inverse_depth - hint).mean())


@dataclass(frozen=True)
class Inpainting:
    """`inside` 1 if what was asked for stands in the hole, `outside` the PSNR of all the rest in decibels."""

    inside: float
    outside: float


def inpainting(
    result: np.ndarray, source: np.ndarray, mask: np.ndarray, asked: Sequence[Asked], seen: Seen
) -> Inpainting:
    """`result` and `source` (h, w, 3) uint8; `mask` (h, w) bool, true in the hole; `seen` the judge's view of the result."""
    height, width = mask.shape

    def in_hole(thing: SeenThing) -> bool:
        x, y = (min(max(int(c), 0), most - 1) for c, most in zip(thing.centre, (width, height), strict=True))
        return bool(mask[y, x])

    inside = fulfilled(asked, [t for t in seen.things if in_hole(t)])
    return Inpainting(float(inside), psnr(result[~mask], source[~mask]))


def psnr(picture: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 arrays in decibels, at most 99."""
    error = np.square(picture.astype(np.float64) - other).mean() if picture.size else 0.0
    return float(min(10 * np.log10(255**2 / max(error, 1e-9)), 99.0))

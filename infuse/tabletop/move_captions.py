"""Moves in words: the still scene's caption, and what each solid and the camera do over the clip.

Directions are the camera's: left, right, to the wall, to the front. Where a direction can be said in words that still
captions know ("to the left", "to the wall"), the first way of saying it does: a text encoder of still scenes has met them.
"""

from dataclasses import dataclass
from math import cos, sin

import numpy as np

from infuse.tabletop.captions import (
    LIGHT_WORDS,
    OPENINGS,
    SAY_LIGHT,
    Asked,
    Prompt,
    _a,
    _list,
    _room,
    _word,
    canonical,
    describe,
)
from infuse.tabletop.moves import CameraRoute, Move, Route, move_at
from infuse.tabletop.world import box

DIRECTIONS: dict[str, tuple[str, ...]] = {
    "left": ("to the left", "left", "from right to left"),
    "right": ("to the right", "right", "from left to right"),
    "away": ("to the wall", "away", "back"),
    "closer": ("to the front", "closer", "forward"),
}
VERBS = {"move": ("moves", "moves", "slides", "goes"), "hop": ("hops", "hops", "jumps")}
TURNING, STANDING = ("turns", "turns around"), ("stands still", "does not move")
CAMERA_WAYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("pan", "left"): ("turns to the left", "turns left", "looks left"),
    ("pan", "right"): ("turns to the right", "turns right", "looks right"),
    ("orbit", "left"): ("moves to the left", "moves left", "goes left"),
    ("orbit", "right"): ("moves to the right", "moves right", "goes right"),
    ("dolly", "closer"): ("moves closer", "comes closer", "goes closer"),
    ("dolly", "away"): ("moves away", "moves back", "goes back"),
}
SAY_STANDING, AFTERWARDS, TERSE = 0.3, 0.4, 0.12
DROP_SIZES, DROP_FLOOR, DROP_WALL, DROP_CAMERA = 0.25, 0.15, 0.15, 0.15


@dataclass(frozen=True)
class Motion:
    """What one solid does. `direction` is a key of DIRECTIONS, or None if it stays where it is."""

    direction: str | None = None
    hops: bool = False
    turns: bool = False


@dataclass(frozen=True)
class MovePrompt(Prompt):
    """A prompt for a clip. `motions` stand beside `things`; `camera` is a key of CAMERA_WAYS, or None where nothing is said."""

    motions: tuple[Motion, ...] = ()
    camera: tuple[str, str] | None = None


def motion(route: Route) -> Motion:
    """The route in the terms of a caption."""
    course = route.heading + route.curve / 2
    across, back = route.length * cos(course), route.length * sin(course)
    turns = abs(route.turn) > 0.2
    if not route.length:
        return Motion(None, bool(route.hops), turns)
    if abs(across) >= abs(back):
        return Motion("left" if across < 0 else "right", bool(route.hops), turns)
    return Motion("closer" if back < 0 else "away", bool(route.hops), turns)


def camera_motion(route: CameraRoute) -> tuple[str, str] | None:
    """The camera's strongest motion as a key of CAMERA_WAYS, or None if it stands still."""
    ways = {
        "pan": (route.pan, "left", "right"),
        "orbit": (route.orbit, "left", "right"),
        "dolly": (route.dolly, "away", "closer"),
    }
    kind = max(ways, key=lambda k: abs(ways[k][0]))
    amount, backward, forward = ways[kind]
    return (kind, backward if amount < 0 else forward) if amount else None


def canonical_move(move: Move) -> MovePrompt:
    """Everything, in one fixed way: solids from left to right with size and motion, floor, wall, camera."""
    base = canonical(move.scene)
    pairs = zip(move.scene.things, move.routes, strict=True)  # from left to right, as `canonical` has them
    motions = tuple(motion(route) for _, route in sorted(pairs, key=lambda p: sum(box(p[0], move.scene.camera)[::2])))
    names = [f"a {a.size} {a.colour} {a.shape}" for a in base.things]
    listed = _list([" ".join(filter(None, (n, _said(m)))) for n, m in zip(names, motions, strict=True)])
    room, camera = move.scene.room, camera_motion(move.camera)
    text = f"{listed} on {_a(room.floor)} floor, {room.wall} wall{f', {_camera_said(camera)}' if camera else ''}"
    return MovePrompt(text, base.things, room.floor, room.wall, None, (), motions, camera)


def describe_move(move: Move, rng: np.random.Generator) -> MovePrompt:
    """One of many ways to say it. Every solid is mentioned with colour and shape, every motion with its direction."""
    camera = camera_motion(move.camera) if rng.random() >= DROP_CAMERA else None
    pairs = {(t.shape, t.colour): motion(p) for t, p in zip(move.scene.things, move.routes, strict=True)}
    few = sum(its != Motion() for its in pairs.values()) < 3  # three clauses would not fit into 77 tokens
    if few and len(pairs) == len(move.routes) and rng.random() < AFTERWARDS:
        return _afterwards(move, pairs, camera, rng)
    order = rng.permutation(len(move.routes))
    sized = rng.random() >= DROP_SIZES
    things = [move.scene.things[i] for i in order]
    asked = tuple(Asked(t.shape, t.colour, t.size if sized else None) for t in things)
    motions = tuple(motion(move.routes[i]) for i in order)
    room = move.scene.room
    floor = room.floor if rng.random() >= DROP_FLOOR else None
    wall = room.wall if rng.random() >= DROP_WALL else None
    light = room.light if rng.random() < SAY_LIGHT else None
    names = [" ".join(_word(w, rng) for w in (a.size, a.colour, a.shape) if w) for a in asked]
    terse = rng.random() < TERSE
    if not terse:
        names = [_a(name) for name in names]
    names = [" ".join(filter(None, (n, _said(m, rng)))) for n, m in zip(names, motions, strict=True)]
    parts = [", ".join(names) if terse else OPENINGS[rng.integers(len(OPENINGS))] + _list(names)]
    around = _room(floor, wall, rng)
    if around.startswith(("on", "in")) and not terse:
        parts[0] += f" {around}"
    elif around:
        parts.append(around)
    parts += [LIGHT_WORDS[light]] if light else []
    parts += [_camera_said(camera, rng)] if camera else []
    return MovePrompt(", ".join(parts), asked, floor, wall, light, (), motions, camera)


def _afterwards(
    move: Move, pairs: dict[tuple[str, str], Motion], camera: tuple[str, str] | None, rng: np.random.Generator
) -> MovePrompt:
    """A still caption first, then a clause for each that moves: "..., the red cube moves to the left"."""
    base = describe(move.scene, rng)
    motions = tuple(pairs[a.shape, a.colour] for a in base.things)
    clauses = [base.text]
    for asked, its in zip(base.things, motions, strict=True):
        if its != Motion():
            alone = sum(a.shape == asked.shape for a in base.things) == 1 and rng.random() < 0.5
            clauses.append(f"the {asked.shape if alone else f'{asked.colour} {asked.shape}'} {_said(its, rng)}")
    clauses += [_camera_said(camera, rng)] if camera else []
    return MovePrompt(
        ", ".join(clauses), base.things, base.floor, base.wall, base.light, base.relations, motions, camera
    )


def move_prompts(count: int, seed: int) -> list[MovePrompt]:
    """`count` prompts of random moves of the stream `seed`; take a held-out seed to ask for the unseen."""
    return [describe_move(move_at(seed, i), np.random.default_rng((seed, i, 2))) for i in range(count)]


def _said(its: Motion, rng: np.random.Generator | None = None) -> str:
    """The motion as a verb and its direction; the first way without a generator."""
    if its.direction:
        return f"{_one(VERBS['hop' if its.hops else 'move'], rng)} {_one(DIRECTIONS[its.direction], rng)}"
    if its.hops:
        return _one(VERBS["hop"], rng)
    if its.turns:
        return _one(TURNING, rng)
    return _one(STANDING, rng) if rng and rng.random() < SAY_STANDING else ""


def _camera_said(camera: tuple[str, str], rng: np.random.Generator | None = None) -> str:
    return f"the camera {_one(CAMERA_WAYS[camera], rng)}"


def _one(ways: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return ways[int(rng.integers(len(ways)))] if rng else ways[0]

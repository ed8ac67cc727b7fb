"""A moving scene is a value: a scene, a route for each solid and one for the camera. `move.at(t)` is a still scene again.

Time runs from 0 to 1 over a clip, however many frames it is cut into. Solids travel on circular arcs at an even speed,
may turn about their upright axis and hop; the camera may pan, orbit or dolly a little.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from math import cos, hypot, pi, sin

import numpy as np

from infuse.tabletop.world import VERSION, WALL_Y, Box, Camera, Scene, Thing, Vec3, box, sample

MOVES_VERSION = 1  # part of every cache key, beside world.VERSION: raise it whenever a move would come out differently
SALT = 0x6D6F7665  # "move": no still scene's generator is seeded with it, so the two kinds of streams share no scene
TRAVEL = (0.15, 0.45)  # of the picture's width: what a travelling solid covers over a clip
ALL_STILL, TRAVELS, TURNS, HOPS, CURVES = 0.15, 0.7, 0.35, 0.2, 0.5
CAMERA_STILL = 0.6
PAN, ORBIT, DOLLY = (0.04, 0.11), (0.08, 0.25), (0.06, 0.15)
APART = 0.06  # world units between two solids, or a solid and the wall, at any time
EDGE = 0.01  # of the picture, kept free around every solid at any time
MAX_COVERED = 0.45  # of a solid's box that another's may cover: they pass in front of each other
MOMENTS = tuple(i / 8 for i in range(9))  # when those rules are checked
TRIES = 8  # of a solid's route, and of all routes together, before another scene is taken


@dataclass(frozen=True)
class Route:
    """How a solid moves over a clip: off in direction `heading` (0 to the right, pi / 2 away from the camera).

    `length` is in world units along an arc that veers by `curve` radians to the left; `turn` is added to its yaw; `hops`
    times it rises by `height`.
    """

    heading: float = 0.0
    length: float = 0.0
    curve: float = 0.0
    turn: float = 0.0
    hops: int = 0
    height: float = 0.0

    def at(self, thing: Thing, t: float) -> Thing:
        """Where the solid is at time t in 0..1."""
        half = self.curve * t / 2  # an arc's chord points half as far round as the arc has turned
        chord = self.length * t * (sin(half) / half if half else 1.0)
        return replace(
            thing,
            x=thing.x + chord * cos(self.heading + half),
            y=thing.y + chord * sin(self.heading + half),
            yaw=thing.yaw + self.turn * t,
            lift=thing.lift + self.height * sin(pi * self.hops * t) ** 2,
        )


@dataclass(frozen=True)
class CameraRoute:
    """How the camera moves over a clip: each of the three from 0, and evenly.

    `pan` turns the view to the right on the spot, `orbit` carries the eye to the right around its target (both in
    radians), `dolly` brings it nearer by that fraction of the distance.
    """

    pan: float = 0.0
    orbit: float = 0.0
    dolly: float = 0.0

    def at(self, camera: Camera, t: float) -> Camera:
        """The camera at time t in 0..1."""
        (x, y, z), (u, v, w) = _turned(camera.eye, camera.target, self.orbit * t), camera.target
        near = self.dolly * t
        eye = (x + near * (u - x), y + near * (v - y), z + near * (w - z))
        return replace(camera, eye=eye, target=_turned(camera.target, eye, -self.pan * t))


STAY, HOLD = Route(), CameraRoute()


@dataclass(frozen=True)
class Move:
    """A scene as it stands at time 0, one route for each of its solids, and the camera's."""

    scene: Scene
    routes: tuple[Route, ...]
    camera: CameraRoute = HOLD

    def __post_init__(self) -> None:
        if len(self.routes) != len(self.scene.things):
            raise ValueError(
                f"routes: {len(self.routes)} for {len(self.scene.things)} solids. Give one to each, or STAY."
            )

    def at(self, t: float) -> Scene:
        """The still scene at time t in 0..1."""
        things = tuple(route.at(thing, t) for route, thing in zip(self.routes, self.scene.things, strict=True))
        return replace(self.scene, things=things, camera=self.camera.at(self.scene.camera, t))


def times(frames: int) -> tuple[float, ...]:
    """When the frames are taken: the first at 0, the last at 1."""
    return tuple(k / max(frames - 1, 1) for k in range(frames))


def scenes(move: Move, frames: int) -> tuple[Scene, ...]:
    """The move as that many still scenes."""
    return tuple(move.at(t) for t in times(frames))


def centre(thing: Thing, camera: Camera) -> tuple[float, float]:
    """The middle of the solid's box, in 0..1 of a square picture."""
    left, top, right, bottom = box(thing, camera)
    return (left + right) / 2, (top + bottom) / 2


def travel(thing: Thing, route: Route, camera: Camera) -> float:
    """How far the solid comes over a clip, from start to end, in picture widths as a still camera sees it."""
    (u, v), (x, y) = centre(thing, camera), centre(replace(route, hops=0).at(thing, 1.0), camera)
    return hypot(x - u, y - v)


def move_at(seed: int, index: int) -> Move:
    """The move of that number in an endless, reproducible stream; streams of different seeds share no moves."""
    return sample_move(np.random.default_rng((VERSION, seed, index, SALT, MOVES_VERSION)))


def sample_move(rng: np.random.Generator) -> Move:
    """A random move. It starts from a scene like any other, so a clip's first frame looks like a still picture."""
    all_still, count = rng.random() < ALL_STILL, int(rng.integers(1, 4))
    while True:
        scene = sample(rng)
        if len(scene.things) != count:  # settled before the tries too: else single solids would win
            continue
        goes = [not all_still and rng.random() < TRAVELS for _ in scene.things]
        goes[int(rng.integers(len(goes)))] |= not all_still
        # how far is settled before the tries: else short ways, which fit more easily, would win
        ways = [float(rng.uniform(*TRAVEL)) if go else 0.0 for go in goes]
        camera = _camera(rng, CAMERA_STILL if not all_still else CAMERA_STILL / 2)
        cameras = [camera.at(scene.camera, t) for t in MOMENTS]
        for _ in range(TRIES):
            found = [_fitting(thing, way, cameras, rng) for thing, way in zip(scene.things, ways, strict=True)]
            routes = tuple(route for route in found if route)
            if len(routes) < count:
                break  # somebody stands where there is no way to go
            if _apart(move := Move(scene, routes, camera), cameras):
                return move


def _fitting(thing: Thing, way: float, cameras: list[Camera], rng: np.random.Generator) -> Route | None:
    """A random route that stays in view and in front of the wall, and comes as far as it should; None if none is found."""
    for _ in range(TRIES):
        route = _route(thing, way, cameras[0], rng)
        if (not way or TRAVEL[0] <= travel(thing, route, cameras[0]) <= TRAVEL[1]) and _in_view(thing, route, cameras):
            return route
    return None


def _route(thing: Thing, way: float, camera: Camera, rng: np.random.Generator) -> Route:
    """A route of about that travel: mostly sideways, sometimes in depth. Only cubes turn, of the others none would see it."""
    turn = _either(rng, (0.4, 1.5)) if thing.shape == "cube" and rng.random() < TURNS else 0.0
    if not way:
        return Route(turn=turn)
    sideways = rng.random() < 0.6
    heading = pi * int(rng.integers(2)) + (0.0 if sideways else pi / 2) + float(rng.normal(0, 0.35))
    curve = float(rng.uniform(-1.4, 1.4)) if rng.random() < CURVES else 0.0
    hops, height = (int(rng.integers(1, 4)), float(rng.uniform(0.15, 0.45))) if rng.random() < HOPS else (0, 0.0)
    length = way / max(travel(thing, Route(heading, 1.0, curve), camera), 0.05)  # all but proportional
    return Route(heading, length, curve, turn, hops, height)


def _camera(rng: np.random.Generator, still: float) -> CameraRoute:
    if rng.random() < still:
        return HOLD
    ways = (
        CameraRoute(pan=_either(rng, PAN)),
        CameraRoute(orbit=_either(rng, ORBIT)),
        CameraRoute(dolly=_either(rng, DOLLY)),
    )
    return ways[int(rng.integers(3))]


def _either(rng: np.random.Generator, bounds: tuple[float, float]) -> float:
    """An amount within the bounds, to one side or the other."""
    return float(rng.uniform(*bounds)) * (1 if rng.random() < 0.5 else -1)


def _in_view(thing: Thing, route: Route, cameras: list[Camera]) -> bool:
    """Whether the solid always stays in the picture, and in front of the wall."""
    for t, camera in zip(MOMENTS[::-1], cameras[::-1], strict=True):  # from the end, where most misfits show
        now = route.at(thing, t)
        left, top, right, bottom = box(now, camera)
        if min(left, top) < EDGE or max(right, bottom) > 1 - EDGE or now.y + now.extent[0] > WALL_Y - APART:
            return False
    return True


def _apart(move: Move, cameras: list[Camera]) -> bool:
    """Whether no solid ever runs into another, or hides it."""
    moments = [move.at(t).things for t in MOMENTS]
    for a, b in (pair for things in moments for pair in combinations(things, 2)):
        if hypot(a.x - b.x, a.y - b.y) < a.extent[0] + b.extent[0] + APART:
            return False
    boxes = ([box(thing, camera) for thing in things] for things, camera in zip(moments, cameras, strict=True))
    return not any(_covered(a, b) for seen in boxes for a, b in combinations(seen, 2))


def _covered(a: Box, b: Box) -> bool:
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b))
    return max(wide, 0.0) * max(high, 0.0) > MAX_COVERED * smaller


def _turned(point: Vec3, around: Vec3, angle: float) -> Vec3:
    """The point turned about an upright axis, counter-clockwise as seen from above."""
    x, y = point[0] - around[0], point[1] - around[1]
    return around[0] + x * cos(angle) - y * sin(angle), around[1] + x * sin(angle) + y * cos(angle), point[2]

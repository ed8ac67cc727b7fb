"""A scene is a value: one to three solids, a room, a light and a camera. Everything else in the tabletop follows from it.

World axes: x to the right, y away from the camera, z up; one unit is roughly the height of a large solid. Positions are
continuous, so a moving scene is just a sequence of scenes. All numbers that define the world stand in this file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from math import atan2, cos, hypot, sin

import numpy as np

VERSION = 1  # part of every cache key: raise it whenever a scene or its picture would come out differently

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLOURS: dict[str, tuple[float, float, float]] = {  # sRGB in 0..1
    "red": (0.86, 0.10, 0.10),
    "green": (0.12, 0.62, 0.16),
    "blue": (0.12, 0.24, 0.88),
    "yellow": (0.97, 0.83, 0.10),
    "purple": (0.52, 0.16, 0.74),
    "orange": (0.98, 0.48, 0.06),
    "cyan": (0.10, 0.78, 0.84),
    "white": (0.97, 0.97, 0.97),
}
SIZES = {"small": 0.47, "large": 0.80}  # the radius of the sphere of that size, in world units
MATERIALS = ("plain", "wood", "gold")  # what a solid is made of; `sample` makes all of them plain
ROOM_COLOURS: dict[str, tuple[float, float, float]] = {  # muted, so that no solid can be mistaken for a wall
    "grey": (0.58, 0.58, 0.58),
    "beige": (0.84, 0.77, 0.62),
    "brown": (0.45, 0.31, 0.21),
    "olive": (0.47, 0.50, 0.30),
    "slate": (0.33, 0.40, 0.52),
    "rose": (0.78, 0.54, 0.55),
}
LIGHTS: dict[str, tuple[float, float, float]] = {  # where the lamp hangs
    "left": (-4.2, -3.6, 5.2),
    "right": (4.2, -3.6, 5.2),
    "above": (0.0, -1.6, 6.4),
}
LAMP_RADIUS = 0.45  # a disc, so that shadows have soft edges
WALL_Y = 2.3
FIELD_X, FIELD_Y = (-1.75, 1.75), (-1.5, 1.1)  # where solids may stand
EYE, TARGET = (0.0, -6.2, 2.7), (0.0, 0.0, 0.45)
EYE_JITTER = (0.18, 0.10, 0.10)
FOCAL = 1.56  # in picture widths
NEAR, FAR = 3.8, 10.0  # the depths drawn as white and black in an inverse-depth map
MARGIN = 0.02  # of the picture, kept free around every solid
MAX_OVERLAP = 0.18  # of a solid's box that another solid's box may cover

Vec3 = tuple[float, float, float]
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Thing:
    """A solid standing at (x, y), `lift` world units above the floor, turned by `yaw` radians about its upright axis.

    Where it is of wood or gold, its colour is not seen.
    """

    shape: str
    colour: str
    size: str
    x: float
    y: float
    yaw: float = 0.0
    lift: float = 0.0
    material: str = "plain"

    @property
    def radius(self) -> float:
        """Its size as the radius of the sphere of that size, in world units."""
        return SIZES[self.size]

    @property
    def extent(self) -> tuple[float, float]:
        """Half its width (at the widest) and its height, in world units."""
        r = self.radius
        return {"sphere": (r, 2 * r), "cube": (1.06 * r, 1.5 * r), "cylinder": (0.84 * r, 1.7 * r), "cone": (r, 2 * r)}[
            self.shape
        ]


@dataclass(frozen=True)
class Room:
    """Names of the floor's and the wall's colour, and the side the light comes from."""

    floor: str
    wall: str
    light: str


@dataclass(frozen=True)
class Camera:
    """A pinhole at `eye`, looking at `target`, upright. `focal` is in picture widths."""

    eye: Vec3 = EYE
    target: Vec3 = TARGET
    focal: float = FOCAL

    @cached_property
    def axes(self) -> tuple[Vec3, Vec3, Vec3]:
        """The unit vectors right, up and forward."""
        dx, dy, dz = (t - e for t, e in zip(self.target, self.eye, strict=True))
        heading, pitch = atan2(dx, dy), atan2(dz, hypot(dx, dy))
        forward = (sin(heading) * cos(pitch), cos(heading) * cos(pitch), sin(pitch))
        up = (-sin(heading) * sin(pitch), -cos(heading) * sin(pitch), cos(pitch))
        return (cos(heading), -sin(heading), 0.0), up, forward

    def project(self, point: Vec3) -> tuple[float, float, float]:
        """(u, v, depth): u from 0 (left) to 1 (right), v from 0 (top) to 1 (bottom) of a square picture."""
        offset = tuple(p - e for p, e in zip(point, self.eye, strict=True))
        x, y, depth = (sum(a * o for a, o in zip(axis, offset, strict=True)) for axis in self.axes)
        return 0.5 + self.focal * x / depth, 0.5 - self.focal * y / depth, depth


@dataclass(frozen=True)
class Scene:
    """What is to be seen. `render` turns it into a picture, `captions` into words."""

    things: tuple[Thing, ...]
    room: Room
    camera: Camera = field(default_factory=Camera)


def box(thing: Thing, camera: Camera) -> Box:
    """Where a solid appears, as (left, top, right, bottom) in 0..1 of a square picture: a little generous for cubes."""
    half, height = thing.extent
    u, v, depth = camera.project((thing.x, thing.y, thing.lift + height / 2))
    wide = camera.focal * half / depth
    ends = [camera.project((thing.x, thing.y + y, thing.lift + z))[1] for y in (-half, half) for z in (0.0, height)]
    if thing.shape == "sphere":
        return u - wide, v - wide, u + wide, v + wide
    if thing.shape == "cone":
        return u - wide, camera.project((thing.x, thing.y, thing.lift + height))[1], u + wide, max(ends)
    return u - wide, min(ends), u + wide, max(ends)


def _overlap(a: Box, b: Box) -> float:
    """The shared area as a fraction of the smaller box."""
    wide, high = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    smaller = min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))
    return max(wide, 0.0) * max(high, 0.0) / smaller


def fits(things: list[Thing], boxes: list[Box]) -> bool:
    """Whether the newest solid is wholly in the picture, apart from the others on the floor, and barely overlapping."""
    new, new_box = things[-1], boxes[-1]
    if min(new_box[:2]) < MARGIN or max(new_box[2:]) > 1 - MARGIN:
        return False
    return all(
        hypot(new.x - old.x, new.y - old.y) > new.extent[0] + old.extent[0] + 0.06
        and _overlap(new_box, old_box) <= MAX_OVERLAP
        for old, old_box in zip(things[:-1], boxes[:-1], strict=True)
    )


def _pick(rng: np.random.Generator, names: Iterable[str]) -> str:
    names = tuple(names)
    return names[int(rng.integers(len(names)))]


def sample(rng: np.random.Generator) -> Scene:
    """A random scene. Solids that do not fit are thrown again, all of them: placing one by one would favour the edges."""
    floor = _pick(rng, ROOM_COLOURS)
    room = Room(floor, _pick(rng, [c for c in ROOM_COLOURS if c != floor]), _pick(rng, LIGHTS))
    shift = rng.uniform(-1, 1, 3) * EYE_JITTER
    camera = Camera(eye=(EYE[0] + float(shift[0]), EYE[1] + float(shift[1]), EYE[2] + float(shift[2])))
    count = int(rng.integers(1, 4))
    while True:
        things: list[Thing] = []
        boxes: list[Box] = []
        for _ in range(count):
            shape, colour, size = (_pick(rng, names) for names in (SHAPES, COLOURS, SIZES))
            x, y, yaw = rng.uniform(*FIELD_X), rng.uniform(*FIELD_Y), rng.uniform(0, np.pi / 2)
            things.append(Thing(shape, colour, size, float(x), float(y), float(yaw)))
            boxes.append(box(things[-1], camera))
            if not fits(things, boxes):
                break
        else:
            return Scene(tuple(things), room, camera)


def scene_at(seed: int, index: int) -> Scene:
    """The scene of that number in an endless, reproducible stream; streams of different seeds share no scenes."""
    return sample(np.random.default_rng((VERSION, seed, index)))

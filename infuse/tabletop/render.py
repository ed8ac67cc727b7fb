"""A ray caster for the tabletop: scene in; picture, depth, segmentation, edges and positions out, all exact.

Every pixel is traced once; pixels on a contour are traced again on a 3 x 3 grid, which is all the antialiasing such
smooth pictures need. Shadows come from a lamp disc of eight points, colours are shaded in linear light.
"""

from dataclasses import dataclass

import numpy as np

from infuse.tabletop import _rays, materials
from infuse.tabletop.world import COLOURS, FAR, LAMP_RADIUS, LIGHTS, NEAR, ROOM_COLOURS, SHAPES, Scene

WALL, FLOOR, FIRST_THING = 0, 1, 2
GAMMA = 2.2


@dataclass(frozen=True)
class Position:
    """Where a solid is seen: its visible box (left, top, right, bottom) and that box's centre, in pixels.

    `visible` is the fraction of its silhouette that no other solid covers; 0 for a solid out of sight.
    """

    centre: tuple[float, float]
    box: tuple[float, float, float, float]
    visible: float


@dataclass(frozen=True)
class Render:
    """One scene as seen. `segments` holds 0 for the wall, 1 for the floor and 2 + i for the scene's i-th solid."""

    rgb: np.ndarray  # (h, w, 3) uint8
    depth: np.ndarray  # (h, w) float32, world units along the camera's axis
    segments: np.ndarray  # (h, w) uint8
    edges: np.ndarray  # (h, w) uint8, 255 on contours and creases, one pixel wide
    positions: tuple[Position, ...]

    @property
    def inverse_depth(self) -> np.ndarray:
        """(h, w) float32 in 0..1, near is white: the convention of depth ControlNets. See `inverse_depth`."""
        return inverse_depth(self.depth)


def inverse_depth(depth: np.ndarray) -> np.ndarray:
    """1/depth, scaled by the world's fixed NEAR and FAR (not by the picture), so that equal greys are equal distances."""
    return np.clip((1 / depth - 1 / FAR) / (1 / NEAR - 1 / FAR), 0, 1).astype(np.float32)


def depth_from_inverse(grey: np.ndarray) -> np.ndarray:
    """The inverse of `inverse_depth`: greys in 0..1 back to world units."""
    return (1 / (grey * (1 / NEAR - 1 / FAR) + 1 / FAR)).astype(np.float32)


def _linear(names: list[str], palette: dict[str, tuple[float, float, float]]) -> np.ndarray:
    return np.array([palette[n] for n in names], np.float64).reshape(-1, 3) ** GAMMA


def _lamp(light: str) -> np.ndarray:
    """(8, 3) points on the lamp: a disc facing the floor's middle, two rings of four."""
    centre = np.array(LIGHTS[light])
    axis = -centre / np.linalg.norm(centre)
    u = np.cross(axis, (0.0, 1.0, 0.0))
    u /= np.linalg.norm(u)
    angle = np.arange(8) * np.pi / 4
    reach = np.where(np.arange(8) % 2 == 0, 1.0, 0.5)[:, None] * LAMP_RADIUS
    return centre + reach * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * np.cross(axis, u))


def render(scene: Scene, size: tuple[int, int] = (128, 128)) -> Render:
    """Draw a scene at `size` = (width, height) pixels. The field of view across the shorter side is the same at any size."""
    width, height = size
    things = scene.things
    kinds = np.array([SHAPES.index(t.shape) for t in things], np.int64)
    solids = np.array([(t.x, t.y, t.lift, t.radius, np.cos(t.yaw), np.sin(t.yaw)) for t in things]).reshape(-1, 6)
    colours = np.concatenate(
        [_linear([scene.room.wall, scene.room.floor], ROOM_COLOURS), _linear([t.colour for t in things], COLOURS)]
    )
    frame = np.array([scene.camera.eye, *scene.camera.axes])
    focal = scene.camera.focal * min(width, height)
    rgb, depth, segments, faces, alone = _rays.draw(
        width, height, focal, frame, kinds, solids, colours, _lamp(scene.room.light)
    )
    if any(t.material != "plain" for t in things):
        rgb = materials.painted(things, rgb, segments, focal, frame, kinds, solids, colours, _lamp(scene.room.light))
    positions = tuple(_position(segments == FIRST_THING + i, int(alone[i])) for i in range(len(things)))
    return Render(rgb, depth, segments, contours(segments.astype(np.int64) * 8 + faces), positions)


def contours(labels: np.ndarray) -> np.ndarray:
    """(h, w) integer labels to (h, w) uint8 edges: 255 where the label changes to the right or below."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges.astype(np.uint8) * 255


def _position(mask: np.ndarray, alone: int) -> Position:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return Position((0.0, 0.0), (0.0, 0.0, 0.0, 0.0), 0.0)
    left, top, right, bottom = float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
    return Position(((left + right) / 2, (top + bottom) / 2), (left, top, right, bottom), float(mask.sum() / alone))

"""What a solid is made of, where that is more than a colour: wood, with its rings all through it, and gold.

The base has never seen either: a LoRA and an embedding are what teach it. A picture is drawn as ever; then what such solids
show of themselves is painted again, nine samples to a pixel. The grain is a solid texture: rings about a trunk that is a
little off the solid's middle and leans, so that a cut across them shows arcs and a cut along them streaks.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from infuse.tabletop._rays import AMBIENT, _lit, _shade, _trace, njit
from infuse.tabletop.world import MATERIALS, Thing

PLAIN, WOOD, GOLD = range(3)  # the order of world.MATERIALS
LIGHT, DARK = (0.84, 0.62, 0.38), (0.58, 0.36, 0.19)
"""sRGB of early wood (between the rings) and late wood (the rings)."""
RING = 0.36
"""World units from ring to ring: some thirteen pixels of a picture of 128, less than two cells of its latent. An autoencoder that shrinks
eightfold has no room for finer ones."""
LEAN, ASIDE = 0.42, 0.55
"""How far the trunk leans (a slope), and how far it stands beside the solid's middle (of its radius)."""
METAL, DEEP = (1.00, 0.82, 0.32), (0.36, 0.23, 0.05)
"""sRGB of what gold throws back, and of gold where it mirrors nothing bright."""


@njit(cache=True, fastmath=True)
def grain(x, y, z, radius):
    """0 (between rings) to 1 (the dark of a ring) at a point of a solid, from its middle, in its own axes."""
    u, v = x - ASIDE * radius - LEAN * z, y + 0.35 * radius + 0.25 * z
    angle = math.atan2(v, u)
    reach = math.sqrt(u * u + v * v)
    reach += 0.020 * math.sin(3.0 * angle + 2.1 * z) + 0.012 * math.sin(7.0 * z + 5.0 * u)
    along = reach / RING
    part = along - math.floor(along)
    return (0.5 - 0.5 * math.cos(2.0 * math.pi * part)) ** 1.2


@njit(cache=True, fastmath=True)
def _gold(kinds, solids, lamp, centre, colours, metal, deep, px, py, pz, nx, ny, nz, label, dx, dy, dz, out):
    """Add the linear colour of a point of gold: a blurred mirror of floor, wall and sky, and a wide highlight of its own hue."""
    along = 2.0 * (dx * nx + dy * ny + dz * nz)
    rx, ry, rz = dx - along * nx, dy - along * ny, dz - along * nz
    lx, ly, lz = centre[0] - px, centre[1] - py, centre[2] - pz
    length = math.sqrt(lx * lx + ly * ly + lz * lz)
    lx, ly, lz = lx / length, ly / length, lz / length
    cosine = nx * lx + ny * ly + nz * lz
    lit = (
        _lit(kinds, solids, lamp, centre, label - 2, px + 2e-3 * nx, py + 2e-3 * ny, pz + 2e-3 * nz)
        if cosine > 0
        else 0.0
    )
    towards = max(rx * lx + ry * ly + rz * lz, 0.0)
    up = 0.5 + 0.5 * math.tanh(4.0 * rz)  # what is mirrored: the floor below, the room above
    bright = 0.10 + 0.75 * up * (0.35 + 0.65 * max(cosine, 0.0) * lit)
    flat = math.sqrt((rx * rx + ry * ry) * (lx * lx + ly * ly)) + 1e-9
    streak = max((rx * lx + ry * ly) / flat, 0.0) ** 10 * (1.0 - nz * nz)  # as on brushed metal: along upright sides
    shine = lit * (0.6 * streak + 0.85 * towards**5 + 2.6 * towards**50)
    for k in range(3):
        below = (1.0 - up) * colours[1, k] * (0.55 if label >= 2 else 0.0)
        out[k] += deep[k] * 0.9 + metal[k] * (bright * 0.72 + below + shine) * (0.6 + AMBIENT)


@njit(cache=True, fastmath=True)
def repaint(rgb, labels, focal, frame, kinds, solids, colours, lamp, materials, light, dark, metal, deep):
    """Paint the pixels again in which a solid of wood or gold is seen, into rgb (h w 3) uint8."""
    height, width = labels.shape
    centre = np.array([lamp[:, 0].mean(), lamp[:, 1].mean(), lamp[:, 2].mean()])
    total = np.zeros(3)
    mine = colours.copy()
    for row in range(height):
        for column in range(width):
            special = False
            for k in range(9):
                y = min(max(row + k // 3 - 1, 0), height - 1)
                x = min(max(column + k % 3 - 1, 0), width - 1)
                special |= labels[y, x] >= 2 and materials[labels[y, x] - 2] != PLAIN
            if not special:
                continue
            total[:] = 0.0
            for k in range(9):
                rx = column + (k % 3 + 0.5) / 3 - width / 2
                ry = height / 2 - row - (k // 3 + 0.5) / 3
                t, nx, ny, nz, label, _, _, dx, dy, dz = _trace(kinds, solids, frame, rx, ry, focal)
                made = materials[label - 2] if label >= 2 else PLAIN
                px, py, pz = frame[0, 0] + t * dx, frame[0, 1] + t * dy, frame[0, 2] + t * dz
                if made == GOLD:
                    _gold(
                        kinds, solids, lamp, centre, colours, metal, deep,
                        px, py, pz, nx, ny, nz, label, dx, dy, dz, total,
                    )  # fmt: skip
                    continue
                if made == WOOD:
                    s = solids[label - 2]
                    x, y = px - s[0], py - s[1]
                    g = grain(s[4] * x + s[5] * y, s[4] * y - s[5] * x, pz - s[2] - 0.8 * s[3], s[3])
                    for c in range(3):
                        mine[label, c] = light[c] * (1.0 - g) + dark[c] * g
                _shade(kinds, solids, mine, lamp, centre, frame[0], t, nx, ny, nz, label, dx, dy, dz, total)
            for c in range(3):
                rgb[row, column, c] = np.uint8(255.0 * min(max(total[c] / 9.0, 0.0), 1.0) ** (1 / 2.2) + 0.5)
    return rgb


def painted(things: Sequence[Thing], rgb: np.ndarray, labels: np.ndarray, focal: float, *scene: Any) -> np.ndarray:
    """A picture (h w 3) uint8 with its solids of wood and gold as they are; `scene` as `_rays.draw` is given it."""
    kinds = np.array([MATERIALS.index(t.material) for t in things], np.int64)
    light, dark, metal, deep = (np.array(c) ** 2.2 for c in (LIGHT, DARK, METAL, DEEP))
    return repaint(rgb, labels, focal, *scene, kinds, light, dark, metal, deep)

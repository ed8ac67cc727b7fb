"""The inner loops of the renderer: where a ray meets the four solids, and what colour it finds there.

Numba compiles them where it is installed. Without it the same lines run as they stand, 150 times slower, to the same pixels:
a second for a picture, which is enough for a demo and not for a data set.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from infuse.tabletop.world import LAMP_RADIUS, WALL_Y

try:
    import numba
except ModuleNotFoundError:
    numba = None

COMPILED = numba is not None


def _as_it_is(**_: Any) -> Callable[[Any], Any]:
    return lambda function: function


njit: Callable[..., Callable[[Any], Any]] = numba.njit if numba else _as_it_is

SPHERE, CUBE, CYLINDER, CONE = range(4)  # the order of world.SHAPES
MISS = 1e9
EPS = 1e-4
AMBIENT, DIFFUSE, SPECULAR, SHININESS = 0.34, 0.86, 0.22, 38.0


@njit(cache=True, fastmath=True)
def _meet(kind, solid, ox, oy, oz, dx, dy, dz):
    """(distance, normal x, y, z, face) of the nearest hit with one solid; MISS if there is none."""
    radius = solid[3]
    x, y, z = ox - solid[0], oy - solid[1], oz - solid[2]
    # reject by the bounding sphere first: most rays miss most solids
    b = x * dx + y * dy + (z - radius) * dz
    c = x * x + y * y + (z - radius) * (z - radius) - 2.1 * radius * radius
    if b * b < c or (b > 0 and c > 0):
        return MISS, 0.0, 0.0, 0.0, 0
    if kind == 0:
        c = x * x + y * y + (z - radius) * (z - radius) - radius * radius
        disc = b * b - c
        if disc <= 0:
            return MISS, 0.0, 0.0, 0.0, 0
        t = -b - math.sqrt(disc)
        if t < EPS:
            return MISS, 0.0, 0.0, 0.0, 0
        return t, (x + t * dx) / radius, (y + t * dy) / radius, (z - radius + t * dz) / radius, 0
    if kind == 1:
        return _meet_cube(0.75 * radius, solid[4], solid[5], x, y, z, dx, dy, dz)
    if kind == 2:
        return _meet_cylinder(0.84 * radius, 1.7 * radius, x, y, z, dx, dy, dz)
    return _meet_cone(radius, 2 * radius, x, y, z, dx, dy, dz)


@njit(cache=True, fastmath=True)
def _meet_cube(half, cos, sin, x, y, z, dx, dy, dz):
    x, y = cos * x + sin * y, cos * y - sin * x
    dx, dy = cos * dx + sin * dy, cos * dy - sin * dx
    z -= half
    near, far, axis, side = -MISS, MISS, 0, 0.0
    for i in range(3):
        o = x if i == 0 else (y if i == 1 else z)
        d = dx if i == 0 else (dy if i == 1 else dz)
        if abs(d) < 1e-9:
            if abs(o) > half:
                return MISS, 0.0, 0.0, 0.0, 0
            continue
        enter, leave = (-half - o) / d, (half - o) / d
        sign = -1.0
        if enter > leave:
            enter, leave, sign = leave, enter, 1.0
        if enter > near:
            near, axis, side = enter, i, sign
        far = min(far, leave)
    if near > far or near < EPS:
        return MISS, 0.0, 0.0, 0.0, 0
    face = 1 + 2 * axis + (1 if side > 0 else 0)
    if axis == 0:
        return near, cos * side, sin * side, 0.0, face
    if axis == 1:
        return near, -sin * side, cos * side, 0.0, face
    return near, 0.0, 0.0, side, face


@njit(cache=True, fastmath=True)
def _meet_cylinder(radius, height, x, y, z, dx, dy, dz):
    best, nx, ny, nz, face = MISS, 0.0, 0.0, 0.0, 0
    a, b, c = dx * dx + dy * dy, x * dx + y * dy, x * x + y * y - radius * radius
    disc = b * b - a * c
    if disc > 0 and a > 1e-12:
        t = (-b - math.sqrt(disc)) / a
        if t > EPS and 0 <= z + t * dz <= height:
            best, nx, ny, nz, face = t, (x + t * dx) / radius, (y + t * dy) / radius, 0.0, 1
    for top in range(2):
        t = (top * height - z) / dz if abs(dz) > 1e-9 else MISS
        if EPS < t < best and (x + t * dx) ** 2 + (y + t * dy) ** 2 <= radius * radius:
            best, nx, ny, nz, face = t, 0.0, 0.0, 2.0 * top - 1.0, 2 + top
    return best, nx, ny, nz, face


@njit(cache=True, fastmath=True)
def _meet_cone(radius, height, x, y, z, dx, dy, dz):
    best, nx, ny, nz, face = MISS, 0.0, 0.0, 0.0, 0
    k = radius / height
    w = height - z  # distance below the tip
    a = dx * dx + dy * dy - k * k * dz * dz
    b = x * dx + y * dy + k * k * w * dz
    c = x * x + y * y - k * k * w * w
    disc = b * b - a * c
    if disc > 0 and abs(a) > 1e-12:
        root = math.sqrt(disc)
        for sign in (-1.0, 1.0):
            t = (-b + sign * root) / a
            if EPS < t < best and 0 <= z + t * dz <= height:
                px, py, slant = x + t * dx, y + t * dy, k * (w - t * dz)
                length = math.sqrt(px * px + py * py + (k * slant) ** 2) + 1e-12
                best, nx, ny, nz, face = t, px / length, py / length, k * slant / length, 1
    t = -z / dz if abs(dz) > 1e-9 else MISS
    if EPS < t < best and (x + t * dx) ** 2 + (y + t * dy) ** 2 <= radius * radius:
        best, nx, ny, nz, face = t, 0.0, 0.0, -1.0, 2
    return best, nx, ny, nz, face


@njit(cache=True, fastmath=True)
def _lit(kinds, solids, lamp, centre, own, px, py, pz):
    """The fraction of the lamp's points seen from a point of solid `own`, which is convex and cannot shade itself."""
    cx, cy, cz = centre[0] - px, centre[1] - py, centre[2] - pz
    reach = math.sqrt(cx * cx + cy * cy + cz * cz)
    near = 0  # one bit for each solid that comes close to the line of sight to the lamp's centre
    for i in range(kinds.shape[0]):
        r = solids[i, 3]
        x, y, z = solids[i, 0] - px, solids[i, 1] - py, solids[i, 2] + r - pz
        along = (x * cx + y * cy + z * cz) / reach
        off = 1.45 * r + LAMP_RADIUS * min(max(along, 0.0) / reach, 1.0)
        if i != own and along > -off and x * x + y * y + z * z - along * along < off * off:
            near |= 1 << i
    if near == 0:
        return 1.0
    blocked = 0
    for j in range(lamp.shape[0]):
        dx, dy, dz = lamp[j, 0] - px, lamp[j, 1] - py, lamp[j, 2] - pz
        length = math.sqrt(dx * dx + dy * dy + dz * dz)
        for i in range(kinds.shape[0]):
            if (near >> i) & 1:
                t = _meet(kinds[i], solids[i], px, py, pz, dx / length, dy / length, dz / length)[0]
                if t < length:
                    blocked += 1
                    break
    return 1.0 - blocked / lamp.shape[0]


@njit(cache=True, fastmath=True)
def _trace(kinds, solids, frame, rx, ry, focal):
    """(distance, normal, label, face) of what a camera ray through (rx, ry) pixels off centre finds first."""
    dx = frame[3, 0] * focal + frame[1, 0] * rx + frame[2, 0] * ry
    dy = frame[3, 1] * focal + frame[1, 1] * rx + frame[2, 1] * ry
    dz = frame[3, 2] * focal + frame[1, 2] * rx + frame[2, 2] * ry
    length = math.sqrt(dx * dx + dy * dy + dz * dz)
    dx, dy, dz = dx / length, dy / length, dz / length
    ox, oy, oz = frame[0, 0], frame[0, 1], frame[0, 2]
    t, nx, ny, nz, label, face = MISS, 0.0, -1.0, 0.0, 0, 0
    if dy > 1e-9:
        t = (WALL_Y - oy) / dy
    if dz < -1e-9 and -oz / dz < t:
        t, ny, nz, label = -oz / dz, 0.0, 1.0, 1
    hits = 0
    for i in range(kinds.shape[0]):
        s, sx, sy, sz, f = _meet(kinds[i], solids[i], ox, oy, oz, dx, dy, dz)
        if s < MISS:
            hits |= 1 << i
        if s < t:
            t, nx, ny, nz, label, face = s, sx, sy, sz, 2 + i, f
    return t, nx, ny, nz, label, face, hits, dx, dy, dz


@njit(cache=True, fastmath=True)
def _shade(kinds, solids, colours, lamp, centre, eye, t, nx, ny, nz, label, dx, dy, dz, out):
    """Add one sample's linear colour to `out`."""
    px, py, pz = eye[0] + t * dx, eye[1] + t * dy, eye[2] + t * dz
    qx, qy, qz = px + 2e-3 * nx, py + 2e-3 * ny, pz + 2e-3 * nz
    lx, ly, lz = centre[0] - px, centre[1] - py, centre[2] - pz
    length = math.sqrt(lx * lx + ly * ly + lz * lz)
    lx, ly, lz = lx / length, ly / length, lz / length
    cosine = nx * lx + ny * ly + nz * lz
    lit = _lit(kinds, solids, lamp, centre, label - 2, qx, qy, qz) if cosine > 0 else 0.0
    fall = 44.0 / (length * length + 4.0)  # gentle fall-off: the far corner is darker, not black
    near = 1.0  # contact shade: floor and wall lose ambient light next to a solid
    for i in range(kinds.shape[0]):
        if label != 2 + i:
            r = solids[i, 3]
            ax, ay, az = solids[i, 0] - px, solids[i, 1] - py, solids[i, 2] + 0.6 * r - pz
            near *= 1.0 - 0.62 * math.exp(-(ax * ax + ay * ay + az * az) / (0.75 * r * r))
    near *= 1.0 - 0.25 * math.exp(-4.0 * (pz if label == 0 else (WALL_Y - py if label == 1 else pz)))
    sky = (AMBIENT * (0.72 + 0.28 * nz)) * near
    diffuse = DIFFUSE * max(cosine, 0.0) * lit * fall
    hx, hy, hz = lx - dx, ly - dy, lz - dz
    half = math.sqrt(hx * hx + hy * hy + hz * hz)
    shine = 0.0
    if label >= 2 and cosine > 0:
        shine = SPECULAR * lit * max((nx * hx + ny * hy + nz * hz) / half, 0.0) ** SHININESS
    bounce = 0.16 * near * (0.5 - 0.5 * nz) if label >= 2 else 0.0  # light thrown back by the floor, in its colour
    for k in range(3):
        out[k] += colours[label, k] * (sky + diffuse + bounce * colours[1, k]) + shine


@njit(cache=True, fastmath=True)
def draw(width, height, focal, frame, kinds, solids, colours, lamp):
    """rgb (h, w, 3) uint8, depth (h, w), labels (h, w), faces (h, w) and each solid's unobstructed pixel count."""
    rgb = np.zeros((height, width, 3), np.uint8)
    depth = np.zeros((height, width), np.float32)
    labels = np.zeros((height, width), np.uint8)
    faces = np.zeros((height, width), np.uint8)
    normals = np.zeros((height, width, 3))
    rays = np.zeros((height, width, 3))
    reach = np.zeros((height, width))
    alone = np.zeros(kinds.shape[0], np.int64)
    centre = np.array([lamp[:, 0].mean(), lamp[:, 1].mean(), lamp[:, 2].mean()])
    for row in range(height):
        for column in range(width):
            rx, ry = column + 0.5 - width / 2, height / 2 - row - 0.5
            t, nx, ny, nz, label, face, hits, dx, dy, dz = _trace(kinds, solids, frame, rx, ry, focal)
            depth[row, column] = t * (dx * frame[3, 0] + dy * frame[3, 1] + dz * frame[3, 2])
            labels[row, column], faces[row, column], reach[row, column] = label, face, t
            normals[row, column, 0], normals[row, column, 1], normals[row, column, 2] = nx, ny, nz
            rays[row, column, 0], rays[row, column, 1], rays[row, column, 2] = dx, dy, dz
            for i in range(kinds.shape[0]):
                alone[i] += (hits >> i) & 1
    total = np.zeros(3)
    for row in range(height):
        for column in range(width):
            code = int(labels[row, column]) * 8 + faces[row, column]
            contour = False
            for k in range(8):  # the eight neighbours, clockwise
                y = min(max(row + (-1, -1, -1, 0, 1, 1, 1, 0)[k], 0), height - 1)
                x = min(max(column + (-1, 0, 1, 1, 1, 0, -1, -1)[k], 0), width - 1)
                contour |= int(labels[y, x]) * 8 + faces[y, x] != code
            total[:] = 0.0
            if contour:
                for k in range(9):
                    rx = column + (k % 3 + 0.5) / 3 - width / 2
                    ry = height / 2 - row - (k // 3 + 0.5) / 3
                    t, nx, ny, nz, label, face, hits, dx, dy, dz = _trace(kinds, solids, frame, rx, ry, focal)
                    _shade(kinds, solids, colours, lamp, centre, frame[0], t, nx, ny, nz, label, dx, dy, dz, total)
                total /= 9.0
            else:
                n, d = normals[row, column], rays[row, column]
                _shade(
                    kinds, solids, colours, lamp, centre, frame[0], reach[row, column],
                    n[0], n[1], n[2], int(labels[row, column]), d[0], d[1], d[2], total,
                )  # fmt: skip
            for k in range(3):
                rgb[row, column, k] = np.uint8(255.0 * min(max(total[k], 0.0), 1.0) ** (1 / 2.2) + 0.5)
    return rgb, depth, labels, faces, alone

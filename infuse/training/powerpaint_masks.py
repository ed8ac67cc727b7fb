"""Where PowerPaint learns to paint: one way of drawing a hole for each of its tasks, pure in the generator.

A hole is (height, width) uint8, 1 where the picture is repainted. Lengths are the paper's at 512 px and grow and shrink
with the picture. Source: Zhuang et al. 2023 (PowerPaint), sec. 3; open-mmlab/PowerPaint dev branch @aaed575 (numbers);
strokes and boxes after Suvorov et al. 2021 (LaMa).
"""

from __future__ import annotations

from math import ceil, sqrt

import numpy as np

Size = tuple[int, int]
"""(width, height) in pixels."""
Box = tuple[int, int, int, int]
"""(left, top, right, bottom) in pixels; right and bottom lie outside."""
Hole = np.ndarray

AT = 512
"""The shorter side for which the lengths below are meant."""
PADDING = 2
"""Pixels around an object's box."""
ROUGH = 3
"""Instance masks are grown three times by a 3 x 3 square before anything is measured: a square of this radius."""
KERNELS = tuple(range(3, 24, 2))
ITERATIONS = 9


def everything(size: Size) -> Hole:
    """No picture is left: text to image."""
    return np.ones(size[::-1], np.uint8)


def strokes(size: Size, rng: np.random.Generator) -> Hole:
    """Thick random strokes, boxes, or both, as LaMa draws them."""
    import cv2

    (width, height), side = size, min(size)
    hole = np.zeros((height, width), np.uint8)
    kind = int(rng.integers(3))
    for _ in range(int(rng.integers(1, 5)) if kind != 1 else 0):
        x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0, 2 * np.pi)
        thick = max(1, int(rng.uniform(0.05, 0.2) * side))
        for _ in range(int(rng.integers(1, 6))):
            angle, reach = angle + rng.normal(0, 0.9), rng.uniform(0.1, 0.4) * side
            start = (int(x), int(y))
            x, y = (
                float(np.clip(x + reach * np.cos(angle), 0, width)),
                float(np.clip(y + reach * np.sin(angle), 0, height)),
            )
            cv2.line(hole, start, (int(x), int(y)), 1, thick)
            cv2.circle(hole, (int(x), int(y)), thick // 2, 1, -1)
    for _ in range(int(rng.integers(1, 4)) if kind != 0 else 0):
        w, h = (max(1, int(rng.uniform(0.1, 0.5) * side)) for _ in range(2))
        left, top = int(rng.integers(0, max(1, width - w + 1))), int(rng.integers(0, max(1, height - h + 1)))
        hole[top : top + h, left : left + w] = 1
    return hole


def boxed(size: Size, rng: np.random.Generator, box: Box) -> Hole:
    """An object's box with a little room; half of the time with an uneven edge."""
    width, height = size
    pad = scaled(PADDING, size)
    left, top, right, bottom = box
    hole = np.zeros((height, width), np.uint8)
    hole[max(0, top - pad) : bottom + pad, max(0, left - pad) : right + pad] = 1
    return jagged(hole, rng) if rng.random() < 0.5 else hole


def box_of(instance: np.ndarray) -> Box:
    """The tight box around a silhouette."""
    x, y = np.flatnonzero(instance.any(0)), np.flatnonzero(instance.any(1))
    return int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1


def jagged(hole: Hole, rng: np.random.Generator) -> Hole:
    """The hole, united with itself pushed about by a smooth random field."""
    import cv2

    height, width = hole.shape
    length = sqrt(max(1, int(hole.sum())))
    spacing = max(0.3 * length, 4 * min(hole.shape) / AT, 1)
    grid = (ceil(height / spacing) + 1, ceil(width / spacing) + 1)
    dx, dy = (
        cv2.resize(rng.normal(0, 0.1 * length, grid).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        for _ in range(2)
    )
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return hole | cv2.remap(hole, x + dx, y + dy, cv2.INTER_NEAREST)


def fitted(instance: Hole, rng: np.random.Generator, *, original: bool = False) -> tuple[Hole, float]:
    """(an object's silhouette, grown; how tightly it fits: area of the object / area of the hole, 0-1).

    It grows by a square kernel of odd size 3-23, 0 to 9 times, as the paper means it. `original`: once, which is what its
    code does, because it hands the count to OpenCV in the place of another argument.
    """
    size = instance.shape[::-1]
    instance = grown(instance.astype(np.uint8), scaled(ROUGH, size))
    kernel, times = KERNELS[int(rng.integers(len(KERNELS)))], int(rng.integers(ITERATIONS + 1))
    hole = grown(instance, scaled((1 if original else times) * (kernel // 2), size))
    return hole, float(np.clip(instance.sum() / max(1, int(hole.sum())), 0, 1))


def bands(size: Size, rng: np.random.Generator) -> Hole:
    """A band along each side, or not, up to half as wide as the picture; along all four if along none."""
    width, height = size
    hole = np.zeros((height, width), np.uint8)
    sides = rng.random(4) < 0.5
    sides = sides if sides.any() else np.ones(4, bool)
    for k, (there, most) in enumerate(zip(sides, (width, height, width, height), strict=True)):
        n = int(rng.integers(1, max(2, most // 2 + 1)))
        if there:
            hole[(np.s_[:, :n], np.s_[:n], np.s_[:, most - n :], np.s_[most - n :])[k]] = 1
    return bands(size, rng) if hole.all() else hole  # both halves of an axis leave nothing to continue


def grown(mask: Hole, radius: int) -> Hole:
    """Dilated by a square of 2 radius + 1 pixels: the same as `radius` dilations by 3 x 3."""
    import cv2

    return cv2.dilate(mask, np.ones((2 * radius + 1,) * 2, np.uint8)) if radius else mask


def scaled(pixels: float, size: Size) -> int:
    """A length at 512 px in a picture of this size."""
    return round(pixels * min(size) / AT)

"""Teach the judge on renders whose truth is known, damaged a little: reconstructed, noised, blurred, tinted."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from infuse.tabletop.dataset import Dataset
from infuse.tabletop.judge import CELL, COLOUR_NAMES, GRID, ROOM_NAMES, SHAPE_NAMES, SIZE_NAMES, Judge
from infuse.tabletop.render import FIRST_THING
from infuse.tabletop.world import Scene

MOST = 3  # solids in a scene


@dataclass(frozen=True)
class Labels:
    """Per picture: (n, 3, 3) colour, shape and size of up to three solids, -1 where there is none; (n, 2) floor, wall."""

    things: np.ndarray
    room: np.ndarray


def labels_of(scenes: list[Scene]) -> Labels:
    """The names in the scenes as places in the world's lists."""
    things = np.full((len(scenes), MOST, 3), -1, np.int64)
    for row, scene in zip(things, scenes, strict=True):
        for i, t in enumerate(scene.things):
            row[i] = COLOUR_NAMES.index(t.colour), SHAPE_NAMES.index(t.shape), SIZE_NAMES.index(t.size)
    room = [[ROOM_NAMES.index(s.room.floor), ROOM_NAMES.index(s.room.wall)] for s in scenes]
    return Labels(things, np.array(room, np.int64))


@dataclass(frozen=True)
class JudgeBatch:
    """Pictures and the answers to them. Cell maps hold -1 where nothing is to be learned."""

    images: Tensor  # (b, 3, 128, 128) in 0..1
    heat: Tensor  # (b, 32, 32) in 0..1, 1 in the centre's cell
    attributes: Tensor  # (b, 3, 32, 32) colour, shape and size, -1 outside the neighbourhood of a centre
    box: Tensor  # (b, 4, 32, 32) distances to the sides, pixels
    segments: Tensor  # (b, 128, 128) classes
    depth: Tensor  # (b, 128, 128) inverse depth
    room: Tensor  # (b, 2)


class JudgeObjective:
    """`rebuilt` (m, 128, 128, 3) uint8 holds the first m pictures after a round trip through the autoencoder."""

    def __init__(self, judge: Judge, data: Dataset, *, rebuilt: np.ndarray | None = None, batch_size: int = 32) -> None:
        self.judge, self.data, self.rebuilt, self.batch_size = judge, data, rebuilt, batch_size
        self.labels = labels_of([data.scene(i) for i in range(len(data))])

    def modules(self) -> Mapping[str, nn.Module]:
        """The judge."""
        return {"judge": self.judge}

    def batch(self, rng: np.random.Generator) -> JudgeBatch:
        """Half of the pictures reconstructed where that is at hand, all of them damaged."""
        picks, images = picked(self.data, self.rebuilt, self.batch_size, rng)
        segments = np.stack([self.data.segments[i] for i in picks])
        things = self.labels.things[picks]
        depth = np.stack([self.data.inverse_depth[i] for i in picks])
        return JudgeBatch(
            damaged(images, rng),
            *_cells(segments, things),
            torch.from_numpy(_classes(segments, things)),
            torch.from_numpy(depth).float().div(255),
            torch.from_numpy(self.labels.room[picks]),
        )

    def loss(self, batch: JudgeBatch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """The sum of eight losses of about equal size."""
        looks = self.judge(batch.images)
        attributes = (looks.colour, looks.shape, looks.size)
        near = batch.attributes[:, :1] >= 0
        parts = {
            "heat": _focal(looks.heat, batch.heat),
            "names": sum(
                F.cross_entropy(x, y, ignore_index=-1)
                for x, y in zip(attributes, batch.attributes.unbind(1), strict=True)
            ),
            "box": 0.1 * ((looks.box - batch.box).abs() * near).sum() / near.sum().clamp(min=1) / 4,
            "segments": F.cross_entropy(looks.segments, batch.segments),
            "depth": 4 * (looks.depth - batch.depth).abs().mean(),
            "room": F.cross_entropy(looks.floor, batch.room[:, 0]) + F.cross_entropy(looks.wall, batch.room[:, 1]),
        }
        total = torch.stack([torch.as_tensor(p) for p in parts.values()]).sum()
        return total, {name: float(torch.as_tensor(p).detach()) for name, p in parts.items()}


def picked(
    data: Dataset, rebuilt: np.ndarray | None, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, Float[Tensor, "count 3 h w"]]:
    """Numbers of scenes and their pictures in 0..1, every other one of them reconstructed where that is at hand."""
    picks = rng.integers(len(data), size=count)
    if rebuilt is not None:
        picks[::2] = rng.integers(len(rebuilt), size=len(picks[::2]))
    pictures = np.stack([data.rgb[i] for i in picks])
    if rebuilt is not None:
        pictures[::2] = rebuilt[picks[::2]]
    return picks, torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div(255)


def damaged(images: Tensor, rng: np.random.Generator) -> Tensor:
    """(b, 3, h, w) in 0..1 with a slight tint, a blur on a third of them and noise, as generated pictures have them."""
    b, _, h, w = images.shape
    gain = torch.from_numpy(rng.uniform(0.93, 1.07, (b, 1, 1, 1)) * rng.uniform(0.97, 1.03, (b, 3, 1, 1))).float()
    shift = torch.from_numpy(rng.uniform(-0.03, 0.03, (b, 1, 1, 1))).float()
    noise = torch.from_numpy(rng.standard_normal(images.shape, np.float32))
    strength = torch.from_numpy(rng.uniform(0, 0.05, (b, 1, 1, 1)) * (rng.random((b, 1, 1, 1)) < 0.6)).float()
    blurred = F.interpolate(F.avg_pool2d(images, 2), (h, w), mode="bilinear")
    mix = torch.from_numpy(rng.uniform(0, 1, (b, 1, 1, 1)) * (rng.random((b, 1, 1, 1)) < 0.35)).float()
    return (torch.lerp(images, blurred, mix) * gain + shift + strength * noise).clamp(0, 1)


def _classes(segments: np.ndarray, things: np.ndarray) -> np.ndarray:
    """Instances to classes: 0 wall, 1 floor, 2 + shape."""
    table = np.concatenate([np.tile([[0, 1]], (len(things), 1)), things[..., 1] + FIRST_THING], 1)
    return np.take_along_axis(table, segments.reshape(len(things), -1).astype(np.int64), 1).reshape(segments.shape)


def _cells(segments: np.ndarray, things: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Heat, attributes and boxes on the grid. A solid's neighbourhood is its centre's cell and the eight around it."""
    b = len(things)
    heat, attributes = np.zeros((b, GRID, GRID), np.float32), np.full((b, 3, GRID, GRID), -1, np.int64)
    boxes = np.zeros((b, 4, GRID, GRID), np.float32)
    middle = (np.arange(GRID) + 0.5) * CELL
    for n in range(b):
        for i in range(MOST):
            mask = segments[n] == FIRST_THING + i
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            if not len(rows):
                continue
            left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
            row, column = int((top + bottom) / 2 / CELL), int((left + right) / 2 / CELL)
            spread = np.exp(-((np.arange(GRID) - row)[:, None] ** 2 + (np.arange(GRID) - column) ** 2) / 2.0)
            heat[n] = np.maximum(heat[n], np.where(spread > 0.05, spread, 0))
            here = np.s_[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            attributes[n][(slice(None), *here)] = things[n, i][:, None, None]
            sides = np.broadcast_arrays(
                middle[None] - left, middle[:, None] - top, right - middle[None], bottom - middle[:, None]
            )
            boxes[n][(slice(None), *here)] = np.stack(sides)[(slice(None), *here)]
    return torch.from_numpy(heat), torch.from_numpy(attributes), torch.from_numpy(boxes)


def _focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Penalty-reduced focal loss for heat maps (Law and Deng 2018, CornerNet, eq. 1), per centre."""
    p = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    centre = heat == 1
    hit = -((1 - p) ** 2) * p.log() * centre
    miss = -((1 - heat) ** 4) * p**2 * (1 - p).log() * ~centre
    return (hit + miss).sum() / centre.sum().clamp(min=1)


def accuracy(judge: Judge, data: Dataset, pictures: np.ndarray) -> dict[str, float]:
    """Score the judge on `pictures` (n, 128, 128, 3) uint8, versions of the data's first n; every number is in 0..1.

    A seen solid answers the true one whose box holds its centre. Attributes are counted over true solids (an unseen
    one is wrong); `picture` is the fraction of pictures with every solid, its three attributes and the count right.
    """
    names = ("found", "colour", "shape", "size", "solid")
    right, total = dict.fromkeys((*names, "picture", "floor", "wall", "pixels"), 0.0), 0
    for start in range(0, len(pictures), 64):
        part = torch.from_numpy(np.array(pictures[start : start + 64])).permute(0, 3, 1, 2).float().div(255)
        for i, seen in enumerate(judge.look(part), start):
            scene, segments = data.scene(i), np.array(data.segments[i])
            whole = len(seen.things) == len(scene.things)
            for k, thing in enumerate(scene.things):
                rows, columns = np.nonzero(segments == FIRST_THING + k)
                centre = np.array([(columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2])
                near = min(seen.things, key=lambda t, c=centre: float(np.abs(c - t.centre).max()), default=None)
                if near is None or np.abs(centre - near.centre).max() > 2 * CELL:
                    whole = False
                    continue
                marks = (near.colour == thing.colour, near.shape == thing.shape, near.size == thing.size)
                for name, mark in zip(names, (True, *marks, all(marks)), strict=True):
                    right[name] += mark
                whole &= all(marks)
            total += len(scene.things)
            right["picture"] += whole
            right["floor"] += seen.floor == scene.room.floor
            right["wall"] += seen.wall == scene.room.wall
            classes = _classes(segments[None], labels_of([scene]).things)[0]
            right["pixels"] += float((classes == seen.segments).mean())
    return {name: value / (total if name in names else len(pictures)) for name, value in right.items()}

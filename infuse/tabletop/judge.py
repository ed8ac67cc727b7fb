"""An eye that answers what is in a tabletop picture: solids with their attributes, the room, segments and depth.

One small network looks once. Solids are found as peaks of a heat map on a 32 x 32 grid (centre-point detection, as in
"Objects as Points", Zhou et al. 2019); the cell at a peak also tells colour, shape, size and box. It learns from renders
and from their reconstructions by the autoencoder, slightly damaged, so that it reads generated pictures as well.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from infuse.tabletop.world import COLOURS, ROOM_COLOURS, SHAPES, SIZES

PIXELS, GRID = 128, 32  # the size it looks at, and that of its heat map
CELL = PIXELS // GRID
CLASSES = 2 + len(SHAPES)  # wall, floor, then one for each shape
CONFIDENT = 0.35  # a lower peak of the heat map is no solid
SHAPE_NAMES, COLOUR_NAMES, SIZE_NAMES, ROOM_NAMES = SHAPES, tuple(COLOURS), tuple(SIZES), tuple(ROOM_COLOURS)


@dataclass(frozen=True)
class SeenThing:
    """A solid as recognised. `centre` (x, y) and `box` (left, top, right, bottom) of its visible part, in pixels."""

    shape: str
    colour: str
    size: str
    centre: tuple[float, float]
    box: tuple[float, float, float, float]
    confidence: float  # 0..1


@dataclass(frozen=True)
class Seen:
    """All that was recognised in one picture.

    `segments` (h, w) uint8: 0 wall, 1 floor, 2 + the shape's place in SHAPES. `inverse_depth` (h, w) float32 in 0..1,
    1 is near, in the world's fixed scale.
    """

    things: tuple[SeenThing, ...]  # the most certain first
    floor: str
    wall: str
    segments: np.ndarray
    inverse_depth: np.ndarray


@dataclass(frozen=True)
class Looks:
    """The network's raw answers: logits, and boxes as distances from the cell's centre in pixels of its 128."""

    heat: Tensor  # (b, 32, 32)
    colour: Tensor  # (b, 8, 32, 32)
    shape: Tensor  # (b, 4, 32, 32)
    size: Tensor  # (b, 2, 32, 32)
    box: Tensor  # (b, 4, 32, 32): to the left, top, right and bottom side
    segments: Tensor  # (b, 6, 128, 128)
    depth: Tensor  # (b, 128, 128) inverse depth
    floor: Tensor  # (b, 6)
    wall: Tensor  # (b, 6)


def _conv(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU(inplace=True))


class Judge(nn.Module):
    """Down from 32 to 8 cells a side for the context, up again to 32 for the answers. 0.72 M parameters."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, width, 8, CELL, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.fine = _conv(width, width)
        self.middle = nn.Sequential(_conv(width, 2 * width, 2), _conv(2 * width, 2 * width))
        self.coarse = nn.Sequential(_conv(2 * width, 128, 2), _conv(128, 128), _conv(128, 128))
        self.from_coarse, self.from_middle = nn.Conv2d(128, 2 * width, 1), nn.Conv2d(2 * width, width, 1)
        self.join_middle, self.join_fine = _conv(2 * width, 2 * width), _conv(width, 64)
        self.parts = (1, len(COLOURS), len(SHAPES), len(SIZES), 4)
        self.things = nn.Sequential(nn.Conv2d(64, 96, 1), nn.ReLU(), nn.Conv2d(96, sum(self.parts), 1))
        self.dense = nn.Sequential(nn.Conv2d(64, 96, 1), nn.ReLU(), nn.Conv2d(96, (CLASSES + 1) * CELL**2, 1))
        self.room = nn.Linear(64 + 128, 2 * len(ROOM_COLOURS))
        nn.init.constant_(self.things[-1].bias[:1], -4.0)  # type: ignore[index]  # most cells hold no centre

    def forward(self, images: Tensor) -> Looks:
        """(b, 3, 128, 128) in 0..1."""
        fine = self.fine(self.patches(images * 2 - 1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.join_middle(middle + F.interpolate(self.from_coarse(coarse), scale_factor=2))
        joined = self.join_fine(fine + F.interpolate(self.from_middle(middle), scale_factor=2))
        heat, colour, shape, size, box = self.things(joined).float().split(self.parts, 1)
        dense = F.pixel_shuffle(self.dense(joined).float(), CELL)
        room = self.room(torch.cat([joined.mean((2, 3)), coarse.mean((2, 3))], 1)).float()
        floor, wall = room.chunk(2, 1)
        return Looks(heat[:, 0], colour, shape, size, 32 * box, dense[:, :-1], dense[:, -1], floor, wall)

    @torch.no_grad()
    def look(self, images: Tensor, batch_size: int = 64) -> list[Seen]:
        """Recognise (b, 3, h, w) pictures in 0..1 of any size; positions come back in their own pixels."""
        self.eval()
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: shape {tuple(images.shape)} is not (batch, 3, height, width).")
        height, width = images.shape[-2:]
        seen: list[Seen] = []
        for part in images.float().split(batch_size):
            if (height, width) != (PIXELS, PIXELS):
                part = F.interpolate(part, (PIXELS, PIXELS), mode="bilinear", antialias=True)
            looks = self(part)
            classes = F.interpolate(looks.segments, (height, width), mode="bilinear").argmax(1).byte().numpy()
            depth = F.interpolate(looks.depth[:, None], (height, width), mode="bilinear")[:, 0].clamp(0, 1).numpy()
            for i in range(len(part)):
                floor, wall = (ROOM_NAMES[int(logits[i].argmax())] for logits in (looks.floor, looks.wall))
                things = _peaks(looks, i, (width / PIXELS, height / PIXELS))
                seen.append(Seen(things, floor, wall, classes[i], depth[i]))
        return seen

    def save(self, path: Path) -> None:
        """Write half-precision safetensors."""
        save_file({k: v.half() if v.is_floating_point() else v for k, v in self.state_dict().items()}, path)

    @staticmethod
    def load(path: Path) -> "Judge":
        """Read what `save` wrote."""
        judge = Judge()
        judge.load_state_dict(load_file(path))
        return judge.eval()


def _peaks(looks: Looks, index: int, scale: tuple[float, float]) -> tuple[SeenThing, ...]:
    """Cells hotter than their eight neighbours are solids."""
    heat = looks.heat[index].sigmoid()
    is_peak = (heat == F.max_pool2d(heat[None], 3, 1, 1)[0]) & (heat > CONFIDENT)
    found: list[SeenThing] = []
    for row, column in is_peak.nonzero().tolist():
        x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
        to_left, to_top, to_right, to_bottom = looks.box[index, :, row, column].tolist()
        left, right = ((x - to_left) * scale[0], (x + to_right) * scale[0])
        top, bottom = ((y - to_top) * scale[1], (y + to_bottom) * scale[1])
        shape, colour, size = (
            names[int(logits[index, :, row, column].argmax())]
            for names, logits in ((SHAPE_NAMES, looks.shape), (COLOUR_NAMES, looks.colour), (SIZE_NAMES, looks.size))
        )
        centre = ((left + right) / 2, (top + bottom) / 2)
        found.append(SeenThing(shape, colour, size, centre, (left, top, right, bottom), float(heat[row, column])))
    return tuple(sorted(found, key=lambda thing: -thing.confidence))

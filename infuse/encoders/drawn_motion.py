"""Motion that is drawn instead of filmed: arrows and paths for things, a pan and a zoom for the camera.

Each becomes part of one field in infuse's convention (see motion.py): a thing carries its velocity along with it, and
everything else moves as the camera makes it move.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from infuse.errors import RecipeError
from infuse.media.pictures import Picture
from infuse.validation import Strict

if TYPE_CHECKING:
    from jaxtyping import Float

SOFT = 0.3
"""The part of a radius over which a thing's edge fades."""


def _point(value: Any) -> tuple[float, float]:
    try:
        if isinstance(value, str | bytes | dict | set):
            raise TypeError
        x, y = (float(v) for v in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{value!r} is no point. Write [x, y] from 0 (left, top) to 1 (right, bottom).") from None
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(
            f"[{x:g}, {y:g}] lies outside of the canvas. Points are [x, y] from 0 (left, top) to 1 (right, bottom), not "
            "pixels."
        )
    return x, y


Point = Annotated[tuple[float, float], BeforeValidator(_point)]
"""x and y from 0 to 1 of the canvas, whatever its size."""


class Drawn(Strict, ABC):
    """A thing that moves. What moves is a disc of `radius`, or the white of `region`; its edge is soft."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    radius: float | None = Field(default=None, gt=0, le=1)
    """Part of the canvas's shorter side; 0.15 if neither radius nor region is given."""
    region: Picture | None = None
    """White where the thing is in the first frame; scaled to the canvas."""
    ease: Literal["linear", "smooth"] = "linear"
    """Even speed, or a soft start and stop."""

    @property
    @abstractmethod
    def way(self) -> tuple[tuple[float, float], ...]:
        """The points that it goes through."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Drawn:
        if self.radius is not None and self.region is not None:
            raise ValueError("radius and region both say what moves. Keep one of them.")
        if len(set(self.way)) < 2:
            raise ValueError("it begins and ends at the same point and would never move. Draw it longer.")
        return self

    def at(self, progress: float) -> tuple[float, float]:
        """Where its centre is (0-1 of the canvas) when this part of the film (0-1) is over."""
        way = np.array(self.way)
        lengths = np.concatenate([[0], np.hypot(*np.diff(way, axis=0).T).cumsum()])
        done = progress if self.ease == "linear" else progress * progress * (3 - 2 * progress)
        x, y = (float(np.interp(done * lengths[-1], lengths, way[:, i])) for i in (0, 1))
        return x, y


class Arrow(Drawn):
    """From here in the first frame to there in the last one, straight."""

    kind: Literal["arrow"] = "arrow"
    from_: Point = Field(alias="from")
    to: Point

    @property
    def way(self) -> tuple[tuple[float, float], ...]:
        return self.from_, self.to


class Path(Drawn):
    """Along a line through these points, from the first frame to the last one, at even speed (or eased)."""

    kind: Literal["path"] = "path"
    points: tuple[Point, ...] = Field(min_length=2, max_length=1000)

    @property
    def way(self) -> tuple[tuple[float, float], ...]:
        return self.points


def _kind(value: Any) -> str:
    """What has points is a path, everything else an arrow; `kind` may say so, too."""
    if isinstance(value, dict):
        return str(value.get("kind", "path" if "points" in value else "arrow"))
    return getattr(value, "kind", "arrow")


AnyDrawn = Annotated[
    Annotated[Arrow, Tag("arrow")] | Annotated[Path, Tag("path")],
    Discriminator(_kind, custom_error_type="drawn", custom_error_message="kind should be arrow or path"),
]
"""An arrow or a path in a recipe: `{from: [x, y], to: [x, y]}` or `{points: [[x, y], ...]}`."""


Far = Annotated[float, Field(ge=-10, le=10)]


class Camera(Strict):
    """What the camera does from the first frame to the last one, evenly. The content moves the other way."""

    pan: tuple[Far, Far] = (0.0, 0.0)
    """How far it looks to the right and down, in parts of the canvas, -10 to 10: at [0.2, 0] the content drifts 0.2 to the
    left."""
    zoom: float = Field(default=1.0, gt=0.01, lt=100)
    """How much larger things are in the last frame; below 1 it draws back."""

    @model_validator(mode="after")
    def _moves(self) -> Camera:
        if self.pan == (0, 0) and self.zoom == 1:
            raise ValueError("this camera stands still. Give it a pan or a zoom, or remove it.")
        return self


def drawn_motion(
    things: Sequence[Drawn], frames: int, height: int, width: int, camera: Camera | None = None
) -> Float[np.ndarray, "f 2 h w"]:
    """The field of everything that is drawn, in pixels per frame. Where things meet, their motions are mixed.

    A thing's motion is what is seen of it on the canvas; the camera does not add to it. Raises RecipeError if there are
    fewer than two frames, or a region is empty.
    """
    if frames < 2:
        raise RecipeError("frames", f"motion needs 2 frames, not {frames}. Ask for more, or remove what is drawn.")
    out = np.zeros((frames, 2, height, width), np.float32)
    shapes = [_Shape(thing, i, height, width) for i, thing in enumerate(things)]
    for k in range(1, frames):
        total, moved = np.zeros((height, width)), np.zeros((2, height, width))
        for shape in shapes:
            here, before = shape.place(k / (frames - 1)), shape.place((k - 1) / (frames - 1))
            share = shape.share(here)
            total += share
            moved += share * (here - before)[:, None, None]
        rest = 0.0 if camera is None else _camera_step(camera, k, frames, height, width)
        out[k] = moved / np.maximum(total, 1) + rest * (1 - np.minimum(total, 1))
    return out


class _Shape:
    """A thing on a canvas: how much of each pixel belongs to it (0-1) when its centre is at a place."""

    def __init__(self, thing: Drawn, i: int, height: int, width: int) -> None:
        self.thing, self.scale = thing, np.array([width, height])
        y, x = np.mgrid[:height, :width] + 0.5
        self.x, self.y = x, y
        self.radius = (thing.radius or 0.15) * min(height, width)
        self.mask: Any = None
        if thing.region is not None:
            import cv2

            mask = np.asarray(thing.region.mask.resize((width, height)), np.float32) / 255
            if mask.max() < 0.5:
                raise RecipeError(f"{i}.region", "it has no white pixel, so nothing would move. White is what moves.")
            self.mask = cv2.GaussianBlur(mask, (0, 0), max(0.5, 0.01 * min(height, width)))

    def place(self, progress: float) -> Float[np.ndarray, 2]:
        return np.array(self.thing.at(progress)) * self.scale

    def share(self, place: Float[np.ndarray, 2]) -> Float[np.ndarray, "h w"]:
        if self.mask is None:
            far = np.hypot(self.x - place[0], self.y - place[1]) / self.radius
            return np.clip((1 - far) / SOFT, 0, 1)
        import cv2

        dx, dy = place - self.place(0)
        return cv2.warpAffine(self.mask, np.array([[1, 0, dx], [0, 1, dy]]), self.mask.shape[::-1]).astype(np.float64)


def _camera_step(camera: Camera, k: int, frames: int, height: int, width: int) -> Float[np.ndarray, "2 h w"]:
    """What it does to the content between frames k-1 and k: content at X is seen at c + zoom * (X - c) - pan."""
    y, x = np.mgrid[:height, :width] + 0.5
    seen, c = np.stack([x, y]), np.array([width / 2, height / 2])[:, None, None]
    pan = np.array(camera.pan)[:, None, None] * np.array([width, height])[:, None, None]
    now, before = k / (frames - 1), (k - 1) / (frames - 1)
    return seen - (c + camera.zoom ** (before - now) * (seen - c + now * pan) - before * pan)


def arrows_picture(
    motion: Float[np.ndarray, "2 h w"] | Sequence[Drawn],
    on: Any = None,
    size: tuple[int, int] | None = None,
    every: int = 16,
) -> Any:
    """A PIL image with red arrows: of one frame's field, or of what was drawn.

    Of a field, the longest arrow of each block of `every` px, from where the content was to where it is; those of less
    than half a pixel are left out. `on`: a picture beneath (black if left out). `size`: (width, height) of the image, if
    not the picture's or the field's; 512 x 512 for drawn things without either.
    """
    from PIL import Image, ImageDraw

    field = motion if isinstance(motion, np.ndarray) else None
    canvas: tuple[int, int] = size or (on.size if on else (512, 512) if field is None else field.shape[:0:-1])
    image = Image.new("RGB", canvas) if on is None else on.convert("RGB").resize(canvas)
    pen = ImageDraw.Draw(image)
    if field is None:
        for thing in motion:
            _arrow(pen, [(x * canvas[0], y * canvas[1]) for x, y in thing.way], max(2, min(canvas) // 128))
        return image
    scale = np.array(canvas) / field.shape[:0:-1]
    for top in range(0, field.shape[1], every):
        for left in range(0, field.shape[2], every):
            block = field[:, top : top + every, left : left + every]
            y, x = np.unravel_index(np.hypot(*block).argmax(), block.shape[1:])
            if math.hypot(*(step := block[:, y, x])) >= 0.5:
                to = np.array([left + x + 0.5, top + y + 0.5])
                _arrow(pen, [tuple((to - step) * scale), tuple(to * scale)], 1)
    return image


def _arrow(pen: Any, way: Sequence[tuple[float, float]], width: int) -> None:
    """A red line with a head at its end."""
    pen.line(list(way), fill="red", width=width)
    (x0, y0), (x1, y1) = way[-2:]
    angle, head = math.atan2(y1 - y0, x1 - x0), 2 + 3 * width
    for side in (-0.5, 0.5):
        tip = (x1 - head * math.cos(angle + side), y1 - head * math.sin(angle + side))
        pen.line([(x1, y1), tip], fill="red", width=width)

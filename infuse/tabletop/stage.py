"""The demo's stage: one engine and one folder, who plays, and the scenes that are shown more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from infuse.conditions import AnyCondition
from infuse.recipe import Recipe
from infuse.tabletop.world import Box, Camera, Room, Scene, Thing

if TYPE_CHECKING:
    from infuse.engine.engine import Engine


@dataclass(frozen=True)
class Cast:
    """Names of the models that play, their size in pixels, and how long."""

    base: str = "tabletop"
    inpaint: str = "tabletop-inpaint"
    depth: str = "tabletop-depth"
    edit: str = "tabletop-edit"
    edges: str = "edges"
    depths: str = "depths"
    segments: str = "segments"
    adapter: str = "ip-adapter"
    video: str = "tabletop-video"
    side: int = 128
    steps: int = 30
    frames: int = 8
    clip_steps: int = 16
    guidance: float | None = None
    lora: str = "wood"


TABLE = Scene(
    (Thing("cube", "red", "large", -0.75, 0.2, 0.5), Thing("sphere", "blue", "small", 0.9, -0.5)), Room("grey", "beige", "left")
)  # fmt: skip
"""The picture that is painted over, in which holes are filled, and where things are taken away and put."""
LOOK = Scene(
    (Thing("cone", "orange", "large", -0.5, 0.0), Thing("cylinder", "cyan", "small", 0.9, -0.4)), Room("slate", "rose", "right")
)  # fmt: skip
"""The picture that is shown to the IP-Adapter."""


@dataclass(frozen=True)
class Stage:
    """Runs recipes, draws scenes, and keeps both in its folder. `say` is told of each picture."""

    engine: Engine
    cast: Cast
    out: Path
    say: Callable[[Path], None]

    def run(self, name: str, prompt: str, *conditions: AnyCondition, model: str = "", seed: int = 0) -> Image.Image:
        """One picture, saved with its recipe."""
        recipe = Recipe(model=model or self.cast.base, prompt=prompt, conditions=conditions, seed=seed, steps=self.cast.steps,
                        guidance=self.cast.guidance, width=self.cast.side, height=self.cast.side)  # fmt: skip
        result = self.engine.run(recipe)
        self.say(result.save(self.out / f"{name}.png")[0])
        return result.image

    def seen(self, scene: Scene, name: str) -> Image.Image:
        """A scene as the renderer draws it."""
        return self.kept(drawn(scene, self.cast.side).rgb, name)

    def edges(self, scene: Scene, name: str) -> Image.Image:
        return self.kept(np.repeat(drawn(scene, self.cast.side).edges[..., None], 3, axis=-1), name)

    def hole(self, boxes: Iterable[Box], name: str, room: int, right: int | None = None) -> Image.Image:
        """Around solids (boxes in pixels), white, with `room` pixels (`right` to the right, where shadows fall), to the nearest
        cells of the latent: where a hole ends inside of a cell, the whole cell is made anew and what stood there may return."""
        side, cell = self.cast.side, self.cast.side // 16
        covered = np.zeros((side, side), np.uint8)
        for box in boxes:
            wider = np.array(box) + np.array([-room, -room, room if right is None else right, room])
            left, top, far, bottom = (np.clip(np.round(wider / cell), 0, 16) * cell).astype(int)
            covered[top:bottom, left:far] = 255
        return self.kept(covered, name)

    def kept(self, array: np.ndarray, name: str) -> Image.Image:
        self.out.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(array)
        image.save(self.out / f"{name}.png")
        return image


@cache  # a second each where numba is not installed
def drawn(scene: Scene, side: int) -> Any:
    """The render of a scene, seen from where nothing shakes."""
    from infuse.tabletop.render import render

    return render(Scene(scene.things, scene.room, Camera()), (side, side))

"""Maps of a scene as a user brings them to a network: which solid covers each pixel, in colours, and how near it is."""

import numpy as np

from infuse.tabletop.render import FIRST_THING
from infuse.tabletop.world import SHAPES, Scene

KIND_COLOURS: dict[str, tuple[int, int, int]] = {
    "wall": (40, 40, 60), "floor": (150, 120, 90), "sphere": (230, 60, 60), "cube": (60, 200, 80),
    "cylinder": (70, 90, 240), "cone": (240, 210, 50),
}  # fmt: skip
"""Kind of surface -> its colour in a segmentation map. One colour a shape, whatever the solid's own colour is."""


def kinds(scene: Scene, segments: np.ndarray) -> np.ndarray:
    """(h w) a render's segments to (h w) uint8 classes: 0 wall, 1 floor, 2 + the shape's place in SHAPES."""
    return np.array([0, 1, *(FIRST_THING + SHAPES.index(t.shape) for t in scene.things)], np.uint8)[segments]


def painted(classes: np.ndarray) -> np.ndarray:
    """(h w) classes to (h w 3) uint8: the segmentation map that the tabletop's T2I-Adapter was shown."""
    return np.array([*KIND_COLOURS.values()], np.uint8)[classes]

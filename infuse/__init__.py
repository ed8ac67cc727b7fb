"""infuse: any combination of extra information into Stable Diffusion, in one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infuse.conditions import (
    BrushNet,
    Condition,
    ControlNet,
    DepthVideo,
    Img2Img,
    Inpaint,
    IPAdapter,
    MaskedVideo,
    Motion,
    PowerPaint,
    SingleImage,
    SingleSketch,
    Size,
    SketchVideo,
    StyleImage,
    Text,
    VideoToVideo,
)
from infuse.errors import Cancelled, CapacityError, InfuseError, RecipeError, WeightsError
from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.recipe import Recipe

if TYPE_CHECKING:
    from infuse.engine.engine import Engine

__version__ = "0.4.0"
__all__ = [
    "BrushNet",
    "Cancelled",
    "CapacityError",
    "Condition",
    "ControlNet",
    "DepthVideo",
    "Film",
    "IPAdapter",
    "Img2Img",
    "InfuseError",
    "Inpaint",
    "MaskedVideo",
    "Motion",
    "Picture",
    "PowerPaint",
    "Recipe",
    "RecipeError",
    "SingleImage",
    "SingleSketch",
    "Size",
    "SketchVideo",
    "StyleImage",
    "Text",
    "VideoToVideo",
    "WeightsError",
    "load",
]


def load(model: str = "tabletop", **options: Any) -> Engine:
    """An engine with this model as its default. `options` are the Engine's: dtype, device, max_rows, row_width...

    Raises WeightsError at once if there is no such model; its weights are read when the first recipe runs.
    """
    from infuse.engine.engine import Engine

    engine = Engine(model, **options)
    engine.store.view(model).spec  # noqa: B018  look it up now, not at the first request
    return engine

"""infuse: any combination of extra information into Stable Diffusion, in one call.

Names are fetched when they are first asked for (PEP 562), so that importing infuse imports nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infuse.conditions import (
        Box,
        BrushNet,
        CoAdapter,
        Condition,
        ControlNet,
        Depth,
        DepthVideo,
        Edit,
        Gligen,
        Img2Img,
        Inpaint,
        IPAdapter,
        Lora,
        MaskedVideo,
        Motion,
        PowerPaint,
        Reference,
        Regions,
        SingleImage,
        SingleSketch,
        Size,
        SketchVideo,
        StyleImage,
        T2IAdapter,
        T2IStyle,
        Text,
        UnCLIP,
        Upscale,
        VideoToVideo,
    )
    from infuse.engine.engine import Engine
    from infuse.errors import Cancelled, CapacityError, InfuseError, InfuseWarning, RecipeError, WeightsError
    from infuse.media.films import Film
    from infuse.media.pictures import Picture
    from infuse.recipe import Recipe
    from infuse.tabletop.examples import examples

__version__ = "0.8.0"
__all__ = [
    "Box",
    "BrushNet",
    "Cancelled",
    "CapacityError",
    "CoAdapter",
    "Condition",
    "ControlNet",
    "Depth",
    "DepthVideo",
    "Edit",
    "Film",
    "Gligen",
    "IPAdapter",
    "Img2Img",
    "InfuseError",
    "InfuseWarning",
    "Inpaint",
    "Lora",
    "MaskedVideo",
    "Motion",
    "Picture",
    "PowerPaint",
    "Recipe",
    "RecipeError",
    "Reference",
    "Regions",
    "SingleImage",
    "SingleSketch",
    "Size",
    "SketchVideo",
    "StyleImage",
    "T2IAdapter",
    "T2IStyle",
    "Text",
    "UnCLIP",
    "Upscale",
    "VideoToVideo",
    "WeightsError",
    "examples",
    "load",
]
HOMES = {
    "errors": ("Cancelled", "CapacityError", "InfuseError", "InfuseWarning", "RecipeError", "WeightsError"),
    "media.films": ("Film",),
    "media.pictures": ("Picture",),
    "recipe": ("Recipe",),
    "tabletop.examples": ("examples",),
}
"""Where names come from; all others are conditions."""
ROOMS = ("conditions", "errors", "media", "recipe")
"""Modules that are there without an import of their own: `infuse.errors.RecipeError`."""


def __getattr__(name: str) -> Any:
    if name in ROOMS:
        return import_module(f"infuse.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = next((home for home, names in HOMES.items() if name in names), "conditions")
    found = globals()[name] = getattr(import_module(f"infuse.{home}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *ROOMS})


def load(model: str = "tabletop", **options: Any) -> Engine:
    """An engine with this model as its default. `options` are the Engine's: dtype, device, max_rows, row_width...

    Raises WeightsError at once if there is no such model; its weights are read when the first recipe runs.
    """
    from infuse.engine.engine import Engine

    engine = Engine(model, **options)
    engine.store.view(model).spec  # noqa: B018  look it up now, not at the first request
    return engine

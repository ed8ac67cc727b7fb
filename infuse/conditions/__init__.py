"""Every condition, one mechanism per file. To add one: write its file and name it here."""

from typing import Annotated

from pydantic import Field

from infuse.conditions.base import Condition, Route
from infuse.conditions.brushnet import BrushNet
from infuse.conditions.controlnet import ControlNet
from infuse.conditions.img2img import Img2Img
from infuse.conditions.inpaint import Inpaint
from infuse.conditions.ip_adapter import IPAdapter
from infuse.conditions.powerpaint.condition import PowerPaint
from infuse.conditions.size import Size
from infuse.conditions.text import Text

AnyCondition = Annotated[
    Text | Img2Img | Inpaint | PowerPaint | BrushNet | ControlNet | IPAdapter | Size, Field(discriminator="kind")
]

__all__ = [
    "AnyCondition",
    "BrushNet",
    "Condition",
    "ControlNet",
    "IPAdapter",
    "Img2Img",
    "Inpaint",
    "PowerPaint",
    "Route",
    "Size",
    "Text",
]

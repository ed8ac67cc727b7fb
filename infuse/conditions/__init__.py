"""Every condition, one mechanism per file. To add one: write its file and name it here."""

from typing import Annotated

from pydantic import Field

from infuse.conditions.base import Condition, Route
from infuse.conditions.brushnet import BrushNet
from infuse.conditions.coadapter import CoAdapter
from infuse.conditions.controlnet.condition import ControlNet
from infuse.conditions.depth import Depth
from infuse.conditions.edit import Edit
from infuse.conditions.gligen import Box, Gligen
from infuse.conditions.img2img import Img2Img
from infuse.conditions.inpaint import Inpaint
from infuse.conditions.ip_adapter import IPAdapter
from infuse.conditions.lora import Lora
from infuse.conditions.powerpaint.condition import PowerPaint
from infuse.conditions.reference import Reference
from infuse.conditions.regions import Regions
from infuse.conditions.size import Size
from infuse.conditions.t2i_adapter import T2IAdapter
from infuse.conditions.t2i_style import T2IStyle
from infuse.conditions.text import Text
from infuse.conditions.unclip import UnCLIP
from infuse.conditions.upscale import Upscale
from infuse.conditions.video.depth import DepthVideo
from infuse.conditions.video.masked import MaskedVideo
from infuse.conditions.video.motion import Motion
from infuse.conditions.video.single_image import SingleImage
from infuse.conditions.video.sketch import SingleSketch, SketchVideo
from infuse.conditions.video.style import StyleImage
from infuse.conditions.video.video_to_video import VideoToVideo

AnyCondition = Annotated[
    Text
    | Regions
    | Lora
    | Img2Img
    | Inpaint
    | PowerPaint
    | BrushNet
    | ControlNet
    | T2IAdapter
    | T2IStyle
    | CoAdapter
    | IPAdapter
    | Gligen
    | Reference
    | Depth
    | Edit
    | Upscale
    | UnCLIP
    | Size
    | VideoToVideo
    | MaskedVideo
    | DepthVideo
    | SketchVideo
    | SingleSketch
    | SingleImage
    | Motion
    | StyleImage,
    Field(discriminator="kind"),
]

__all__ = [
    "AnyCondition",
    "Box",
    "BrushNet",
    "CoAdapter",
    "Condition",
    "ControlNet",
    "Depth",
    "DepthVideo",
    "Edit",
    "Gligen",
    "IPAdapter",
    "Img2Img",
    "Inpaint",
    "Lora",
    "MaskedVideo",
    "Motion",
    "PowerPaint",
    "Reference",
    "Regions",
    "Route",
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
]

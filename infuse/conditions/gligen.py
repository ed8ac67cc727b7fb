"""Boxes with words or pictures in them: where what is. Each becomes a token that gated layers read; the decoupled port.

Source: GLIGEN (Li et al. 2023), sec. 3 and 4; gligen/GLIGEN, and diffusers' StableDiffusionGLIGENPipeline.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from infuse.conditions.base import Condition, Encoders, Route, View, overlooked, same_family
from infuse.errors import RecipeError, WeightsError
from infuse.media.pictures import Picture, px
from infuse.network.ldm_names import transformer_blocks
from infuse.network.spec import NetworkSpec
from infuse.ports import Decoupled, Ports, Sides
from infuse.validation import Strict

if TYPE_CHECKING:
    from torch import nn

MOST = 30
"""Boxes that the networks were trained with."""
FOURIER = 64
"""Numbers that a box becomes: sine and cosine of four edges at eight frequencies."""
OTHERS = (
    ("in_conv.", "reads semantic maps"),
    ("convnext_tiny_backbone.", "reads maps (edges, depth, normals)"),
    ("person_embeddings", "reads the joints of people"),
)
"""A name in the position net -> what such a GLIGEN hears, which is no boxes."""
ADDED = re.compile(
    r"(?:^|[./])(position_net\.[\w.]+|(?:(?:down|up|input|output)_blocks|mid_block|middle_block)\.[\w.]+\.fuser\.[\w.]+)$"
)
"""What GLIGEN adds to a UNet, under whatever the file puts before it."""
PROJECTION = "image_project.project.weight"


class Box(Strict):
    """What is where. phrase, image: in words, as a picture, or both (with a GLIGEN of text and images).

    box: left, top, right, bottom.
    """

    box: tuple[float, float, float, float]
    phrase: str = ""
    image: Picture | None = None

    @model_validator(mode="after")
    def _said(self) -> Box:
        if not self.phrase.strip() and self.image is None:
            raise RecipeError("phrase", "a box needs to be told what is in it. Give a phrase, or an image.")
        return self


class Gligen(Condition):
    """Put things into boxes: up to 30, each with a phrase, or with a picture if the file is a GLIGEN of text and images.

    unit: fraction (edges from 0 to 1) or pixel (of the picture to be made). end: 0.3, the part of the steps in which boxes are
    heard (GLIGEN's scheduled sampling: early steps decide where things are, late ones look better without); 1 if a box
    has a picture. weight multiplies the gates. image_encoder: the CLIP ViT-L that sees the pictures, if it is neither beside the
    file nor the base's own.
    """

    LOOKS = True
    WORDS = True

    kind: Literal["gligen"] = "gligen"
    model: str = Field(min_length=1)
    boxes: tuple[Box, ...] = Field(min_length=1)
    unit: Literal["fraction", "pixel"] = "fraction"
    image_encoder: str | None = None
    end: float = Field(default=0.3, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _pictures_to_the_end(cls, data: Any) -> Any:
        """The original demo hears pictures in all steps."""
        boxes = data.get("boxes") if isinstance(data, dict) else None
        if isinstance(boxes, list | tuple) and "end" not in data and any(map(_pictured, boxes)):
            return {**data, "end": 1.0}
        return data

    @model_validator(mode="after")
    def _well_formed(self) -> Gligen:
        if len(self.boxes) > MOST:
            raise RecipeError("boxes", f"{len(self.boxes)} boxes, and GLIGEN knows {MOST} at most. Leave out the smallest ones, or spread "
                                       "them over two conditions of this kind.")  # fmt: skip
        for i, b in enumerate(self.boxes):
            x0, y0, x1, y1 = b.box
            if x0 >= x1 or y0 >= y1:
                raise RecipeError(f"boxes.{i}.box", f"{_written(b)} has no inside. Its numbers are left, top, right, bottom.")  # fmt: skip
            if self.unit == "fraction" and not all(0 <= v <= 1 for v in b.box):
                raise RecipeError(f"boxes.{i}.box", f"{_written(b)} reaches out of the picture, which goes from 0 to 1. For numbers in "
                                                    "pixels set unit: pixel.")  # fmt: skip
        return self

    def settled(self, view: View) -> Gligen:
        if self.image_encoder is not None or not any(b.image for b in self.boxes):
            return self
        try:
            width = feature(named(view.identity(self.model, "model", "gligen").shapes))
            eyes = ((place, view.vision(place)) for place in view.eyes(self.model))
            place = next((place for place, eye in eyes if eye is not None and eye.projection == width), None)
        except WeightsError:  # `check` says so under its field
            return self
        return self if place is None else self.model_copy(update={"image_encoder": place})

    def within(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> tuple[Gligen, list[str]]:
        """Boxes in fractions of the part. Raises RecipeError if none of them reaches into it."""
        unit = size if self.unit == "pixel" else (1, 1)
        edges = [box[i] / size[i % 2] for i in range(4)]
        sides = edges[2] - edges[0], edges[3] - edges[1]
        kept, notes = [], []
        for i, b in enumerate(self.boxes):
            there = [(b.box[j] / unit[j % 2] - edges[j % 2]) / sides[j % 2] for j in range(4)]
            cut = [min(max(v, 0.0), 1.0) for v in there]
            if cut[0] >= cut[2] or cut[1] >= cut[3]:
                notes.append(f"boxes.{i}: it lies outside of the part that is worked on, and is left out.")
                continue
            if cut != there:
                notes.append(f"boxes.{i}: it reaches out of the part that is worked on, and is cut there.")
            kept.append(b.model_copy(update={"box": tuple(cut)}))
        if not kept:
            raise RecipeError(
                "boxes", "none of them lies in the part that is worked on. Give more padding, or remove this condition."
            )
        return self.model_copy(update={"boxes": tuple(kept), "unit": "fraction"}), notes

    def check(self, net: NetworkSpec, view: View) -> list[Route]:
        self.positive()
        found = view.identity(self.model, "model", "gligen")
        own = named(found.shapes)
        kind = kind_of(own, self.model)
        same_family(self.model, context(own), net, "a GLIGEN")
        if "text_embeds" in net.embedding_slots:  # its phrases are said by one text encoder
            raise RecipeError("", f"{net.name} is read by two text encoders, and a GLIGEN's boxes by one: there are some for SD 1.x only. Use "
                                  "text with a mask for each thing, or a ControlNet.")  # fmt: skip
        fits(own, self.model, net)
        self._inside(view.size)
        notes = self._seen(kind, own, net, view) if any(b.image for b in self.boxes) else []
        read = {k: s for k, s in found.shapes.items() if k.startswith(before(found.shapes))}
        memory = found.memory * sum(map(prod, own.values())) // max(sum(map(prod, read.values())), 1)
        first = next((s for k, s in read.items() if k.endswith(("input_blocks.0.0.weight", "conv_in.weight"))), None)
        if first is not None and first[1] != net.in_channels:
            notes.append(f"model: the first convolution of {self.model!r} reads {first[1]} channels, and {net.name} has one of its own for "
                         f"{net.in_channels}: boxes are heard, what else it was shown is not.")  # fmt: skip
        tokens = MOST if kind == "text" else 2 * MOST
        what = f"tokens ({tokens} {net.context_width}) of {len(self.boxes)} box{'es' * (len(self.boxes) > 1)}"
        return [Route("decoupled", what, memory, note=f"{kind}, before the cross-attention", warnings=tuple(notes))]

    def _inside(self, size: tuple[int, int]) -> None:
        """Pixels are known to lie in the picture only now."""
        for i, b in enumerate(self.boxes if self.unit == "pixel" else ()):
            if min(b.box) < 0 or b.box[2] > size[0] or b.box[3] > size[1]:
                raise RecipeError(f"boxes.{i}.box", f"{_written(b)} reaches out of the picture to be made, which is {px(size)}. Move it "
                                                    "inside.")  # fmt: skip

    def _seen(self, kind: str, own: Mapping[str, tuple[int, ...]], net: NetworkSpec, view: View) -> list[str]:
        """What is said of the boxes' pictures. Raises letters if this file cannot hear them."""
        at = next(i for i, b in enumerate(self.boxes) if b.image is not None)
        if kind != "text_image":
            raise WeightsError(f"boxes.{at}.image", f"{self.model!r} hears phrases only. Say in words what is in the box, or choose a GLIGEN of "
                                                    "text and images.")  # fmt: skip
        if PROJECTION not in own:
            raise WeightsError("model", f"{self.model!r} comes without the projection that brings pictures among phrases. Put the release's file "
                                        "projection_matrix beside it, or name its diffusers folder, which has image_project.")  # fmt: skip
        eye = view.vision(self.image_encoder)
        if eye is None or eye.projection != feature(own):
            has = f"{eye.name} gives {eye.projection}" if eye else f"the base {net.name!r} brings none"
            raise WeightsError("image_encoder", f"{self.model!r} was trained on an image encoder of width {feature(own)}, and {has}. "
                                                "Name a folder of the right CLIP vision model here.")  # fmt: skip
        return [n for i, b in enumerate(self.boxes) if b.image for n in overlooked(b.image, f"boxes.{i}.image", "crop")]

    def encode(self, kit: Encoders) -> Sides:
        adapter = kit.gligen(self.model)
        across, down = (
            (s / c if self.unit == "fraction" else 1 / c) for s, c in zip(kit.size, kit.canvas, strict=True)
        )
        boxes = kit.vector([(x0 * across, y0 * down, x1 * across, y1 * down) for x0, y0, x1, y1 in (b.box for b in self.boxes)])  # fmt: skip
        phrases = [kit.phrase(b.phrase) if b.phrase.strip() else None for b in self.boxes]
        seen = [None if b.image is None else kit.look(b.image, self.image_encoder, False) for b in self.boxes]
        # off = null features in every slot, with the gates open: what the network was trained to hear when nothing is said
        on, off = adapter.tokens(boxes, phrases, seen), adapter.tokens(boxes[:0], [], [])
        return Sides(Ports(decoupled=(Decoupled(adapter, on),)), Ports(decoupled=(Decoupled(adapter, off),)))

    def modules(self, kit: Encoders) -> Mapping[str, nn.Module]:
        return {"gligen": kit.gligen(self.model)}


def _pictured(box: Any) -> bool:
    return (box.get("image") if isinstance(box, Mapping) else getattr(box, "image", None)) is not None


def _written(b: Box) -> str:
    return "[{}]".format(", ".join(f"{v:g}" for v in b.box))


# ── its files ───────────────────────────────────────────────────────────────────────────────────────────────────────


def added(keys: Iterable[str]) -> dict[str, str]:
    """Key in a file -> its name without what stands before it, of all that GLIGEN adds to a UNet."""
    return {k: m[1] for k in keys if (m := ADDED.search(k))}


def before(keys: Iterable[str]) -> str:
    """What a file puts before the names of its UNet: "", "model.", "unet/"..."""
    return next((k.removesuffix(name) for k, name in added(keys).items()), "")


def named(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Shapes of what a file adds to a UNet, and of its projection of pictures if that lies beside it."""
    found = {name: shapes[k] for k, name in added(shapes).items()}
    return found | ({PROJECTION: shapes[PROJECTION]} if PROJECTION in shapes else {})


def kind_of(own: Mapping[str, tuple[int, ...]], model: str) -> str:
    """text or text_image. Raises WeightsError for other kinds, and for what is incomplete."""
    net = [k.removeprefix("position_net.") for k in own if k.startswith("position_net.")]
    for mark, what in OTHERS:
        if any(k.startswith(mark) for k in net):
            raise WeightsError("model", f"{model!r} is a GLIGEN that {what}, and infuse runs those of boxes. Choose a ControlNet for such a "
                                        "map, or a GLIGEN of boxes.")  # fmt: skip
    for kind, first in (("text", "linears.0.weight"), ("text_image", "linears_text.0.weight")):
        if first in net:
            return kind
    raise WeightsError("model", f"{model!r} has no network that reads boxes (position_net). Choose a complete file of a GLIGEN.")  # fmt: skip


def feature(own: Mapping[str, tuple[int, ...]]) -> int:
    """Width of a phrase's feature."""
    first = next(own[k] for k in ("position_net.linears.0.weight", "position_net.linears_text.0.weight") if k in own)
    return first[1] - FOURIER


def context(own: Mapping[str, tuple[int, ...]]) -> int | None:
    """Width of a token."""
    return next((s[1] for k, s in own.items() if k.endswith(".fuser.linear.weight")), None)


def fusers(own: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Transformer block, as the file calls it -> its channels."""
    return {k.removesuffix(".fuser.linear.weight"): s[0] for k, s in own.items() if k.endswith(".fuser.linear.weight")}


def fits(own: Mapping[str, tuple[int, ...]], model: str, net: NetworkSpec) -> None:
    """Raises WeightsError unless there is a gated layer for every transformer block of the base, and for no other."""
    have, blocks = fusers(own), transformer_blocks(net)
    odd = next((f for f, width in have.items() if f not in blocks or blocks[f].width != width), None)
    if odd is not None:
        there = f"{blocks[odd].width} channels" if odd in blocks else "no such block"
        raise WeightsError("model", f"{model!r} has a gated layer of {have[odd]} channels for {odd}; {net.name} has {there}. It belongs to "
                                    "another base: released GLIGENs are for SD 1.x.")  # fmt: skip
    paths = {at.path for at in blocks.values()}
    missing = paths - {blocks[f].path for f in have}
    if missing:
        raise WeightsError("model", f"{model!r} has gated layers for {len(paths) - len(missing)} of the {len(paths)} transformer blocks of "
                                    f"{net.name}. Choose a complete file of this model.")  # fmt: skip
    if feature(own) != net.context_width:
        raise WeightsError("model", f"{model!r} reads features of phrases of width {feature(own)}; the text encoder of {net.name} gives "
                                    f"{net.context_width}. Choose a GLIGEN of the base's family.")  # fmt: skip

"""A hint as an adapter is shown it: a map or a film of maps, drawn from a photo if somebody asks, turned over, laid on the canvas.

What conditions with such a hint share: its fields, what is odd about it before anything is loaded, and its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from infuse.conditions.base import Encoders, View
from infuse.conditions.frames import pixels, planned, taken
from infuse.encoders.annotators.colouring import annotated
from infuse.encoders.annotators.kinds import auto, inverted, is_flat, is_lines, kind_of
from infuse.encoders.annotators.simple import palette, strokes
from infuse.errors import RecipeError, WeightsError, under
from infuse.media.film_arrays import is_film
from infuse.media.films import Film
from infuse.media.fitting import Fit
from infuse.media.maps import Resample, fitted_map
from infuse.media.pictures import Picture
from infuse.network.spec import NetworkSpec
from infuse.validation import Strict

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

Annotator = Literal["none", "auto", "canny", "scribble", "sketch", "color"]
CELL = 8
"""Places of the latent: the side of a palette's cell (64 px of 8 each)."""
GREY = ("canny", "scribble", "sketch")
"""What is drawn in black and white."""
Pictures = Annotated[
    tuple[Picture, ...],
    BeforeValidator(lambda v: v if isinstance(v, tuple) else tuple(v) if isinstance(v, list) else (v,)),
    Field(min_length=1),
]
"""One or several."""


class Hinted(Strict):
    """image: the map, 0-1 RGB in the convention of the model, or a photo with an `annotator`. film: one for every frame of a
    clip instead. invert: a map of dark lines on light, turned over. fit: what is done to a hint of another shape than the picture
    to be made (stretch; of a film, crop).

    annotator: canny | scribble (rough strokes, drawn from a photo) | sketch (a drawing of light lines, made black and white) | color
    (a palette: one colour for each cell of 64 px) | auto (what the model's card or name says). resample: how a picture is scaled:
    smooth (Lanczos, as diffusers), map (colours and lines kept), auto (map, if it has few colours).
    """

    image: Picture | None = None
    film: Film | None = None
    invert: bool = False
    fit: Fit = "stretch"
    annotator: Annotator = "none"
    resample: Resample = "auto"

    @model_validator(mode="before")
    @classmethod
    def _film_by_its_name(cls, data: Any) -> Any:
        """A hint whose name is that of a film is one."""
        if isinstance(data, dict) and data.get("film") is None and is_film(data.get("image")):
            return {**{k: v for k, v in data.items() if k != "image"}, "film": data["image"]}
        return data

    @model_validator(mode="after")
    def _one_hint(self) -> Hinted:
        if (self.image is None) == (self.film is None):
            both = "it comes with a film, which is a hint, too. Keep one of them."
            none = "this field is required: the map that is the hint. Give a picture, or for a clip a film."
            raise RecipeError("image", both if self.image else none)
        return self

    def as_picture(self, view: View) -> dict[str, Any]:
        """A GIF may be a film or a picture: before a base that makes pictures it is one. What changes then."""
        film = self.film
        if film is None or view.spec.frames or not film.source.lower().endswith(".gif"):
            return {}
        return {"image": film.picture(), "film": None}

    def looked_at(self, net: NetworkSpec, view: View, model: str, channels: int) -> list[str]:
        """What is odd about the hint of a model that reads 1 or 3 channels. Raises RecipeError for a hint that it cannot read."""
        notes, card = [], view.card(model)
        where = "film" if self.image is None else "image"
        if self.film is not None:
            if not net.frames:
                raise RecipeError("film", f"{net.name} makes pictures. Give one frame as image, or choose a video base.")  # fmt: skip
            notes = planned(self.film, "film", view, view.size, self.film_fit)
        elif self.image is not None and self.image.named.lower().endswith(".gif"):  # it came as a film
            notes = [f"image: {text}." for text in self.image.notes]
        first = self.image.image if self.image is not None else self._frame()
        drawn, said = self.drawn(model, card, first)
        if self.invert and drawn in ("canny", "scribble"):
            raise RecipeError("invert", f"{drawn} draws light on dark already. Remove invert.")
        if channels == 1 and drawn not in GREY and not is_flat(first):
            raise RecipeError(where, f"it is coloured, and {model!r} reads one channel: light lines on a dark ground, or another grey map. "
                                     "Give it the map that it was trained with, or set annotator: canny to draw edges.")  # fmt: skip
        if drawn in ("none", "sketch") and not self.invert and (kind := inverted(kind_of(model, card), first)):
            notes.append(f"{where}: it looks inverted: {model!r} hears {kind}. Set invert: true to turn it over.")
        return [*notes, *([f"annotator: {said}"] if said else [])]

    def drawn(self, model: str, card: Mapping[str, Any], image: Any) -> tuple[str, str]:
        """(what is drawn of a PIL image, a warning or "")."""
        if self.annotator != "auto":
            return self.annotator, ""
        kind = kind_of(model, card)
        if kind == "color":
            return "color", ""
        if kind == "scribble" and is_lines(image):
            return "sketch", ""
        return auto(model, card, image)

    def hint(self, kit: Encoders, model: str, channels: int) -> Float[Tensor, "c *f height width"]:
        """Its numbers on the canvas, 0-1; those of a film have one more axis."""
        if self.image is not None:
            maps = kit.pixels(Picture.of(self._map(self.image.image, kit, model)), channels)
        else:
            assert self.film is not None
            frames = taken(self.film, "film", kit, kit.size, self.film_fit)
            mode = "L" if channels == 1 else "RGB"
            maps = pixels([self._map(f, kit, model) for f in frames], kit, mode)
        return 1 - maps if self.invert else maps

    def _map(self, image: Any, kit: Encoders, model: str) -> Any:
        """A PIL image as the model is shown it; a film's frames have their size already."""
        drawn = self.drawn(model, kit.card(model), image)[0]
        if drawn in ("canny", "scribble"):
            image = annotated(image, drawn, {})
        if self.image is not None:
            image = fitted_map(image, kit.size, self.fit, self.resample)
        if drawn == "sketch":  # binary is what it is shown, however it was scaled
            return strokes(image)
        # a palette's cells are cells of the picture to be made, not of the photo
        return palette(image, CELL * kit.spec.vae_factor) if drawn == "color" else image

    def _frame(self) -> Any:
        assert self.film is not None
        with under("film"):
            return self.film.looked_at(self.film.plan(1)[0][0])[0]

    @property
    def film_fit(self) -> Fit:
        """Films are cut where pictures are stretched, unless somebody says how."""
        return self.fit if "fit" in self.model_fields_set else "crop"


def eye_for(view: View, model: str, width: int) -> str | None:
    """The image encoder beside an adapter's file whose states have this width. Raises WeightsError if there is no such file."""
    seen = ((place, view.vision(place)) for place in view.eyes(model))
    return next((place for place, eye in seen if eye is not None and eye.hidden == width), None)


def sees(view: View, folder: str | None, width: int, model: str, net: NetworkSpec) -> None:
    """Raises WeightsError unless an image encoder (the base's own: None) has states of the width that this model reads."""
    eye = view.vision(folder)
    needs = f"{width}{' (ViT-L)' * (width == 1024)}"
    if eye is None:
        raise WeightsError("image_encoder", f"the base {net.name!r} brings no image encoder, and {model!r} reads states of width {needs}. "
                                            "Name a CLIP vision folder here.")  # fmt: skip
    if eye.hidden != width:
        raise WeightsError("image_encoder", f"{model!r} was trained on states of width {needs}; {eye.name} gives {eye.hidden}. "
                                            "Name the right CLIP vision folder here.")  # fmt: skip

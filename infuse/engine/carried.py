"""What of a recipe's inputs travels inside of a result: their pixels without metadata if they are small, else their hash.

A result must open everywhere and tell nothing of the machine. So models are named as others find them, inputs lose what
their cameras said, and the whole text keeps to what the format holds: the smallest inputs first.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from infuse.conditions.base import in_place, squares
from infuse.conditions.brushnet import BrushNet
from infuse.conditions.controlnet.condition import ControlNet
from infuse.conditions.img2img import Img2Img
from infuse.conditions.inpaint import Inpaint
from infuse.conditions.ip_adapter import IPAdapter
from infuse.conditions.video.style import StyleImage
from infuse.engine.canvas import MASKS
from infuse.errors import InfuseError
from infuse.media.film_arrays import data_uri
from infuse.media.films import Film
from infuse.media.fitting import fitted, fitted_hole
from infuse.media.metadata import Record
from infuse.media.pictures import Picture
from infuse.media.reading import BY_HASH, at_home
from infuse.media.stripped import stripped
from infuse.recipe import MODELS, Recipe, seen

Kind = Literal["full", "hashes", "none"]
"""How much a result says: everything, inputs by their hashes only, nothing."""
LARGEST = 256 << 10
"""Bytes of an input that travels."""
CODED_ANEW = 1 << 20
"""Pixels of a picture that is tried without loss: most larger ones would not be small enough."""
HUB_CACHE = re.compile(r"(?:^|/)models--([^/]+--[^/]+)/snapshots/[^/]+(?:/(.+))?$")
"""How the Hub's cache calls its folders."""
REMEMBERED = 64
Used = tuple[Hashable, Callable[[], Any]]
"""What tells two uses of a picture apart, and the image that is used."""


def recorded(
    recipe: Recipe, kind: Kind, most: int, facts: Mapping[str, Any], glimpses: Mapping[str, Any] | None = None
) -> Record:
    """The record of a picture made of this recipe, of at most about `most` characters. `facts`: the other fields of a Record;
    `glimpses`: field -> what an image encoder saw of a large picture (`glimpsed`).

    Its notes name what did not travel.
    """
    found = list(recipe.pictures())
    inputs = {where: _known(one) for where, one in found}
    weights = {public(name): digest for name, digest in facts.get("weights", {}).items()}
    plain: dict[str, list[str]] = {}
    for where, one in found:
        for name in {str(one), one.source}:
            plain.setdefault(name, []).append(where)
    said = tuple(anonymous(text, plain) for text in dict.fromkeys((*recipe.notes, *facts.get("warnings", ()))))
    resolved = public_models(dict(facts.get("resolved", {})))
    common = {
        **facts,
        "weights": dict(sorted(weights.items())),
        "warnings": said,
        "resolved": resolved,
        "digest": recipe.digest,
    }
    sources = {where: BY_HASH + inputs[where]["sha256"] for where, _ in found}

    def made() -> Record:
        left = {
            where: i if sources[where].startswith(BY_HASH) else {k: v for k, v in i.items() if k != "name"}
            for where, i in inputs.items()
        }
        return Record(_data(recipe, dict(sources)), left, **common)

    left = most - len(made().text())
    size = (resolved.get("width"), resolved.get("height"))
    used = uses(recipe, size)
    used |= {
        w: (hashlib.sha256(seen.tobytes()).digest(), lambda seen=seen: seen) for w, seen in (glimpses or {}).items()
    }
    forms = {w: form for w, one in found if kind == "full" and (form := _travelling(w, one, used.get(w))) is not None}
    pair = filled(recipe, size, forms) if kind == "full" else {}
    forms |= pair
    for where in sorted(forms, key=lambda w: (len(forms[w]), w)):
        cost = len(json.dumps(forms[where])) - len(sources[where])
        if cost <= left:
            sources[where], left = forms[where], left - cost
    if any(sources[w].startswith(BY_HASH) for w in pair):  # together or not at all
        sources |= {w: BY_HASH + inputs[w]["sha256"] for w in pair}
    notes = [f"{where}: {inputs[where].get('name', 'its picture')} ({inputs[where].get('bytes', 0) / 2**20:.1f} MiB) is too large to travel in the result, "
             "which names it by its hash. To run that again, keep the file and name its folder: --inputs, or Recipe.load(..., inputs=[folder])"
             for where, _ in found if kind == "full" and sources[where].startswith(BY_HASH)]  # fmt: skip
    record = made()
    return Record(record.recipe, record.inputs, **common, notes=tuple(notes))


def _data(recipe: Recipe, sources: Mapping[str, str]) -> dict[str, Any]:
    """A recipe's plain data, models by their public names, inputs by these sources."""
    where = iter([w for w, _ in recipe.pictures()])

    def moved(one: Any) -> Any:
        source = sources[next(where)]
        return Picture(source) if isinstance(one, Picture) else one.model_copy(update={"source": source})

    return public_models(recipe.with_pictures(moved).dump())


def public_models(data: Any) -> Any:
    """Plain data with every model by its public name."""
    if isinstance(data, dict):
        return {k: public(v) if k in MODELS and isinstance(v, str) else public_models(v) for k, v in data.items()}
    return [public_models(v) for v in data] if isinstance(data, list) else data


def public(model: str) -> str:
    """A model as others find it: names, Hub ids and relative paths as they are, a path in INFUSE_MODELS from there on, one in the
    Hub's cache by its id, any other by its last part."""
    path = at_home(model)
    if cached := HUB_CACHE.search(path.as_posix()):
        return "/".join(filter(None, (cached[1].replace("--", "/", 1), cached[2])))
    outside = path.is_absolute() or ".." in path.parts
    if not (outside or model.startswith(".") or path.exists()):
        return model
    place = Path(os.path.normpath(path.absolute()))
    for root in filter(None, os.environ.get("INFUSE_MODELS", "").split(os.pathsep)):
        inside = os.path.normpath(Path(root).expanduser().absolute())
        if place.is_relative_to(inside) and place != Path(inside):
            return str(place.relative_to(inside))
    return place.name if outside else model


def anonymous(text: str, inputs: Mapping[str, Sequence[str]]) -> str:
    """A sentence without places: inputs, by the names that letters give them, by their fields; other absolute paths by their
    last part."""
    for shown in sorted(inputs, key=len, reverse=True):
        if shown in text:
            fields = inputs[shown]
            meant = next((f for f in fields if text.startswith(f"{f}:")), fields[0] if len(fields) == 1 else "it")
            text = re.sub(rf"(?<![\w./-]){re.escape(shown)}(?!\w)", lambda _, meant=meant: meant, text)
    for place in (os.getcwd(), str(Path.home())):
        text = text.replace(place + os.sep, "") if len(place) > 1 else text
    return re.sub(r"(?<![\w./:])(?:[A-Za-z]:\\|/)(?:[^\s'\",:;()/\\]+[/\\])+", "", text)


def _known(one: Picture | Film) -> dict[str, Any]:
    """{"sha256", "bytes", "name"} of an input."""
    known: dict[str, Any] = {"sha256": one.sha256}
    with suppress(OSError):  # gone by now
        known["bytes"] = _size(one)
    if not one.source.startswith(("data:", BY_HASH)):
        known["name"] = at_home(one.source).name
    return known


def _size(one: Picture | Film) -> int:
    if isinstance(one, Film) and (pieces := one.weights):
        return sum(pieces)  # of a folder as of its zip, so that a replay says the same
    data = one.content if isinstance(one, Picture) else one.data
    if isinstance(data, bytes):
        return len(data)
    return data.stat().st_size


_travelled: dict[Hashable, Any] = {}
"""The last forms, by content and use: the pictures of one recipe have the same inputs."""


def _travelling(where: str, one: Picture | Film, used: Used | None) -> str | None:
    """The first form of an input that is small enough, as a data URI."""
    key = (one.digest, where.rpartition(".")[2] in MASKS, used and used[0], LARGEST)
    return _remembered(key, lambda: next(filter(_small, _forms(where, one, used and used[1])), None))


def _small(uri: str) -> bool:
    return len(uri) * 3 // 4 <= LARGEST + 100


def _remembered(key: Hashable, make: Callable[[], Any]) -> Any:
    """What `make` gives, or gave before; None of what cannot be opened any more: that does not travel."""
    if key not in _travelled:
        while len(_travelled) >= REMEMBERED:
            _travelled.pop(next(iter(_travelled)), None)
        _travelled[key] = None
        with suppress(InfuseError, OSError):
            _travelled[key] = make()
    return _travelled.get(key)


def _forms(where: str, one: Picture | Film, used: Callable[[], Any] | None) -> Iterator[str]:
    """Data URIs that show the same: the file without its metadata, its pixels coded anew without loss, what was used of it."""
    if isinstance(one, Film):
        whole = one if one.source.startswith("data:") else one.embedded() if _size(one) <= 4 * LARGEST else None
        if whole is not None and whole.source.startswith("data:"):
            yield from _bare(whole.source, Picture(whole.source).content, lambda uri: True)
        return
    drawn = where.rpartition(".")[2] in MASKS

    def shows(picture: Picture) -> tuple[Any, bytes]:
        image = picture.mask if drawn else picture.image
        return image.size, image.tobytes()

    def same(uri: str) -> bool:
        return shows(Picture(uri, one.behind)) == shows(one)

    if _size(one) <= 4 * LARGEST:
        yield from _bare(one.embedded().source, one.content, same)
    image = one.mask if drawn else one.image
    if drawn or image.width * image.height <= CODED_ANEW:
        yield coded(image)
    if used is not None and (there := used()).size != image.size:
        yield coded(there)


def coded(image: Any) -> str:
    """A data URI of an image without loss."""
    out = io.BytesIO()
    if image.mode == "RGB" and max(image.size) < 16_000:  # WebP's longest side is 16383
        image.save(out, "WEBP", lossless=True, exact=True, quality=30, method=1)
        return data_uri(out.getvalue(), "image/webp")
    image.save(out, "PNG")
    return data_uri(out.getvalue(), "image/png")


def uses(recipe: Recipe, size: tuple[Any, Any]) -> dict[str, Used]:
    """Field -> what is used of a picture: all of it on the canvas of this (width, height), for conditions that look at nothing else.

    Brought to that size it is left alone when it is brought there again, so that a replay makes the same.
    """
    if not all(isinstance(s, int) for s in size) or any(getattr(c, "area", "") == "masked" for c in recipe.conditions):
        return {}  # or it lies on the picture of which a part is worked on
    found: dict[str, Used] = {}
    for i, c in enumerate(recipe.conditions):
        match c:
            case Img2Img():
                found[f"conditions.{i}.image"] = (size, c.fit), lambda c=c: fitted(c.image.image, size, c.fit)
            case ControlNet(image=Picture() as hint, annotator="none", hole=None):
                found[f"conditions.{i}.image"] = (
                    (size, c.fit, c.resample),
                    lambda c=c, hint=hint: c.shown(hint.image, size, {}),
                )
            case _:
                pass
        if isinstance(c.mask, Picture) and not c.HOLE:
            found[f"conditions.{i}.mask"] = size, lambda mask=c.mask: fitted(mask.mask, size)
    return found


def filled(recipe: Recipe, size: tuple[Any, Any], forms: Mapping[str, str]) -> dict[str, str]:
    """Field -> data URI: a picture that is too large to travel (not among `forms`) as it lies on the canvas, and its hole there.

    What is done to a picture is done to its hole, so that both are brought to the canvas or none. Empty if they stay too large.
    """
    holed = [(f"conditions.{i}", c) for i, c in enumerate(recipe.conditions) if c.HOLE]
    if len(holed) != 1:  # else one would be another picture than the other
        return {}
    where, c = holed[0]
    if not isinstance(c, Inpaint | BrushNet) or f"{where}.image" in forms or not all(isinstance(s, int) for s in size):
        return {}
    if c.edged or c.mask is None:  # in its own size it is another hole
        return {}
    drawn = c.mask

    def on_canvas() -> tuple[str, str] | None:
        own = c.image.size
        if own == size:
            return None
        hole = fitted_hole(in_place(drawn, own).mask, size, c.fit)
        both = coded(fitted(c.image.image, size, c.fit)), coded(hole)
        return both if all(_small(uri) for uri in both) else None

    both = _remembered((c.image.digest, drawn.sha256, size, c.fit, LARGEST), on_canvas)
    return dict(zip((f"{where}.image", f"{where}.mask"), both, strict=True)) if both else {}


def glimpsed(recipe: Recipe, prepare: Any, speakers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Field -> what an image encoder sees of each picture that is too large to travel.

    `prepare`: the base's image processor; `speakers`: conditions as they were resolved, with encoders of their own. Only what
    is seen again just so when the encoder is shown that.
    """
    import numpy as np
    from PIL import Image

    from infuse.weights.base import processor_of

    found: dict[str, Any] = {}
    for i, c in enumerate(recipe.conditions):
        if not isinstance(c, IPAdapter | StyleImage) or c.fit == "tiles":
            continue
        speaker = (speakers or {}).get(f"conditions.{i}", c)
        if not speaker.image:  # what is asked for are the faces in them
            continue
        own = getattr(speaker, "image_encoder", None)
        eye = prepare if own is None else processor_of(at_home(own))
        if eye is None:
            continue
        for where, one in seen(c.image, f"conditions.{i}.image"):
            with suppress(InfuseError, OSError):  # it has been looked at, and is gone by now
                if not isinstance(one, Picture) or len(one.content) <= LARGEST:
                    continue
                image = squares(one, c.fit)[0].image
                raw = eye(image, do_rescale=False, do_normalize=False, return_tensors="np").pixel_values[0]
                small = Image.fromarray(np.moveaxis(raw, 0, -1).round().clip(0, 255).astype(np.uint8))
                if np.array_equal(*(eye(shown, return_tensors="np").pixel_values for shown in (image, small))):
                    found[where] = small
    return found


def _bare(uri: str, content: bytes, same: Callable[[str], bool]) -> Iterator[str]:
    """The URI itself if its file has no metadata, else one without."""
    plain = stripped(content)
    if plain is None or len(plain) > LARGEST:
        return
    if plain == content:
        yield uri
    elif same(found := data_uri(plain, uri[5:].partition(";")[0])):
        yield found

"""THE request. One frozen model serves Python, YAML, the command line, HTTP, a form, and a picture's metadata."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import Field

from infuse.conditions import AnyCondition
from infuse.curves import Curve
from infuse.errors import RecipeError, under
from infuse.media.films import Film
from infuse.media.metadata import changed_inputs
from infuse.media.pictures import Picture, at_home, relative_to
from infuse.validation import Strict

log = logging.getLogger("infuse.recipe")

LARGEST_SIDE = 8192
MADE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".mp4", ".m4v", ".mov")
"""What may be a picture or film made by infuse; so may be a folder of frames."""


class Recipe(Strict):
    """What to make. Same recipe, same machine: same bytes.

    Raises RecipeError naming the field if a value is wrong.
    """

    model: str | None = Field(default=None, min_length=1)
    """`tabletop`, a Hub id, a diffusers folder, or one .safetensors checkpoint; the engine's own if left out."""
    prompt: str = ""
    negative_prompt: str = ""
    width: int | None = Field(default=None, ge=16)
    """Pixels, a multiple of 8; what the model was trained at if left out."""
    height: int | None = Field(default=None, ge=16)
    frames: int | None = Field(default=None, ge=1)
    """For video networks."""
    steps: int = Field(default=30, ge=1, le=1000)
    scheduler: str | None = None
    """Any name of a diffusers scheduler ("DPM++ 2M Karras", "Euler a", ...); the model's own if left out."""
    guidance: Curve | None = None
    """Guidance scale of the prompt, or a curve of it; 1 and below mean none, and half of the work. The model's own
    (7.5 for SD 1/2, 5 for SDXL, as in diffusers) if left out."""
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    count: int = Field(default=1, ge=1, le=1024)
    """How many pictures; each has its own seed: seed, seed + 1, ..."""
    conditions: tuple[AnyCondition, ...] = ()

    @classmethod
    def load(cls, source: str | Path | dict[str, Any]) -> Recipe:
        """From a .yaml or .json file, a picture or film made by infuse, or a dictionary. Relative paths start at the file.

        Logs a warning for every film outside of the file that is not what made it.
        """
        if isinstance(source, dict):
            return cls(**source)
        path = at_home(str(source))
        data, inputs = read(path)
        with relative_to(path.parent):
            recipe = cls(**data)
        for note in changed_inputs(recipe.pictures(), inputs, path):
            log.warning("%s", note)
        return recipe

    def dump(self, path: str | Path | None = None) -> dict[str, Any]:
        """As plain data without fields left at their defaults; also written to a .yaml or .json file if one is named.

        Relative paths start at the working folder in what is returned, and at the file in what is written.
        """
        data = self.model_dump(mode="json", exclude_defaults=True)
        data["conditions"] = [
            {"kind": c.kind, **c.model_dump(mode="json", exclude_defaults=True)} for c in self.conditions
        ]
        if not data["conditions"]:
            del data["conditions"]
        if path is not None:
            import yaml

            folder = Path(path).parent.resolve()
            there = self.with_pictures(lambda p: seen_from(folder, p)).dump()
            text = (
                json.dumps(there, indent=2)
                if Path(path).suffix == ".json"
                else yaml.safe_dump(there, sort_keys=False, allow_unicode=True)
            )
            Path(path).write_text(text, encoding="utf-8")
        return data

    @property
    def digest(self) -> str:
        """sha256 of what is asked for: pictures and films count by their content, not by where they lie."""
        return digest(self)

    def pictures(self) -> Iterator[tuple[str, Picture | Film]]:
        """(dotted field, picture or film) for every one in the recipe."""
        return seen(self.conditions, "conditions")

    def with_pictures(self, change: Callable[[Any], Any]) -> Recipe:
        """The same recipe with every picture and film replaced."""
        return self.model_copy(update={"conditions": replaced(self.conditions, change)})


def seen_from(folder: Path, found: Picture | Film) -> Picture | Film:
    """The same picture or film, its relative path written as it is from a (resolved) folder."""
    if found.source.startswith("data:") or at_home(found.source).is_absolute():
        return found
    here = Path(found.source)
    there = os.path.relpath(here.parent.resolve() / here.name, folder)
    return Picture(there) if isinstance(found, Picture) else found.model_copy(update={"source": there})


def read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """A recipe file's data, and hashes of what it was made from. Raises RecipeError if it is not to be read, or no mapping."""
    from infuse.media.film_writer import read_record_of

    if not path.exists():
        raise RecipeError("", f"there is no recipe file {path}. Check the path.")
    if path.suffix.lower() in MADE or path.is_dir():
        record = read_record_of(path)
        return record["recipe"], record.get("inputs", {})
    data = parsed(path)
    if not isinstance(data, dict) or not all(isinstance(k, str) for k in data):
        raise RecipeError(
            "", f"{path} does not hold fields and values. A recipe looks like this:\nprompt: a red cube\nsteps: 20"
        )
    return data, {}


def parsed(path: Path) -> Any:
    """A YAML or JSON file's data. Raises RecipeError if it is neither, or says a field twice."""
    import yaml

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            once((key.value, None) for key, _ in node.value)
            return super().construct_mapping(node, deep)

    def once(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for key, value in pairs:
            if isinstance(key, str) and key in found:
                raise RecipeError("", f"{path} says {key!r} twice. Keep one of them.")
            found[str(key)] = value
        return found

    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text, object_pairs_hook=once) if path.suffix.lower() == ".json" else yaml.load(text, Once)
    except (yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecipeError("", f"{path} is not YAML or JSON: {' '.join(str(error).split())}") from None


def seen(value: Any, field: str) -> Iterator[tuple[str, Picture | Film]]:
    """(dotted field, picture or film) of whatever is in a value."""
    match value:
        case Picture() | Film():
            yield field, value
        case Strict():
            for name in type(value).model_fields:
                yield from seen(getattr(value, name), f"{field}.{name}")
        case tuple():
            for i, v in enumerate(value):
                yield from seen(v, f"{field}.{i}")


MODELS = ("model", "image_encoder", "annotator_model", "cleaner_model")
"""Fields of conditions that name weights."""


def models(value: Any) -> Iterator[str]:
    """Names of all weights in a condition or recipe; a recipe's base among them if it is named."""
    match value:
        case Strict():
            for name in type(value).model_fields:
                inside = getattr(value, name)
                if name in MODELS and isinstance(inside, str):
                    yield inside
                yield from models(inside)
        case tuple():
            for v in value:
                yield from models(v)


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value with every picture and film in it replaced."""
    match value:
        case Picture() | Film():
            return change(value)
        case Strict():
            return value.model_copy(update={n: replaced(getattr(value, n), change) for n in type(value).model_fields})
        case tuple():
            return tuple(replaced(v, change) for v in value)
        case _:
            return value


def digest(model: Strict, voiced: bool = True) -> str:
    """sha256 over a recipe's or condition's fields, pictures and films by content.

    Not `voiced`: without what says how loudly, when and where conditions are heard; what they are encoded to.
    """

    def plain(value: Any) -> Any:
        match value:
            case Picture():
                return value.sha256
            case Film():
                return value.digest
            case Strict():
                skipped = frozenset() if voiced else getattr(value, "VOICE", frozenset())
                return {n: plain(getattr(value, n)) for n in type(value).model_fields if n not in skipped}
            case tuple() | list():
                return [plain(v) for v in value]
            case dict():
                return {str(k): plain(v) for k, v in sorted(value.items())}
            case _:
                return value

    return hashlib.sha256(json.dumps(plain(model), sort_keys=True).encode()).hexdigest()


def opened(recipe: Recipe) -> None:
    """Open every picture, and the headers of every film, once. Raises RecipeError or CapacityError under its field."""
    for field, found in recipe.pictures():
        with under(field):
            _ = found.image if isinstance(found, Picture) else found.reader

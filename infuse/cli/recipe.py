"""From words on a command line to a Recipe: a file, a picture or a prompt, and options that are laid over it.

Options win over the file. `--control`, `--ip`, `--init` and `--inpaint` add conditions after those of the file; `--set`
reaches every other field by its dotted path and comes last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import isdir, isfile
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.media.reading import at_home
from infuse.recipe import MADE, Recipe

FILES = (".yaml", ".yml", ".json", *MADE)
"""A source that ends in one of these is a file; so is a folder of frames; anything else is a prompt."""


@dataclass(frozen=True)
class Asked:
    """What stands on the command line. `fields` are plain fields of the recipe; None means not said."""

    source: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    control: Sequence[str] = ()
    ip: Sequence[str] = ()
    init: str | None = None
    inpaint: tuple[str, str] | None = None
    sets: Sequence[str] = ()

    @property
    def is_file(self) -> bool:
        path = Path(self.source)
        # isdir, since a Path complains of prompts that are too long for a name
        return path.suffix.lower() in FILES or (isdir(path) and any(path.glob("*.png")))

    @property
    def is_picture(self) -> bool:
        """A picture or film that may carry its recipe, rather than a recipe file."""
        return self.is_file and Path(self.source).suffix.lower() not in (".yaml", ".yml", ".json")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a picture or film that is run again says of its making; empty for anything else."""
        from infuse.media.film_writer import read_record_of

        return read_record_of(at_home(self.source)) if self.is_picture else {}

    @property
    def is_film(self) -> bool:
        return self.is_picture and Path(self.source).suffix.lower() not in (".png", ".jpg", ".jpeg")

    def recipe(self) -> Recipe:
        """Raises RecipeError naming the field, or the option that cannot be read."""
        data: dict[str, Any] = Recipe.load(self.source).dump() if self.is_file else {"prompt": self.source}
        data |= {name: value for name, value in self.fields.items() if value is not None}
        if conditions := [*data.get("conditions", ()), *self.conditions()]:
            data["conditions"] = conditions
        for assignment in self.sets:
            assign(data, assignment)
        return Recipe(**data)

    def conditions(self) -> list[dict[str, Any]]:
        """The options that are conditions, as plain data."""
        found: list[dict[str, Any]] = []
        if self.init is not None:
            picture, strength = weighed(self.init)
            found.append({"kind": "img2img", "image": picture} | ({} if strength is None else {"strength": strength}))
        if self.inpaint is not None:
            found.append({"kind": "inpaint", "image": self.inpaint[0], "mask": self.inpaint[1]})
        for text in self.control:
            model, equals, rest = text.partition("=")
            if not (model and equals and rest):
                raise RecipeError(
                    "--control", f"{text!r} is not of the form name=picture, as in --control edges=room.png@0.8"
                )
            picture, weight = weighed(rest)
            found.append(
                {"kind": "controlnet", "model": model, "image": picture, "annotator": "auto"} | _weight(weight)
            )
        for text in self.ip:
            picture, weight = weighed(text)
            found.append({"kind": "ip_adapter", "image": picture} | _weight(weight))
        return found


def _weight(weight: float | None) -> dict[str, float]:
    return {} if weight is None else {"weight": weight}


def weighed(text: str) -> tuple[str, float | None]:
    """`picture@0.8` to (`picture`, 0.8). A file of that whole name is taken as it is, whatever its name ends in."""
    picture, at, number = text.rpartition("@")
    if not at or isfile(at_home(text)):
        return text, None
    try:
        return picture, float(number)
    except ValueError:
        return text, None


def assign(data: dict[str, Any], assignment: str) -> None:
    """`conditions.0.weight=0.5` into plain data; the value is read as YAML, so `{0: 1, 0.5: 0}` is a curve.

    An index one beyond the end adds an entry. Raises RecipeError for anything that is not a path and a value.
    """
    import yaml

    path, equals, text = assignment.partition("=")
    if not (path and equals):
        raise RecipeError(
            "--set", f"{assignment!r} is not of the form field=value, as in --set conditions.0.weight=0.5"
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(path, f"the value {text!r} is not YAML: {' '.join(str(error).split())}") from None
    *parents, last = path.split(".")
    here: Any = data
    for i, step in enumerate(parents):
        inside: Any = [] if [*parents, last][i + 1].isdecimal() else {}
        here = _entered(here, step, inside, path)
    _entered(here, last, value, path, replace=True)


def _entered(here: Any, step: str, new: Any, path: str, replace: bool = False) -> Any:
    """The value at one step of a dotted path, set to `new` if asked to or if nothing is there."""
    if isinstance(here, dict):
        if replace or step not in here:
            here[step] = new
        return here[step]
    if isinstance(here, list) and step.isdecimal() and int(step) <= len(here):
        i = int(step)
        if i == len(here):
            here.append(new)
        elif replace:
            here[i] = new
        return here[i]
    what = f"there are {len(here)} entries" if isinstance(here, list) else f"{here!r} has no fields"
    raise RecipeError(path, f"{step!r} leads nowhere: {what}. Use the path that an error or `infuse check` shows.")

"""From words on a command line to a Recipe: a file, a picture or a prompt, and options that are laid over it.

Options win over the file. `--control`, `--ip`, `--init` and `--inpaint` add conditions after those of the file; `--set`
reaches every other field by its dotted path and comes last. A letter about an option names it as it was typed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from infuse.cli.words import assign, is_file, named_picture, weighed
from infuse.errors import InfuseError, RecipeError
from infuse.media.reading import OWN, at_home, reading
from infuse.recipe import OWN_MODELS, Recipe, models

ALSO = {"scheduler": ("sampler",), "width": ("size",), "height": ("size",), "count": ("seed",)}
"""Field -> other options that it may come from."""


@dataclass(frozen=True)
class Machine:
    """Where it is made: what `ModelStore` is told."""

    device: str | None = None
    dtype: str | None = None
    memory: str | None = None
    offline: bool | None = None


@dataclass(frozen=True)
class Written:
    """What becomes of it. `fps` None: 8, or what a film that is run again had."""

    out: Path = Path("out")
    fps: float | None = None
    record: Literal["full", "hashes", "none"] = "full"
    together: bool = False


@dataclass(frozen=True)
class Asked:
    """What stands on the command line. `fields` are plain fields of the recipe; None means not said."""

    source: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    control: Sequence[str] = ()
    ip: Sequence[str] = ()
    init: str | None = None
    inpaint: tuple[str, str] | None = None
    sets: Sequence[str] = ()
    strength: float | None = None
    trust: bool = False
    inputs: Sequence[Path] = ()
    typed: Mapping[str, str] = field(default_factory=dict)
    """Parameter -> the option that was typed for it."""
    machine: Machine = Machine()
    written: Written = Written()

    @cached_property
    def is_file(self) -> bool:
        """Is the source a file to be run, rather than words? Raises RecipeError if that is not clear."""
        if self.source is None:
            if self.said.get("prompt") is None:
                raise RecipeError(
                    "", "nothing says what to make. Give a prompt, a recipe, or a picture made by infuse."
                )
            return False
        return is_file(self.source)

    @property
    def is_picture(self) -> bool:
        """A picture or film that may carry its recipe, rather than a recipe file."""
        return self.is_file and Path(str(self.source)).suffix.lower() not in (".yaml", ".yml", ".json")

    @cached_property
    def record(self) -> dict[str, Any]:
        """What a picture or film that is run again says of its making; empty for anything else."""
        from infuse.media.film_writer import record_in

        return (record_in(at_home(str(self.source)))[0] or {}) if self.is_picture else {}

    @property
    def is_film(self) -> bool:
        return bool(self.record.get("fps"))

    @property
    def said(self) -> dict[str, Any]:
        return {name: value for name, value in self.fields.items() if value is not None}

    @cached_property
    def own(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """(option with its words, plain data) of the conditions that are options."""
        return tuple(self._conditions())

    @cached_property
    def below(self) -> Recipe:
        """What the options are laid over: the file's recipe, or the words."""
        if self.is_file:
            return Recipe.load(str(self.source), trust=True if self.trust else None, inputs=self.inputs)
        if self.source is not None and "prompt" in self.said:
            raise RecipeError(
                self.typed.get("prompt", "--prompt"), f"the words {self.source!r} are a prompt, too. Say one of them."
            )
        return Recipe(prompt=self.source or "")

    def recipe(self) -> Recipe:
        """Raises RecipeError naming the field, or the option that cannot be read."""
        below, said = self.below, dict(self.said)
        data = below.dump()
        if "size" in said:
            data = {k: v for k, v in data.items() if k not in ("width", "height")}
        if "sampler" in said:
            data.pop("scheduler", None)
        if "seed" in said and (isinstance(data.pop("seed", 0), list) or "," in said["seed"]):
            data.pop("count", None)
        for name in OWN_MODELS:
            if name in said:
                said[name] = self._model(below, said[name])
        with self.as_typed():
            data |= said
            if conditions := [*data.get("conditions", ()), *self._voiced(below)]:
                data["conditions"] = conditions
            for assignment in self.sets:
                assign(data, assignment)
            # what the file names has its place by now: below the working folder, as what is typed
            with reading(replace(below._reading, folder=None)):
                made = Recipe(**data)
        typed = frozenset(models(made)) - frozenset(models(below))  # what the user names himself may lie anywhere
        made._reading, made._notes = replace(below._reading, models=typed), below.notes
        return made

    def _model(self, below: Recipe, model: str) -> str:
        """A model that was typed lies below the working folder, whatever folder the recipe lies in."""
        folder = below._reading.folder
        here = folder is None or folder.resolve() == Path.cwd()
        return model if here or not os.path.exists(at_home(model)) else os.path.abspath(at_home(model))

    def _voiced(self, below: Recipe) -> list[Any]:
        """The options that are conditions. Beside a stranger's recipe one's own pictures may be read all the same."""
        found = [data for _, data in self.own]
        if below._reading.trusting:
            return found
        with reading(OWN), self.as_typed(first=0):
            data: dict[str, Any] = {"conditions": found}
            return list(Recipe(**data).conditions)

    @contextmanager
    def as_typed(self, first: int | None = None) -> Iterator[None]:
        """Letters about what came from an option name it as it was typed. `first`: where those that are conditions begin."""
        try:
            yield
        except InfuseError as error:
            begin = len(self.below.conditions) if first is None else first
            raise type(error)(self._typed(error.field, begin), error.message) from None

    def _typed(self, name: str, begin: int) -> str:
        head, _, rest = name.partition(".")
        at, _, inner = rest.partition(".")
        if head == "conditions" and at.isdecimal() and begin <= int(at) < begin + len(self.own):
            option = self.own[int(at) - begin][0]
            return f"{option}, {inner}" if inner else option
        same = next((a.partition("=")[0] for a in self.sets if a.partition("=")[0] == name), None)
        if same is not None:
            return f"--set {same}"
        if head in Machine.__dataclass_fields__:
            return self.typed.get(head, name)
        said = next((n for n in (head, *ALSO.get(head, ())) if n in self.said), None)
        return name if said is None else self.typed.get(said, name)

    def conditions(self) -> list[dict[str, Any]]:
        """The options that are conditions, as plain data."""
        return [data for _, data in self.own]

    def _conditions(self) -> Iterator[tuple[str, dict[str, Any]]]:
        said = {} if self.strength is None else {"strength": self.strength}
        option = {name: self.typed.get(name, f"--{name}") for name in ("control", "ip", "init", "inpaint", "strength")}
        if said and self.init is None and self.inpaint is None:
            raise RecipeError(option["strength"], "it goes with --init or --inpaint. Of a recipe's own condition it is --set "
                                                  "conditions.0.strength=0.5.")  # fmt: skip
        if self.init is not None:
            picture, strength = weighed(self.init)
            if said and strength is not None and strength != self.strength:
                raise RecipeError(
                    option["strength"], f"it is {self.strength:g}, and {self.init} says {strength:g}. Keep one of them."
                )
            said_here = said if strength is None else {"strength": strength}
            yield f"{option['init']} {self.init}", {"kind": "img2img", "image": picture} | said_here
        if self.inpaint is not None:
            image, mask = self.inpaint
            mine = said if self.init is None else {}
            yield f"{option['inpaint']} {image} {mask}", {"kind": "inpaint", "image": image, "mask": mask} | mine
        for text in self.control:
            model, rest = named_picture(text)
            if not (model and rest):
                raise RecipeError(
                    option["control"], f"{text!r} is not of the form name=picture, as in --control edges=room.png@0.8"
                )
            picture, weight = weighed(rest)
            hint = {"kind": "controlnet", "model": model, "image": picture, "annotator": "auto"}
            yield f"{option['control']} {text}", hint | _weight(weight)
        for text in self.ip:
            model, rest = named_picture(text)
            picture, weight = weighed(rest)
            named = {"model": model} if model else {}
            yield f"{option['ip']} {text}", {"kind": "ip_adapter", **named, "image": picture} | _weight(weight)


def _weight(weight: float | None) -> dict[str, float]:
    return {} if weight is None else {"weight": weight}

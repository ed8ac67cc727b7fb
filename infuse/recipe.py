"""THE request. One frozen model serves Python, YAML, the command line, HTTP, a form, and a picture's metadata."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr

from infuse import pairs
from infuse.conditions import AnyCondition
from infuse.curves import Curve
from infuse.errors import InfuseWarning, RecipeError, under
from infuse.lossy import Lossy
from infuse.media.films import Film
from infuse.media.inputs import found_again, put_back
from infuse.media.metadata import changed_inputs
from infuse.media.pictures import Colour, Picture
from infuse.media.plain_data import read_data, shallow
from infuse.media.reading import BY_HASH, OWN, STRICT, Reading, at_home, policy, shown
from infuse.media.reading import reading as under_policy
from infuse.scheduler_options import SchedulerOptions
from infuse.seeds import RANDOM, Seed, drawn, listed
from infuse.validation import Strict
from infuse.within import MODELS, OWN_MODELS, models, renamed, replaced, seen
from infuse.words.wording import Emphasis, Syntax

__all__ = ["MODELS", "OWN_MODELS", "Recipe", "digest", "models", "opened", "read", "renamed", "replaced", "seen"]

LARGEST_SIDE = 8192
MADE = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff", ".gif", ".mp4", ".m4v", ".mov")
"""What may be a picture or film made by infuse; so may be a folder of frames."""


class Recipe(Strict):
    """What to make. Same recipe, same machine: same bytes.

    Raises RecipeError naming the field if a value is wrong.
    """

    model: str | None = Field(default=None, min_length=1)
    """`tabletop`, a Hub id, a diffusers folder, or one .safetensors checkpoint; the engine's own if left out."""
    prompt: str = ""
    negative_prompt: str = ""
    prompt_2: str | None = None
    """What SDXL's second text encoder reads instead of the prompt."""
    negative_prompt_2: str | None = None
    syntax: Syntax = "webui"
    """How words are read: `(red:1.2)`, BREAK, AND, `[a:b:0.5]`, `<lora:x:0.8>` as in the webui; as in compel; or plain, every sign painted."""
    emphasis: Emphasis = "original"
    """What the webui's weights do: with the mean restored, without, or nothing."""
    clip_skip: int | None = Field(default=None, ge=1, le=24)
    """Which layer of the text encoder is heard, counted from its last, which is 1, as in the webui (diffusers' clip_skip is one less)."""
    styles: tuple[str, ...] = ()
    """Names in styles.csv in a folder of INFUSE_MODELS."""
    embeddings: tuple[str, ...] = ()
    """Textual inversions beside those in INFUSE_MODELS; the file's name is the word."""
    width: int | None = Field(default=None, ge=8)
    """Pixels, any number of them; the start picture's, or what the model was trained at, if left out."""
    height: int | None = Field(default=None, ge=8)
    frames: int | None = Field(default=None, ge=1)
    """For video networks."""
    steps: int = Field(default=30, ge=1, le=1000)
    scheduler: str | None = None
    """Any name of a diffusers scheduler ("DPM++ 2M Karras", "Euler a", ...); the model's own if left out."""
    scheduler_options: SchedulerOptions | None = None
    """Its knobs: eta, spacing, timesteps of one's own; those that this scheduler has."""
    vae: str | None = Field(default=None, min_length=1)
    """A VAE instead of the model's own: a folder, a file, or a model whose VAE is meant."""
    text_encoder: str | None = Field(default=None, min_length=1)
    """The same of the (first) text encoder."""
    guidance: Curve | None = None
    """Guidance scale of the prompt, or a curve of it; 1 and below mean none, and half of the work. The model's own
    (7.5 for SD 1/2, 5 for SDXL, as in diffusers) if left out."""
    guidance_rescale: float = Field(default=0.0, ge=0, le=1)
    seed: Seed = 0
    """A number below 2**63; as many numbers as there are pictures; or "random", drawn when the recipe is resolved."""
    count: int = Field(default=1, ge=1, le=1024)
    """How many pictures; each has its own seed: seed, seed + 1, ... With a list of seeds, as many as it has."""
    background: Colour = "white"
    """What is seen through transparent pixels of pictures and films: a name or #rrggbb."""
    lossy: Lossy | None = None
    """What is left out to save time. It changes the picture; nothing is left out by default."""
    conditions: tuple[AnyCondition, ...] = ()

    @classmethod
    def spelled(cls, data: dict[str, Any]) -> dict[str, Any]:
        return pairs.spelled(cls.model_fields, data)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each picture. Raises ValueError while it is random: `seeded` draws it."""
        return listed(self.seed, self.count)

    def seeded(self) -> Recipe:
        """The same recipe, with a number where its seed was random."""
        return self.model_copy(update={"seed": drawn()}) if self.seed == RANDOM else self

    def only(self, items: Sequence[int]) -> Recipe:
        """The recipe of some of its pictures alone, by their number, with what its conditions say to these."""
        seeds = tuple(self.seeds[i] for i in items)
        said = {"seed": seeds[0] if len(seeds) == 1 else seeds, "count": len(seeds)}
        return self.model_copy(update={**said, "conditions": tuple(c.only(items) for c in self.conditions)})

    _reading: Reading = PrivateAttr(default_factory=policy)
    """What may be read for it; neither equality nor the digest looks at it."""
    _notes: tuple[str, ...] = PrivateAttr(default=())

    @classmethod
    def load(
        cls,
        source: str | Path | dict[str, Any],
        *,
        trust: bool | None = None,
        inputs: Sequence[str | Path] = (),
        reading: Reading | None = None,
    ) -> Recipe:
        """From a .yaml or .json file, a dictionary, or a picture or film: one made by infuse, or by another program as far as its
        text can be meant here. Relative paths start at a .yaml or .json file, else at the working folder.

        trust: may it name any file and model? Left out, one's own .yaml, .json and dictionaries may, and a recipe that
        came out of a picture may not. inputs: folders in which what was too large to travel is found again, by its hash.
        reading: the whole policy, instead of these two. What was left out or has changed is an InfuseWarning and in
        `notes`. Raises RecipeError or CapacityError.
        """
        if isinstance(source, dict):
            given = reading or (STRICT if trust is False else policy())
            shallow(source, given)
            found, folder = Found(source, {}), None
        else:
            path = at_home(str(source))
            strange = trust is False or (trust is None and is_made(path))
            # what a picture says was said in a working folder, not in the folder that it lies in
            given, folder = reading or (STRICT if strange else OWN), None if is_made(path) else path.parent
            found = read(path, given)
        rules = given if folder is None or given.folder else given.at(folder)
        if inputs:
            rules = replace(rules, inputs=tuple(at_home(str(i)) for i in inputs))
        places = found_again(found.record.get("inputs", {}).values(), rules.inputs)
        if places and not rules.trusting:  # these files and no others
            rules = replace(rules, roots=(*(rules.roots or ()), *(p.absolute() for p in places.values())))
        with under_policy(rules):
            recipe = cls(**put_back(found.data, places))
        notes = list(found.notes)
        if rules.trusting and not isinstance(source, dict):
            notes += changed_inputs(recipe.pictures(), found.record.get("inputs", {}), at_home(str(source)))
        recipe._notes = tuple(notes)
        for note in notes:
            warnings.warn(note, InfuseWarning, stacklevel=2)
        return recipe

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out when it was read out of a picture, or what has changed since; one sentence each."""
        return self._notes

    def __eq__(self, other: object) -> bool:
        """By what is asked for, whoever may read it."""
        if not isinstance(other, Recipe):
            return NotImplemented
        return all(getattr(self, n) == getattr(other, n) for n in type(self).model_fields)

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
            own = self._reading.folder or Path()
            there = self.with_pictures(lambda p: seen_from(folder, p))
            there = there.with_models(lambda name, _: model_from(folder, name, own)).dump()
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

    @property
    def reading(self) -> Reading:
        """What may be read for it."""
        return self._reading

    def with_models(self, change: Callable[[str, str], str]) -> Recipe:
        """The same recipe with every model's name replaced by `change(name, dotted field)`."""
        own = {name: change(said, name) for name in OWN_MODELS if (said := getattr(self, name)) is not None}
        words = tuple(change(name, f"embeddings.{i}") for i, name in enumerate(self.embeddings))
        said = {"embeddings": words, "conditions": renamed(self.conditions, change, "conditions")}
        return self.model_copy(update={**own, **said})

    def with_pictures(self, change: Callable[[Any], Any]) -> Recipe:
        """The same recipe with every picture and film replaced."""
        return self.model_copy(update={"conditions": replaced(self.conditions, change)})


def seen_from(folder: Path, found: Picture | Film) -> Picture | Film:
    """The same picture or film, its relative path written as it is from a (resolved) folder."""
    if (
        (isinstance(found, Picture) and not found.named)
        or found.source.startswith(("data:", BY_HASH))
        or at_home(found.source).is_absolute()
    ):
        return found
    here = Path(found.source)
    there = os.path.relpath(here.parent.resolve() / here.name, folder)
    return replace(found, source=there) if isinstance(found, Picture) else found.model_copy(update={"source": there})


def model_from(folder: Path, name: str, own: Path) -> str:
    """A model's relative path as it is written in a (resolved) folder, if it begins at its `own` one; names stay names."""
    here = own / name
    is_path = "/" in name or "." in name
    if not is_path or at_home(name).is_absolute() or not here.exists() or own.resolve() == folder:
        return name
    there = os.path.relpath(here.parent.resolve() / here.name, folder)
    return there if os.sep in there else os.path.join(".", there)


@dataclass(frozen=True)
class Found:
    """What was read as a recipe."""

    data: dict[str, Any]
    record: Mapping[str, Any]
    """All that a picture made by infuse says of itself; empty for everything else."""
    notes: tuple[str, ...] = ()
    """What another program said that cannot be meant here."""


def is_made(path: Path) -> bool:
    """Is it a picture or film by its name, or a folder of frames, rather than a file of fields and values?"""
    return path.suffix.lower() in MADE or os.path.isdir(path)  # a name too long for a file is none


def read(path: Path, limits: Reading = OWN) -> Found:
    """A recipe file's data, or what a picture or film says. Raises RecipeError if it is not to be read, or no mapping, or
    CapacityError."""
    from infuse.foreign import foreign
    from infuse.media.film_writer import record_in

    if not os.path.exists(path):
        raise RecipeError("", f"there is no recipe file {shown(str(path))}. Check the path.")
    if is_made(path):
        record, others = record_in(path, limits)
        if record is not None:
            return Found(record["recipe"], record)
        data, notes = foreign(others, path)
        return Found(data, {}, notes)
    data = read_data(path, limits)
    if not isinstance(data, dict) or not all(isinstance(k, str) for k in data):
        raise RecipeError(
            "", f"{path} does not hold fields and values. A recipe looks like this:\nprompt: a red cube\nsteps: 20"
        )
    return Found(data, {})


def digest(model: Strict, voiced: bool = True) -> str:
    """sha256 over what a recipe's or condition's fields say, pictures and films by content.

    A field at its default says nothing, so that one more in a later version changes no digest. Not `voiced`: without
    what says how loudly, when and where conditions are heard; what they are encoded to, in this process (`Picture.mark`).
    """

    def plain(value: Any) -> Any:
        match value:
            case Picture():
                return value.digest if voiced else value.mark
            case Film():
                return value.digest
            case Strict():
                skipped = frozenset() if voiced else getattr(value, "VOICE", frozenset())
                said = {
                    n: v
                    for n, f in type(value).model_fields.items()
                    if (v := getattr(value, n)) != f.get_default() or n == "kind"
                }
                return {n: plain(v) for n, v in said.items() if n not in skipped}
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

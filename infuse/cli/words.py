"""Words of a command line: is it a prompt or a file, which picture with which weight, which field with which value.

A prompt is a prompt: only what ends like a recipe or a picture, or like a folder, is taken for a file, and what could be
both is asked about.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from os.path import isdir, isfile
from pathlib import Path
from typing import Any, get_args

from infuse import spellings
from infuse.conditions import AnyCondition
from infuse.errors import InfuseError, RecipeError
from infuse.media.reading import at_home, shown
from infuse.recipe import MADE, Recipe

RECIPES = (".yaml", ".yml", ".json")
SEPARATORS = tuple({"/", os.sep})


def is_file(source: str) -> bool:
    """Is this a recipe, a picture or film, or a folder of frames, rather than a prompt? Raises RecipeError if it may be both.

    By its ending: of a recipe, a picture or a film, or a slash for a folder of frames. A bare word is a prompt, whatever
    files have that name.
    """
    path, name = at_home(source), shown(source)
    if source.strip() and source.endswith(SEPARATORS):
        if not isdir(path):
            raise RecipeError(
                "",
                f"there is no folder {name}. Check the path; or, if these are words to paint, say --prompt {name!r}.",
            )
        return True
    if path.suffix.lower() in (*RECIPES, *MADE):
        if not isfile(path) and not isdir(path):
            what = "recipe file" if path.suffix.lower() in RECIPES else "picture"
            raise RecipeError(
                "",
                f"there is no {what} {name}. Check the path; or, if these are words to paint, say --prompt {name!r}.",
            )
        return True
    if isfile(path) and (path.suffix or any(s in source for s in SEPARATORS)):
        raise RecipeError("", f"{name} is a file here, and no recipe by its ending ({', '.join(RECIPES)}; or a picture or film made by "
                              f"infuse). To paint these words, say --prompt {name!r}; to paint the words in the file, --prompt "
                              f'"$(cat {name})".')  # fmt: skip
    if isdir(path) and (any(s in source for s in SEPARATORS) or _clip_of_ours(path)):
        raise RecipeError("", f"{name} is a folder here. To run the clip in it again, write {name}/ with a slash at its end; to paint "
                              f"these words, say --prompt {name!r}.")  # fmt: skip
    return False


def _clip_of_ours(folder: Path) -> bool:
    """Does this folder hold the frames of a clip made by infuse?"""
    from infuse.media.film_writer import record_in

    try:
        return bool((record_in(folder)[0] or {}).get("fps"))
    except (InfuseError, OSError):
        return False


def named_picture(text: str) -> tuple[str, str]:
    """`name=picture@0.8` to (name, picture@0.8); ("", text) without a name. Files whose own names have a = in them are taken as
    they are, and where several = could part the two, the one that leaves a file on the right does."""
    if text.startswith("data:") or "=" not in text or isfile(at_home(weighed(text)[0])):
        return "", text
    places = [i for i, c in enumerate(text) if c == "="]
    sound = (i for i in places if isfile(at_home(weighed(text[i + 1 :])[0])))
    at = next(sound, places[0])
    return text[:at], text[at + 1 :]


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
        here = _entered(here, _ours(here, step, top=i == 0), inside, path)
    _entered(here, _ours(here, last, top=not parents), value, path, replace=True)


def _ours(here: Any, step: str, top: bool) -> str:
    """A field's name among those that are there already: what is set takes the place of what the file says."""
    if not isinstance(here, dict):
        return step
    kind, fields = _known(here, top)
    return spellings.ours(kind, fields, step) or step


def _known(here: Mapping[str, Any], top: bool) -> tuple[str, Iterable[str]]:
    """(kind, fields) of a recipe's or condition's data."""
    if top:
        return spellings.RECIPE, Recipe.model_fields
    kinds = {m.model_fields["kind"].default: m for m in get_args(get_args(AnyCondition)[0])}
    kind = str(here.get("kind"))
    return (kind, kinds[kind].model_fields) if kind in kinds else ("", ())


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

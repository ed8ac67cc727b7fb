"""YAML and JSON of strangers as plain data: no deeper, no longer and no wider than the policy allows, and no field twice.

YAML's anchors stay allowed; what they stand for is counted as often as it is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from infuse.errors import CapacityError, RecipeError
from infuse.media.reading import Reading

MOST_NODES = 100_000
"""Values of a recipe, with everything that aliases stand for. A curve of a clip has a thousand."""
PIECES = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.S)


def read_data(path: Path, limits: Reading) -> Any:
    """What a YAML or JSON file says. Raises RecipeError (neither, or a field twice) or CapacityError (too much)."""
    try:
        with path.open("rb") as file:
            content = file.read(limits.most_text + 1)
        if len(content) > limits.most_text:
            raise _too_long(path, limits)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RecipeError("", f"{path} is not YAML or JSON: {error}") from None
    except OSError as error:
        raise RecipeError("", f"{path} cannot be read ({error.strerror}). Check the path.") from None
    return json_data(text, path, limits) if path.suffix.lower() == ".json" else yaml_data(text, path, limits)


def json_data(text: str, path: Path, limits: Reading, what: str = "{} is not YAML or JSON: {}") -> Any:
    """JSON's data. Numbers are those of JSON: no NaN, no infinity."""
    if len(text) > limits.most_text:
        raise _too_long(path, limits)
    depth = deepest = 0
    for piece in PIECES.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(piece[0], 0)
        deepest = max(deepest, depth)
    if deepest > limits.deepest:
        raise _too_deep(path, limits)

    def once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
        return dict(_once(pairs, path))

    def refused(name: str) -> Any:
        raise ValueError(f"{name} is no number that JSON knows")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refused)
    except RecipeError:
        raise
    except (ValueError, RecursionError) as error:
        raise RecipeError("", what.format(path, " ".join(str(error).split()))) from None


def yaml_data(text: str, path: Path, limits: Reading) -> Any:
    """YAML's data, by its safe loader."""
    import yaml

    class Once(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            list(_once(((key.value, None) for key, _ in node.value), path))
            return super().construct_mapping(node, deep)

    try:
        try:  # libyaml is ten times faster, and PyYAML says better what is wrong
            _counted(text, path, limits, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except yaml.YAMLError:
            _counted(text, path, limits, yaml.SafeLoader)
        return yaml.load(text, Once)
    except RecipeError:
        raise
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # ValueError: the 99th of May
        raise RecipeError("", f"{path} is not YAML or JSON: {' '.join(str(error).split())}") from None


def _counted(text: str, path: Path, limits: Reading, loader: Any) -> None:
    """Raises CapacityError if a YAML text is deeper or, with its aliases written out, larger than the limits."""
    import yaml

    whole: dict[str, tuple[int, int, int]] = {}
    """Anchor -> (values, characters, levels) of what it stands for."""
    open_: list[list[Any]] = [[None, 0, 0, 0]]
    """[anchor, values, characters, levels below] of the lists and mappings that have begun."""
    for event in yaml.parse(text, loader):
        anchor = None
        match event:
            case yaml.AliasEvent():
                if event.anchor not in whole:
                    raise RecipeError("", f"{path}: what is called &{event.anchor} contains itself, or is named before it is there. Write "
                                          "it out.")  # fmt: skip
                values, characters, levels = whole[event.anchor]
            case yaml.ScalarEvent():
                anchor, values, characters, levels = event.anchor, 1, len(event.value), 0
            case yaml.CollectionStartEvent():
                open_.append([event.anchor, 1, 0, 1])
                if len(open_) > limits.deepest + 1:
                    raise _too_deep(path, limits)
                continue
            case yaml.CollectionEndEvent():
                anchor, values, characters, levels = open_.pop()
            case _:
                continue
        if anchor:
            whole[anchor] = values, characters, levels
        outer = open_[-1]
        outer[1], outer[2], outer[3] = outer[1] + values, outer[2] + characters, max(outer[3], levels + 1)
        if len(open_) + levels > limits.deepest + 1:
            raise _too_deep(path, limits)
        if outer[1] > MOST_NODES or outer[2] > 4 * limits.most_text:
            raise CapacityError("", f"{path} becomes more than {MOST_NODES} values or {4 * limits.most_text >> 20} MiB when its aliases are "
                                    "written out. Make it shorter.")  # fmt: skip


def shallow(data: Any, limits: Reading, name: str = "this recipe") -> None:
    """Raises CapacityError if plain data has more levels than the limit."""
    level = [data]
    for _ in range(limits.deepest + 1):
        level = [
            v for x in level if isinstance(x, dict | list | tuple) for v in (x.values() if isinstance(x, dict) else x)
        ]
        if not level:
            return
        if len(level) > MOST_NODES:
            raise CapacityError("", f"{name} has more than {MOST_NODES} values. Make it shorter.")
    raise _too_deep(name, limits)


def _once(pairs: Iterable[tuple[Any, Any]], path: Path) -> Iterable[tuple[str, Any]]:
    found: set[str] = set()
    for key, value in pairs:
        if isinstance(key, str) and key in found:
            raise RecipeError("", f"{path} says {key!r} twice. Keep one of them.")
        found.add(str(key))
        yield str(key), value


def _too_deep(name: Any, limits: Reading) -> CapacityError:
    return CapacityError(
        "", f"{name} has lists and mappings inside of each other, more than {limits.deepest} deep. A recipe needs five."
    )


def _too_long(path: Path, limits: Reading) -> CapacityError:
    return CapacityError("", f"{path} has more than {limits.most_text >> 20} MiB, the limit of a recipe's text. Name pictures by "
                             "their paths instead of writing them into it.")  # fmt: skip

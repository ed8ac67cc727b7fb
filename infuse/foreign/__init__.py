"""Pictures of other programs: what each of them writes becomes a recipe as far as it can be meant here, one file a program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infuse.errors import RecipeError
from infuse.foreign import comfyui, diffusers, invokeai, novelai, swarmui, webui
from infuse.foreign.said import Said, loose_json, mapping, meant
from infuse.media.film_writer import record_in
from infuse.media.reading import OWN, STRICT, Reading, at_home, shown

LONGEST = 2000
"""Characters of one value that are still shown."""
DEEPEST = STRICT.deepest
"""Levels of lists and mappings in what a stranger wrote."""


def foreign(texts: Mapping[str, str], path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """(fields of a recipe, what was left out) from the texts in a picture or film (`infuse.media.texts`).

    The model is never among the fields: a name in a stranger's file is no file of yours. It is named in a sentence.
    Raises RecipeError if nothing in them is known.
    """
    said = told(texts)
    if said is None:
        raise RecipeError(
            "", f"{path} carries no recipe. What infuse, the webui, ComfyUI, InvokeAI, SwarmUI, NovelAI and scripts around "
            "diffusers write into their pictures can be read, unless it was stripped or converted since."
        )  # fmt: skip
    return meant(said)


def told(texts: Mapping[str, str]) -> Said | None:
    """What a program said of its picture, told apart by the names of the chunks and the form of their texts."""
    if data := mapping(loose_json(texts.get("invokeai_metadata", ""), DEEPEST)):
        return invokeai.read(data)
    if data := mapping(loose_json(texts.get("sd-metadata", ""), DEEPEST)):
        return invokeai.read_old(data)
    if text := texts.get("Dream"):
        return invokeai.read_command(text)
    if "NovelAI" in texts.get("Software", "") and (data := mapping(loose_json(texts.get("Comment", ""), DEEPEST))):
        return novelai.read(data, texts.get("Description", ""), texts.get("Source", ""))
    for name in ("parameters", "UserComment", "comment"):
        if (text := texts.get(name, "")) and (said := _described(text)):
            return said
    for graph in _graphs(texts):
        if comfyui.is_graph(graph):
            return comfyui.read(graph)
    return diffusers.read(texts) if diffusers.is_theirs(texts) else None


def _described(text: str) -> Said | None:
    """A text that describes a picture: JSON of several programs, or the webui's lines."""
    data = loose_json(text, DEEPEST)
    if data is None:
        return webui.read(text) if webui.split(text)[2] or webui.NEGATIVE in text else None
    if "sui_image_params" in (data := mapping(data)):
        return swarmui.read(data)
    if comfyui.is_graph(graph := _inner(data.get("prompt"))):
        return comfyui.read(mapping(graph))
    if comment := mapping(_inner(data.get("Comment"))):  # NovelAI's WebP
        return novelai.read(comment, str(data.get("Description", "")), str(data.get("Source", "")))
    return diffusers.read(data) if diffusers.is_theirs(data) else None


def _graphs(texts: Mapping[str, str]) -> list[Any]:
    """What may be ComfyUI's graph: a chunk `prompt`, or an EXIF field that begins so."""
    found = [texts.get("prompt", "")]
    found += [
        texts.get(n, "").partition(":")[2]
        for n in ("ImageDescription", "Make", "Model")
        if texts.get(n, "").lower().startswith("prompt:")
    ]
    return [loose_json(text, DEEPEST) for text in found if text]


def _inner(value: Any) -> Any:
    return loose_json(value, DEEPEST) if isinstance(value, str) else value


def shown_record(path: str | Path, limits: Reading = OWN) -> str:
    """What a picture, film or folder of frames says of its making, as YAML; files that travel inside are named by their size.

    Of another program's picture: the recipe that it becomes, and what was left out. Raises RecipeError if it says nothing.
    """
    import yaml

    path = at_home(str(path))
    if not path.exists():
        raise RecipeError("", f"there is no file {path}. Check the path.")
    record, texts = record_in(path, limits)
    if record is None:
        recipe, notes = foreign(texts, path)
        record = {"recipe": recipe, "left out": list(notes)} if notes else {"recipe": recipe}
    first = ("recipe", "resolved", "inputs", "weights", "warnings", "versions", "digest")
    inner = {k: record[k] for k in first if record.get(k)} | {k: v for k, v in record.items() if k not in first}
    return yaml.safe_dump(_short(inner), sort_keys=False, allow_unicode=True, width=120)


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        order = sorted(value, key=lambda k: (k != "kind", k == "conditions"))  # what it is first, what is long last
        return {shown(str(k)): _short(value[k]) for k in order}
    if isinstance(value, list | tuple):
        return [_short(v) for v in value]
    if isinstance(value, str) and value.startswith("data:"):
        head, _, body = value.partition(",")
        return f"{shown(head.partition(';')[0], 60)}: {len(body) * 3 // 4 / 1024:.1f} KiB inside"
    return value[:LONGEST] if isinstance(value, str) else value

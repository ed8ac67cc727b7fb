"""Other programs' folders as they lie: where the webui, ComfyUI and InvokeAI keep models, and under which names.

A root may be the program's own folder, its `models` folder, or any other. What is found is a name that `Library.find` takes:
a path below its shelf without the ending, or InvokeAI's own name. Reads names only; imports no torch.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from infuse.weights.formats import SUFFIXES

WEBUI = ("stable-diffusion", "lora", "lycoris", "controlnet", "vae", "vae-approx", "vae-taesd", "embeddings", "esrgan", "realesrgan",
         "swinir", "dat", "text_encoder")  # fmt: skip
COMFY = ("checkpoints", "diffusion_models", "unet", "vae", "vae_approx", "loras", "controlnet", "t2i_adapter", "ipadapter", "style_models",
         "clip_vision", "clip", "text_encoders", "gligen", "embeddings", "model_patches", "upscale_models", "latent_upscale_models", "diffusers",
         "photomaker", "animatediff_models", "animatediff_motion_lora", "inpaint", "brushnet", "instantid")  # fmt: skip
SHELVES = frozenset(WEBUI + COMFY)
"""Folders that hold models, in lower case: the webui capitalises some of them."""
INSIDE = ("models", "extensions/sd-webui-controlnet/models", "extensions/sd-webui-animatediff/model")
"""Where else below a program's folder its shelves, or loose models, are."""
EXTRA = "extra_model_paths.yaml"
INVOKE = ("databases/invokeai.db", "invokeai.db")
SKIPPED = frozenset(
    {
        "configs",
        "__pycache__",
        "node_modules",
        "venv",
        "env",
        "site-packages",
        "outputs",
        "output",
        "input",
        "temp",
        "model_images",
    }
)
DEPTH, MOST = 5, 20_000
"""How deep below a shelf models are looked for, and how many entries of folders are looked at: a root may be a whole disk."""


Test = Callable[[Path], bool]


@dataclass(frozen=True)
class Entry:
    """One model on a shelf."""

    name: str
    path: Path
    shelf: Path


def shelves(root: Path) -> list[Path]:
    """The folders of a root in which models are: its own and those it points to, each once; the root itself if it has none."""
    found = [*_known(root), *_extra(root / EXTRA)]
    for inside in INSIDE:
        if (folder := root / inside).is_dir():
            found += _known(folder) if inside == "models" else [folder]
    if (root / "models").is_dir() and any((root / db).is_file() for db in INVOKE):
        found.append(root / "models")
    seen: dict[Path, Path] = {}
    for folder in found:
        seen.setdefault(folder.resolve(), folder)
    return list(seen.values()) or [root]


def _known(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.name.lower() in SHELVES - SKIPPED and p.is_dir())
    except OSError:
        return []


def _extra(path: Path) -> list[Path]:
    """Folders that ComfyUI's extra_model_paths.yaml names: paths relative to `base_path`, one or several to an entry."""
    import yaml

    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []
    found: list[Path] = []
    for section in data.values() if isinstance(data, dict) else ():
        if not isinstance(section, dict):
            continue
        base = path.parent / os.path.expandvars(os.path.expanduser(str(section.get("base_path") or "")))
        for key, value in section.items():
            if key in ("base_path", "is_default", *SKIPPED) or not isinstance(value, str):
                continue
            found += [Path(os.path.normpath(base / line.strip())) for line in value.splitlines() if line.strip()]
    return [p for p in found if p.is_dir()]


def entries(root: Path, is_there: Test, is_model: Test) -> list[Entry]:
    """Every model of a root: what lies in the root itself, then its shelves in order.

    `is_there` says of a folder in the root whether a name may stand for it, `is_model` of a folder on a shelf whether it is one
    model. Names that two would share are paths below the root instead.
    """
    named = _invoke(root)
    found = [Entry(_stem(p), p, root) for p in _here(root, is_there)]
    whole = {p.path for p in found}
    for shelf in shelves(root):
        own = (p for p in _below(shelf, is_model) if not whole & {p, *p.parents})
        found += [Entry(named.get(_key(p)) or _name(p, shelf), p, shelf) for p in own]
    count: dict[str, int] = {}
    for e in found:
        count[e.name] = count.get(e.name, 0) + 1
    return [e if count[e.name] == 1 else Entry(_full(e.path, root), e.path, e.shelf) for e in found]


def places(root: Path, name: str, is_there: Test) -> list[Path]:
    """Where a name may stand for on the shelves of a root; never outside of them, but where links lead."""
    found: dict[Path, Path] = {}
    for shelf in shelves(root):
        for path in (shelf / name, *(shelf / f"{name}{s}" for s in SUFFIXES)):
            if Path(os.path.normpath(path)).is_relative_to(os.path.normpath(shelf)) and is_there(path):
                found.setdefault(path.resolve(), path)
    if not found:
        own = (Path(place) for place, known in _invoke(root).items() if known == name)
        found |= {p.resolve(): p for p in own if is_there(p)}
    return list(found.values())


def _stem(path: Path) -> str:
    return path.stem if path.suffix in SUFFIXES and path.is_file() else path.name


def _name(path: Path, shelf: Path) -> str:
    return (path.relative_to(shelf).parent / _stem(path)).as_posix()


def _full(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _key(path: Path) -> str:
    return os.path.normpath(path)


def _here(folder: Path, is_there: Test) -> list[Path]:
    """Models right in this folder. Hidden files are nobody's."""
    try:
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
    except OSError:
        return []
    return [
        p
        for p in found
        if (p.suffix in SUFFIXES and p.is_file())
        or (p.is_dir() and p.name.lower() not in SHELVES | SKIPPED and is_there(p))
    ]


def _below(shelf: Path, is_model: Test) -> Iterator[Path]:
    """Models in a shelf and its folders, whatever their depth up to DEPTH; what is a model is not looked into."""
    looked = 0
    waiting = [(shelf, 0)]
    while waiting and looked < MOST:
        folder, depth = waiting.pop(0)
        try:
            here = sorted(folder.iterdir())
        except OSError:
            continue
        looked += len(here)
        for path in here:
            if path.name.startswith(".") or path.name.lower() in SKIPPED:
                continue
            if path.is_dir():
                if is_model(path):
                    yield path
                elif depth < DEPTH:
                    waiting.append((path, depth + 1))
            elif path.suffix in SUFFIXES:
                yield path


def _invoke(root: Path) -> Mapping[str, str]:
    """InvokeAI's names by place: its database has, for each model, a JSON of name and path. {} without one, or if it is locked."""
    found: dict[str, str] = {}
    for place in INVOKE:
        if not (root / place).is_file():
            continue
        try:
            base = sqlite3.connect(f"file:{quote(str(root / place))}?mode=ro&immutable=1", uri=True)
            try:
                rows = base.execute("SELECT config FROM models").fetchall()
            finally:
                base.close()
        except sqlite3.Error:
            continue
        for (text,) in rows:
            try:
                data = json.loads(text)
                path = root / "models" / data["path"]  # an absolute path is taken as it is
                found[_key(path)] = str(data["name"])
            except (ValueError, TypeError, KeyError):
                continue
    return found

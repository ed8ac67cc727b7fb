"""What the documents say is run: every block of Python, YAML and shell, on tiny models under the embedded ones' names."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import homes
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import infuse
from infuse import Recipe
from infuse.cli.app import app
from infuse.engine.engine import Engine

ROOT = Path(__file__).parent.parent
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in (
            "index",
            "models",
            "recipes",
            "files",
            "identify",
            "words",
            "prompts",
            "lora",
            "inpaint",
            "powerpaint",
            "reference",
            "bases",
            "boxes",
            "controlnet",
            "t2i",
            "ip-adapter",
            "video",
            "engine",
        )
    ),
)
FROM_NOTHING = ("README.md", "docs/index.md")
"""Pages that are run in an empty folder; beside the others lie the pictures of `infuse.examples()`."""


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """(what the fence says, its content)."""
    return iter(re.findall(r"^```(.*)\n([\s\S]*?)^```$", (ROOT / page).read_text("utf-8"), re.M))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return homes.home(tmp_path, monkeypatch)


def lighter(text: str) -> str:
    """Sizes and steps of real checkpoints, as tiny networks like them."""
    text = re.sub(r"(steps[= ])(?:20|30)\b", r"\g<1>2", text)
    return re.sub(r"((?:width|height)=)(?:512|384)", r"\g<1>64", text)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs(page: str, home: Path) -> None:
    """In order, as pasted. FROM_NOTHING's stand in an empty folder."""
    if page not in FROM_NOTHING:
        infuse.examples(home)
    if page == "docs/models.md":
        homes.released(home, home.parent / "hub")
    if page == "docs/lora.md":
        homes.changed(home)
    if page == "docs/bases.md":
        homes.told(home)
    if page == "docs/controlnet.md":
        homes.branched(home)
    if page == "docs/inpaint.md":
        homes.branch(home)
    if page == "docs/t2i.md":
        homes.adapted(home)
    if page == "docs/ip-adapter.md":
        homes.faced(home)
    if page == "docs/boxes.md":
        homes.attended(home)
    names: dict[str, Any] = {}
    for fence, text in blocks(page):
        match fence.split():
            case ["python", "run", *machine]:
                if machine == ["gpu"]:  # what only a GPU does is done here by what is there
                    assert 'device="cuda"' in text
                    text = text.replace('"cuda"', '"cpu"').replace('"float16"', '"float32"')
                exec(compile(lighter(text), page, "exec"), names)
            case ["yaml", "recipe", *model]:
                (home / "recipe.yaml").write_text(text)
                recipe = Recipe.load("recipe.yaml").model_copy(update={"model": model[0]} if model else {})
                assert not Engine(device="cpu").check(recipe).warnings
            case ["sh", "run"]:
                for line in lighter(text).strip().splitlines():
                    done = CliRunner().invoke(app, shlex.split(line)[1:])
                    assert done.exit_code == 0, f"{line}\n{done.output}"
            case []:
                pass  # output, or a drawing
            case other:
                raise AssertionError(
                    f"{page}: a block is marked {other}; mark it `python run`, `yaml recipe` or `sh run`"
                )
    for name in re.findall(r'(?:-o |save\("|save\(f")([\w{}-]+\.(?:png|gif))', (ROOT / page).read_text("utf-8")):
        made = re.sub(r"\*+", "*", re.sub(r"\{\w+\}", "*", name).replace(".", "*."))
        assert list(home.glob(made)), f"{page} says that {name} is made"


@pytest.mark.slow
def test_the_first_block_runs_as_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On what comes with infuse, in an empty folder, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fence, first = next((fence, text) for fence, text in blocks("README.md") if fence)
    assert fence == "python run" and first.startswith("import infuse")
    exec(compile(first, "README.md", "exec"), {})
    with Image.open("cone.png") as made, Image.open("room.png") as room, Image.open("mask.png") as mask:
        change = np.abs(np.asarray(made, float) - np.asarray(room, float)).mean(-1)
        inside = np.asarray(mask.convert("L")) > 127
    assert (change[~inside] == 0).all() and change[inside].mean() > 10


@pytest.mark.slow
def test_a_picture_of_a_count_runs_alone_to_the_same_bytes(home: Path) -> None:
    for line in ("run 'a blue sphere' --steps 5 --seed 11 --count 2 -o pair.png", "run pair-1.png -o alone.png"):
        assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    assert Path("pair-1.png").read_bytes() == Path("alone.png").read_bytes()


def joined(text: str) -> str:
    """Without line breaks and the commas that a formatter adds at them."""
    return re.sub(r",?\s+([)\]])", r"\1", re.sub(r"([(\[])\s+", r"\1", " ".join(text.split())))


def test_the_walk_through_a_condition_quotes_it() -> None:
    source = (ROOT / "infuse" / "conditions" / "size.py").read_text("utf-8")
    flat = joined(source)
    quoted = [line.split("  #")[0].strip() for fence, text in blocks("CONTRIBUTING.md") for line in text.splitlines()]
    quoted += [
        " ".join(re.sub(r"^> ?", "", q, flags=re.M).split())
        for q in re.findall(r"(?:^> .*\n)+", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    ]
    assert len(quoted) >= 5
    for line in quoted:
        assert joined(line) in flat, line


@pytest.mark.parametrize(
    "page", [*PAGES, "CONTRIBUTING.md", "docs/architecture.md", "docs/performance.md", "examples/README.md"]
)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert link.startswith("http") or (ROOT / page).parent.joinpath(link).exists(), link
    for name in re.findall(r"`((?:infuse|tests|docs)/[\w/]+(?:\.\w+)?)`", text):
        assert (ROOT / name).exists(), name


def test_the_fields_are_all_documented() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    missing = [f for f in Recipe.model_fields if f"`{f}`" not in text]
    assert not missing


def test_every_kind_of_condition_has_a_page_with_an_example_that_runs() -> None:
    kinds = {c.model_fields["kind"].default: c.__name__ for c in every(infuse.Condition) if "kind" in c.model_fields}
    shown = [text for page in PAGES[2:] for fence, text in blocks(page) if fence]
    for kind, name in kinds.items():
        assert name not in infuse.__all__ or any(
            f"kind: {kind}" in text or f"infuse.{name}(" in text for text in shown
        ), kind


def every(of: type) -> Iterator[Any]:
    """All classes below one."""
    for below in of.__subclasses__():
        yield below
        yield from every(below)


def test_the_reference_has_every_public_name() -> None:
    text = (ROOT / "docs" / "api.md").read_text("utf-8")
    told = set(re.findall(r"^::: infuse\.(?:\w+\.)*(\w+)$", text, re.M))
    errors = {name for name in infuse.__all__ if getattr(infuse, name).__module__ == "infuse.errors"}
    assert "errors" in told and not set(infuse.__all__) - told - errors


@pytest.mark.slow
def test_the_pages_build_with_warnings_as_errors(tmp_path: Path) -> None:
    """As `make docs` does; and what was built asks nothing of a network."""
    pytest.importorskip("mkdocs", reason="pip install '.[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert not done.returncode, done.stdout + done.stderr
    for page in tmp_path.glob("*.html"):
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=\"?https?:", page.read_text("utf-8")), page.name
    assert 'id="infuse.Inpaint"' in (tmp_path / "api.html").read_text("utf-8")

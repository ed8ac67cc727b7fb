"""The house keeps its shape: imports point down, files stay small, importing does nothing, the papers agree."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from PIL import Image

import infuse
from infuse.ports import Ports

ROOT = Path(__file__).parent.parent
SOURCES = {
    ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted((ROOT / "infuse").rglob("*.py"))
}
BUDGET = 350

LAYERS: list[tuple[str, ...]] = [
    ("errors", "friends", "notices", "elsewhere", "meanings", "processor"),
    ("spellings", "seeds"),
    ("curves", "validation", "guidance", "timetable", "network.spec", "network.ldm_names", "network.blocks"),
    ("lossy",),  # what a recipe may ask to be left out, and which evaluation leaves what out
    ("media", "media.*", "samplers", "schedulers", "solver_tables", "solvers", "scheduler_options"),
    ("words", "words.*"),  # what a prompt says beyond its words: text in, plain data out
    ("foreign.*",),  # what other programs write into their pictures
    ("foreign",),
    ("values", "shares"),
    ("ports",),
    (
        "encoders.motion",
        "encoders.drawn_motion",
        "encoders.ip_kinds",
        "encoders.ip_layers",
        "encoders.ip_combine",
        "encoders.ip_projections",
        "encoders.ip_adapter",
        "encoders.faces",
        "encoders.t2i",
        "encoders.t2i_style",
        "encoders.coadapter",
        "encoders.clip_blocks",
        "encoders.t2i_kinds",
        "encoders.annotators",
        "encoders.annotators.*",
        "encoders.generations",
    ),  # what conditions look and speak with: plain functions, plain facts
    ("conditions.base",),  # a mechanism knows ports and specs; networks and encoders lie above it, out of its reach
    ("conditions.frames", "conditions.holed", "conditions.areas"),
    ("conditions.hints", "conditions.lllite", "conditions.text"),
    ("conditions.*", "conditions.controlnet.*", "conditions.powerpaint.*", "conditions.video.*"),
    ("conditions",),
    ("pairs", "recipe", "within"),
    ("grids", "constants"),
    ("spoken",),
    ("batch", "tokens", "unroll"),
    ("network.lora.*",),
    ("network",),
    ("encoders",),
    ("weights", "weights.layouts.*", "weights.looks.*"),
    ("engine",),
    ("training",),  # what a user trains with: it knows no tabletop
    ("server",),  # a durable queue, which knows no recipes and no networks; worker: makes its jobs by an engine
    ("tabletop",),
    ("tabletop.stage", "tabletop.sheet"),
    (
        "tabletop.demo_pictures",
        "tabletop.demo_powerpaint",
        "tabletop.demo_maps",
        "tabletop.demo_looks",
        "tabletop.demo_video",
    ),
    ("tabletop.demo",),
    ("tabletop.making",),  # the demo shows what is made; how it was made lies above it, out of its reach
    ("",),  # infuse/__init__.py
    ("cli.words", "cli.show", "cli.merge", "cli.train"),
    ("cli.recipe",),
    ("cli.options", "cli.making", "cli.serve"),
    ("cli.app",),
    ("cli", "cli.__main__"),
]
"""From the ground up. A file imports from layers below its own, or from its own folder in the same layer."""


def layer(module: str) -> int:
    """The layer of a module, by the longest name that fits."""
    name = module.removeprefix("infuse").removeprefix(".")
    parent = name.rpartition(".")[0]
    for candidate in (name, f"{parent}.*", *(name.rsplit(".", n)[0] for n in range(1, name.count(".") + 1))):
        for i, names in enumerate(LAYERS):
            if candidate in names:
                return i
    raise AssertionError(f"{module} has no place in LAYERS; give it one")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(SOURCES[module].read_text("utf-8"))


def imported(module: str) -> Iterator[str]:
    """Every import of infuse's own, wherever it stands: at the top, in a function, or for type checkers alone."""
    path = SOURCES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "infuse")
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            if source.split(".")[0] == "infuse":
                yield from (name if (name := f"{source}.{a.name}") in SOURCES else source for a in node.names)


@cache
def graph() -> dict[str, set[str]]:
    """Module -> what it imports of infuse."""
    return {module: set(imported(module)) for module in SOURCES}


def folder(module: str) -> str:
    """Whose files may import each other within a layer. What reads weights, the layouts it knows and the looks it takes count as one."""
    return module.rpartition(".")[0].removesuffix(".layouts").removesuffix(".looks")


def room(module: str) -> str:
    """The folder right below `infuse/`, or the file that stands there by itself."""
    return ".".join(module.split(".")[:2])


def test_imports_point_down() -> None:
    wrong = []
    for module, names in graph().items():
        for found in names:
            own, theirs = layer(module), layer(found)
            # among the conditions there are no sisters: one mechanism is one file, or one folder
            sisters = own == theirs and folder(module) == folder(found) != "infuse.conditions"
            if theirs >= own and not sisters:
                wrong.append(f"{module} (layer {own}) imports {found} (layer {theirs})")
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circles() -> None:
    TopologicalSorter(graph()).prepare()


def test_folders_have_no_circles() -> None:
    rooms: dict[str, set[str]] = {}
    for module, names in graph().items():
        rooms.setdefault(room(module), set()).update({room(name) for name in names} - {room(module)})
    TopologicalSorter(rooms).prepare()


def test_training_knows_no_tabletop() -> None:
    """What a user trains with stands without the embedded models: no import leads there, not even by way of others."""
    reached, new = set[str](), {module for module in SOURCES if room(module) == "infuse.training"}
    while new:
        reached |= new
        new = set().union(*(graph().get(module, set()) for module in new)) - reached
    assert not [module for module in reached if room(module) == "infuse.tabletop"]
    named = [m for m in reached if room(m) == "infuse.training" and "infuse.tabletop" in SOURCES[m].read_text("utf-8")]
    assert not named, "nor does a string name it"


def test_files_stay_within_their_budget() -> None:
    long = {m: n for m, p in SOURCES.items() if (n := len(p.read_text("utf-8").splitlines())) > BUDGET}
    assert not long, f"longer than {BUDGET} lines: {long}. A file that asks for more room asks to become two."


def test_every_file_says_its_idea_first() -> None:
    silent = [m for m, p in SOURCES.items() if p.read_text("utf-8").strip() and not ast.get_docstring(tree(m))]
    assert not silent


def test_the_ports_are_the_documented_eight() -> None:
    names = [f.name for f in fields(Ports)]
    assert names == ["latent", "channels", "context", "decoupled", "residuals", "embedding", "shared", "edits"]
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    assert re.findall(r"^\| \*\*(\w+)\*\*", table, re.M) == names


def test_policy_has_no_tensors() -> None:
    tree = ast.parse(SOURCES["infuse.engine.scheduler"].read_text("utf-8"))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {n.split(".")[0] for n in names} <= sys.stdlib_module_names | {"__future__"}


HEAVY = (
    "diffusers",
    "transformers",
    "cv2",
    "numba",
    "huggingface_hub",
    "safetensors",
    "accelerate",
    "peft",
    "rich",
    "typer",
    "PIL",
    "yaml",
    "torch",
    "scipy",
    "jaxtyping",
)
COMPUTING = ("torch", "diffusers", "transformers", "cv2", "scipy", "accelerate", "peft", "jaxtyping")
"""Who takes seconds to come, and is of no use before something is computed."""


def ran(code: str, folder: Path = ROOT) -> str:
    """What this code prints in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, env=env)
    assert not done.returncode, done.stderr
    return done.stdout


def test_importing_brings_no_heavy_friends() -> None:
    """infuse alone brings nothing, a recipe pydantic and numpy; whoever else is needed is invited when it is needed."""
    code = "import sys\n"
    for module in ("infuse", "infuse.cli.app", "infuse.recipe"):  # each on top of those before
        code += (
            f"import {module}; print({module!r}, *[m for m in {(*HEAVY, 'numpy', 'pydantic')!r} if m in sys.modules])\n"
        )
    found = {module: set(heavy) for module, *heavy in map(str.split, ran(code).splitlines())}
    commands = {"typer", "rich"} & found["infuse.cli.app"]  # typer may bring rich
    assert found == {
        "infuse": set(), "infuse.cli.app": commands, "infuse.recipe": {"numpy", "pydantic"} | commands
    }  # fmt: skip


CHECK = """
import sys
import infuse
from infuse.cli.app import app

recipe = infuse.Recipe(prompt="a red cube", conditions=[
    infuse.Inpaint(image="a.png", mask="m.png"),
    infuse.ControlNet(model="edges", image="a.png", weight={0: 1, 1: 0.5}),
    infuse.IPAdapter(image="a.png"),
])
recipe.dump("r.yaml")
assert infuse.Recipe.load("r.yaml") == recipe and recipe.digest
for arguments in (["check", "r.yaml"], ["run", "r.yaml", "--check", "--scheduler", "DPM++ 2M Karras"], ["models"]):
    try:
        app(arguments)
    except SystemExit as done:
        assert not done.code, arguments
"""


def test_a_check_asks_headers_alone(tmp_path: Path) -> None:
    """Recipes, their files and the whole check of one, the command line's as well: no torch, no network library."""
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    Image.new("L", (64, 64), 255).save(tmp_path / "m.png")
    said = ran(CHECK + f"print(*[m for m in {COMPUTING!r} if m in sys.modules])", tmp_path).splitlines()
    assert any("network calls" in line for line in said) and said[-1] == ""


@pytest.mark.parametrize(("said", "most"), [("-c 'import infuse'", 0.4), ("-m infuse.cli --help", 0.4), ("-m infuse.cli check r.yaml", 1.5)])  # fmt: skip
@pytest.mark.slow
def test_nobody_waits_for_what_is_not_needed(said: str, most: float, tmp_path: Path) -> None:
    """Seconds of a processor, the best of some: others' work beside it is not infuse's. The first run writes the bytecode."""
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "a.png")
    (tmp_path / "r.yaml").write_text(
        "prompt: a red cube\nconditions:\n- {kind: controlnet, model: edges, image: a.png}\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env |= {"PYTHONPYCACHEPREFIX": str(tmp_path / "bytecode"), "PYTHONPATH": str(ROOT)}
    taken = []
    for _ in range(6):
        begin = os.times()
        subprocess.run([sys.executable, *shlex.split(said)], cwd=tmp_path, env=env, capture_output=True, check=True)
        end = os.times()
        taken.append(end.children_user - begin.children_user + end.children_system - begin.children_system)
        if taken[-1] < most:
            return
    raise AssertionError(f"{said}: {min(taken):.2f} s, not {most}")


def test_names_are_there_before_they_are_fetched() -> None:
    code = (
        "import infuse; print(set(infuse.__all__) <= set(dir(infuse)), infuse.errors.RecipeError is infuse.RecipeError)"
    )
    assert ran(code).split() == ["True", "True"]
    assert ran("from infuse import *; print(Recipe.__name__, load.__name__)").split() == ["Recipe", "load"]
    with pytest.raises(AttributeError, match="'infuse' has no attribute 'Nothing'"):
        infuse.Nothing  # noqa: B018  # pyright: ignore


def test_version_and_changelog_agree() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert newest and newest[1] == infuse.__version__


def test_nobody_elses_machine_is_named() -> None:
    """Paths of one machine are of no use on another."""
    texts = [
        p
        for folder in ("infuse", "tests", "docs")
        for p in (ROOT / folder).rglob("*")
        if p.suffix in (".py", ".md", ".yaml", ".json")
    ]
    texts += [p for p in ROOT.glob("*") if p.is_file() and p.suffix in (".md", ".toml", ".txt", "")]
    named = [
        str(p.relative_to(ROOT))
        for p in texts
        if re.search(r"(?<![\w.])/(?:work|root|home|Users)/\w", p.read_text("utf-8", "ignore"))
    ]
    assert not named

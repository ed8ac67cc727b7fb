"""What pyproject promises is so: every package is used, what is used is asked for, and the Pythons agree everywhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from infuse.samplers import CLASSES

ROOT = Path(__file__).parent.parent
WHOLE = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = WHOLE["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
PINS = [Requirement(line) for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line[0] != "#"]
TOOLS = {"docs", "dev", "bench", "kernels"}
"""Extras whose packages are used by commands of the Makefile, and not by infuse."""
OWNERS = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml"}
"""Modules that are called otherwise than what installs them."""


def named(requirements: list[str]) -> set[str]:
    return {Requirement(r).name.lower().replace("_", "-") for r in requirements} - {"infuse"}


@cache
def nodes() -> dict[str, list[ast.AST]]:
    """File of infuse -> what its source is made of."""
    files = (ROOT / "infuse").rglob("*.py")
    kept = (ast.Import, ast.ImportFrom, ast.Constant)
    return {
        str(p.relative_to(ROOT)): [n for n in ast.walk(ast.parse(p.read_text("utf-8"))) if isinstance(n, kept)]
        for p in files
    }


def imported() -> dict[str, set[str]]:
    """Distribution -> files of infuse that import something of it."""
    found: dict[str, set[str]] = {}
    for path, every in nodes().items():
        for name in names(every):
            top = name.split(".")[0]
            if top not in sys.stdlib_module_names and top != "infuse":
                found.setdefault(OWNERS.get(top, top).lower().replace("_", "-"), set()).add(path)
    return found


def spoken() -> set[str]:
    """Every string in infuse's sources: a sampler that has another package do its work names it so."""
    found = (node for every in nodes().values() for node in every if isinstance(node, ast.Constant))
    return {node.value for node in found if isinstance(node.value, str)}


def names(every: list[ast.AST]) -> Iterator[str]:
    for node in every:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_what_is_imported_is_asked_for_and_what_is_asked_for_is_used() -> None:
    used = imported()
    core = named(PROJECT["dependencies"])
    extras = {extra: named(packages) for extra, packages in EXTRAS.items()}
    words = spoken()
    brought = {
        "pydantic-core",
        "tokenizers",
        "starlette",
    }  # by pydantic, transformers, FastAPI, of the versions that they fit
    missing = {d: sorted(files) for d, files in used.items() if d not in core.union(brought, *extras.values())}
    assert not missing, "imported, and nobody installs it"
    assert not core - set(used), "installed for everybody, and imported nowhere"
    for extra in set(extras) - TOOLS:
        idle = extras[extra] - set(used) - words
        assert not idle, f"the extra {extra!r} installs what infuse does not use"
    assert "numba" not in core, "208 MB for drawing data sets"


def test_what_a_sampler_needs_is_in_an_extra() -> None:
    """W8: a letter names the package, and whoever asks for the samplers has it already."""
    needed = {facts.needs for facts in CLASSES.values() if facts.needs}
    assert {"torchsde", "scipy"} <= needed <= named(EXTRAS["samplers"])


def test_the_readme_says_how_to_install_before_what_to_run() -> None:
    """U16."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert 0 < readme.index("pip install .") < readme.index("import infuse")


def test_an_extra_is_known_where_a_letter_names_it() -> None:
    texts = [p.read_text("utf-8") for p in (ROOT / "infuse").rglob("*.py")]
    texts += [p.read_text("utf-8") for p in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))]
    told = {extra for text in texts for extra in re.findall(r"infuse\[(\w+)\]", text)}
    assert told and told <= set(EXTRAS)


def test_the_pythons_agree() -> None:
    listed = [c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    promised = SpecifierSet(PROJECT["requires-python"])
    first, last = listed[0], listed[-1]
    assert listed == [f"3.{n}" for n in range(int(first[2:]), int(last[2:]) + 1)]
    assert all(promised.contains(v) for v in listed)
    assert not promised.contains(f"3.{int(first[2:]) - 1}"), "older Pythons are promised than listed"
    assert WHOLE["tool"]["pyright"]["pythonVersion"] == first
    assert WHOLE["tool"]["ruff"]["target-version"] == f"py{first.replace('.', '')}"
    assert f"Python {first}" in (ROOT / "README.md").read_text("utf-8")
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in listed


def test_the_pins_are_among_what_is_asked_for() -> None:
    ranges = {
        r.name: r.specifier
        for text in [*PROJECT["dependencies"], *sum(EXTRAS.values(), [])]
        if (r := Requirement(text))
    }
    for pin in PINS:
        (exact,) = pin.specifier
        assert ranges.get(pin.name, SpecifierSet()).contains(exact.version), pin
        assert version(pin.name).split("+")[0] == exact.version, "this environment has another version"


@pytest.mark.slow
def test_every_module_is_imported_without_the_extras() -> None:
    """Optional friends are invited where they are needed, so a plain install lacks nothing at the door."""
    optional = {"av", "numba", "scipy", "torchsde", "peft"}
    modules = sorted(
        ".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for p in (ROOT / "infuse").rglob("*.py")
        if p.name
        not in ("__main__.py", "fused.py")  # a GPU's kernels: nobody imports them where torch brings no Triton
    )
    code = f"import importlib, sys\nsys.modules.update(dict.fromkeys({sorted(optional)!r}))\n"
    code += f"for name in {modules!r}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert not done.returncode, done.stderr


def test_whoever_enters_the_servers_room_without_its_extra_reads_what_to_install() -> None:
    code = "import sys\nsys.modules['sqlalchemy'] = None\nimport infuse.server"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'pip install "infuse[serve]"' in done.stderr.splitlines()[-1]

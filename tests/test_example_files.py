"""The files in `examples/` are what people copy, so each of them runs as it is, in an empty folder."""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

import homes
import pytest
from typer.testing import CliRunner

from infuse import Recipe
from infuse.cli.app import app

FOLDER = Path(__file__).parent.parent / "examples"
FILES = sorted(p.name for p in FOLDER.iterdir() if p.suffix in (".py", ".yaml"))
MADE: Mapping[str, set[str]] = {
    "asyncio_tasks.py": {"task-1.png", "task-2.png"},
    "batch.py": {f"batch-{i}.png" for i in range(6)},
    "clip.py": {"moving.gif"},
    "edit.py": {f"edited-{i}.png" for i in range(3)},
    "inpaint.py": {"filled.png"},
    "look.py": {"looked.png"},
    "own_checkpoint.py": {"fox.png"},
    "several_conditions.yaml": {"several.png"},
}


def test_each_is_named_and_its_results_are_known() -> None:
    told = (FOLDER / "README.md").read_text("utf-8")
    assert list(MADE) == FILES and all(f"({name})" in told for name in FILES)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_it_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = homes.home(tmp_path, monkeypatch)
    if name == "own_checkpoint.py":
        homes.released(home, tmp_path / "hub")
    if name.endswith(".py"):
        monkeypatch.setattr("sys.argv", [name, "my-sd15"] if name == "own_checkpoint.py" else [name])
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    else:
        (home / name).write_bytes((FOLDER / name).read_bytes())
        for line in (["examples"], ["run", name, "-o", "several.png"]):
            done = CliRunner().invoke(app, line)
            assert done.exit_code == 0, done.output
    for made in MADE[name]:
        assert Recipe.load(home / made), "a result carries its recipe"

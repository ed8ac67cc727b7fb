"""Pickles become safetensors with the same content, through the restricted unpickler."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from infuse import WeightsError
from infuse.cli.app import app
from infuse.weights import unpickling
from infuse.weights.convert import convert
from infuse.weights.unpickling import unpickled


def test_a_pickle_keeps_its_tensors_and_names(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    state = {"a.weight": shared, "b.weight": shared, "step": torch.tensor(7), "c": torch.randn(2, 2).t()}
    torch.save({"state_dict": state}, tmp_path / "pytorch_model.bin")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "pytorch_model.bin"), str(tmp_path / "x.safetensors")])
    assert done.exit_code == 0, done.output
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


@pytest.mark.slow
def test_nothing_is_overwritten_and_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    (tmp_path / "there.safetensors").write_bytes(b"x")
    for out, why in (("there.safetensors", "there already"), ("x.bin", "end with .safetensors")):
        with pytest.raises(WeightsError, match=why):
            convert(tmp_path / "a.bin", tmp_path / out)
    (tmp_path / "broken.bin").write_bytes(b"no weights")
    with pytest.raises(WeightsError):
        convert(tmp_path / "broken.bin", tmp_path / "y.safetensors")


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch exploded",))


def test_a_pickle_that_would_run_code_is_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": torch.ones(1), "b": Bomb()}, tmp_path / "a.bin")
    with pytest.raises(WeightsError, match="would run code") as letter:
        convert(tmp_path / "a.bin", tmp_path / "a.safetensors")
    assert letter.value.field == "source" and [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.slow
def test_a_pickle_that_unpacks_into_more_than_it_may_is_a_letter(tmp_path: Path) -> None:
    """Of a few kilobytes: zeros, packed."""
    torch.save({"a": torch.zeros(2**23)}, tmp_path / "plain.pt")  # 32 MiB
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as packed:  # fmt: skip
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    (tmp_path / "plain.pt").unlink()
    assert (tmp_path / "a.pt").stat().st_size < 2**17
    with pytest.raises(WeightsError, match="unpacks into more"):
        unpickled(tmp_path / "a.pt", tmp_path / "a.safetensors", memory=2**23)
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_a_reader_that_crashes_or_never_ends_is_a_letter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="not read within 0 s"):
        unpickled(tmp_path / "a.pt", tmp_path / "a.safetensors", seconds=0.05)
    monkeypatch.setattr(unpickling.sys, "executable", "/bin/false")
    with pytest.raises(WeightsError, match="ended the process that read it"):
        unpickled(tmp_path / "a.pt", tmp_path / "a.safetensors")


@pytest.mark.slow
def test_nothing_of_a_pickle_is_read_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    monkeypatch.setattr(torch, "load", None)
    assert convert(tmp_path / "a.bin", tmp_path / "a.safetensors") == 1

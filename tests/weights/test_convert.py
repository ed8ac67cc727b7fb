"""Pickles become safetensors with the same content, through the restricted unpickler."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from infuse import WeightsError
from infuse.cli.app import app
from infuse.weights.convert import convert


def test_a_pickle_keeps_its_tensors_and_names(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    state = {"a.weight": shared, "b.weight": shared, "step": torch.tensor(7), "c": torch.randn(2, 2).t()}
    torch.save({"state_dict": state}, tmp_path / "pytorch_model.bin")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "pytorch_model.bin"), str(tmp_path / "x.safetensors")])
    assert done.exit_code == 0, done.output
    found = load_file(tmp_path / "x.safetensors")
    assert found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


def test_nothing_is_overwritten_and_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1)}, tmp_path / "a.bin")
    (tmp_path / "there.safetensors").write_bytes(b"x")
    for out, why in (("there.safetensors", "there already"), ("x.bin", "end with .safetensors")):
        with pytest.raises(WeightsError, match=why):
            convert(tmp_path / "a.bin", tmp_path / out)
    (tmp_path / "broken.bin").write_bytes(b"no weights")
    with pytest.raises(WeightsError):
        convert(tmp_path / "broken.bin", tmp_path / "y.safetensors")

"""`infuse merge base lora@0.8 other@0.5 -o out`."""

from __future__ import annotations

from pathlib import Path

import lora_files
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import tiny
from infuse.cli.app import app
from infuse.cli.merge import weighed
from infuse.errors import RecipeError


def test_words_are_names_with_weights() -> None:
    assert weighed("a.safetensors@0.8") == ("a.safetensors", 0.8)
    assert weighed("a.safetensors") == ("a.safetensors", 1.0)
    assert weighed("owner/name@main") == ("owner/name@main", 1.0)
    assert weighed("owner/name@main@-.5") == ("owner/name@main", -0.5)
    with pytest.raises(RecipeError, match="has a weight and no name"):
        weighed("@0.5")


@pytest.mark.slow
def test_a_base_is_written_with_its_loras(world: Path) -> None:
    lows = lora_files.changes(tiny.base("sd1").parts["unet"])
    lora_files.save(Path("style.safetensors"), lora_files.kohya(lows))
    done = CliRunner().invoke(
        app, ["merge", "./base", "./style.safetensors@0.8", "./style.safetensors@-0.3", "-o", "merged"]
    )
    assert done.exit_code == 0, done.output
    assert not done.stdout and f"merged: {len(lows)} tensors changed" in done.stderr
    at = "unet/diffusion_pytorch_model.safetensors"
    before, after = load_file(world / "base" / at), load_file(world / "merged" / at)
    for low in lows:
        torch.testing.assert_close(
            after[f"{low.path}.weight"], before[f"{low.path}.weight"] + 0.5 * low.delta, atol=1e-6, rtol=1e-5
        )
    again = CliRunner().invoke(app, ["merge", "./base", "./style.safetensors", "-o", "merged"])
    assert again.exit_code == 2 and "error: out: merged is there already" in again.stderr
    picture = CliRunner().invoke(app, ["run", "a cat", "--model", "./merged", "--steps", "1", "-o", "merged.png"])
    assert picture.exit_code == 0, picture.output

"""VideoComposer's goldens: every output of the original, at its own tolerance, through infuse's networks and loaders."""

from __future__ import annotations

import pytest
import torch

from .golden import Golden, difference
from .through_video import ELSEWHERE, VIDEO_WAYS

LONG = {"videocomposer_unet"}  # 32 evaluations of a video network


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    """As for every golden; a single number has no deviation, so its own size is the measure."""
    return float((a - b).abs() / b.abs()) if b.numel() == 1 else difference(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in VIDEO_WAYS])
def test_every_output(name: str) -> None:
    golden = Golden(name)
    with torch.no_grad():
        found = VIDEO_WAYS[name](golden)
    wanted = {k: t for k, t in golden.outputs.items() if k not in ELSEWHERE.get(name, ())}
    assert found.keys() == wanted.keys()
    differences = {k: off(found[k], t) for k, t in wanted.items()}
    print(
        name, max(differences, key=differences.__getitem__), f"{max(differences.values()):.1e}"
    )  # pytest -rP shows it
    assert {k: d for k, d in differences.items() if d > golden.record["tolerance"]} == {}

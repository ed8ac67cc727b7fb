"""GLIGEN equals diffusers on stored numbers: tokens of boxes, the gated layers, the silent side, and the layers switched off."""

from __future__ import annotations

import torch

from .golden import Golden
from .through_gligen import gligen


def test_every_output() -> None:
    golden = Golden("gligen")
    with torch.no_grad():
        found = golden.differences(gligen(golden))
    print(f"{max(found.values()):.1e}")
    assert {k: d for k, d in found.items() if d > golden.record["tolerance"]} == {}

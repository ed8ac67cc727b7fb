"""FaceID in infuse equals the original on stored numbers, low-rank part, shortcut and all."""

from __future__ import annotations

import pytest
import torch

from .golden import Golden
from .through_ip_faces import FACE_WAYS


@pytest.mark.parametrize("name", FACE_WAYS)
def test_every_output(name: str) -> None:
    golden = Golden(name)
    with torch.no_grad():
        found = golden.differences(FACE_WAYS[name](golden))
    print(f"{max(found.values()):.1e}")  # pytest -rP shows it
    assert {k: d for k, d in found.items() if d > golden.record["tolerance"]} == {}

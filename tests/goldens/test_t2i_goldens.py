"""T2I-Adapters equal the public implementations on stored numbers."""

from __future__ import annotations

import pytest
import torch

from .golden import Golden
from .through_t2i import T2I_WAYS


@pytest.mark.parametrize("name", T2I_WAYS)
def test_every_output(name: str) -> None:
    golden = Golden(name)
    with torch.no_grad():
        found = golden.differences(T2I_WAYS[name](golden))
    print(f"{max(found.values()):.1e}")
    assert {k: d for k, d in found.items() if d > golden.record["tolerance"]} == {}

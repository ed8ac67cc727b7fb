"""The tabletop's colours without its VAE: pictures that were never fitted are seen, roughly, as they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from infuse.engine.model_store import ModelStore
from infuse.engine.preview import TABLETOP
from infuse.tabletop.dataset import HELD_OUT
from infuse.tabletop.making.preview_factors import fit, seen


@pytest.fixture(scope="module")
def base() -> Any:
    return ModelStore(device="cpu").base("tabletop")


@pytest.mark.slow
def test_held_out_pictures_are_recognised(base: Any) -> None:
    """Measured on 64: 0.947 over all places and colours, 0.87 for the worst picture."""
    latents, pictures = seen(base, 24, HELD_OUT)
    looks = torch.stack([2 * TABLETOP(z) - 1 for z in latents]).movedim(-1, 1)
    assert np.corrcoef(looks.flatten(), pictures.flatten())[0, 1] > 0.93
    assert all(np.corrcoef(a.flatten(), b.flatten())[0, 1] > 0.8 for a, b in zip(looks, pictures, strict=True))
    assert float((looks - pictures).abs().mean()) < 0.12, "of a range of 2"


def test_a_fit_finds_what_is_linear() -> None:
    z = torch.randn(3, 4, 5, 6)
    pictures = torch.stack([2 * TABLETOP(one) - 1 for one in z]).movedim(-1, 1)
    found = fit(z, pictures)
    assert np.allclose(found.factors, TABLETOP.factors, atol=1e-4) and np.allclose(found.bias, TABLETOP.bias, atol=1e-4)


@pytest.mark.slow
def test_the_numbers_are_those_of_the_fit(base: Any) -> None:
    found = fit(*seen(base))
    assert np.allclose(found.factors, TABLETOP.factors, atol=2e-4) and np.allclose(found.bias, TABLETOP.bias, atol=2e-4)

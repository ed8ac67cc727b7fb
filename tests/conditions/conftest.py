"""Engines with IP-Adapters of every kind, for several files of tests."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import tiny_faces
import torch

import tiny
from infuse.engine.engine import Engine


@pytest.fixture(scope="module")
def engines() -> Callable[[str], Engine]:
    """Of a family, with adapters of every kind and "xl", which is another family's."""

    @cache
    def made(family: str) -> Engine:
        nets = {k: tiny_faces.adapter(family, k) for k in tiny_faces.KINDS} | {"xl": tiny_faces.adapter("sdxl", "plus")}
        return tiny.engine(tiny.base(family), nets)

    return made


@pytest.fixture
def engine(engines: Callable[[str], Engine]) -> Engine:
    return engines("sd1")


@pytest.fixture(scope="module")
def exact() -> Engine:
    """In float64, for what must be equal."""
    return tiny.engine(
        tiny.base("sd1", dtype=torch.float64), {k: tiny_faces.adapter("sd1", k) for k in ("plus", "faceid")}
    )

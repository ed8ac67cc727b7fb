"""Whoever imports this runs a GPU's kernels on the processor, or is skipped where Triton is not installed."""

import atexit
import os

import pytest

pytest.importorskip("triton", reason="`make test` installs it; torch brings it where there is a GPU")


@atexit.register
def _quiet() -> None:
    """Triton's bindings list what they still hold when Python ends; by then everything has been said."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)

"""Whoever imports this runs a GPU's kernels on the processor, or is skipped where Triton is not installed."""

import pytest

pytest.importorskip("triton", reason="`make test` installs it; torch brings it where there is a GPU")

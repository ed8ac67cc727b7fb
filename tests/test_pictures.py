"""The pictures in the documents are what the embedded models make. WRITE_PICTURES=1 makes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infuse.engine.engine import Engine
from infuse.tabletop.demo import Cast, Stage
from infuse.tabletop.demo_powerpaint import rows
from infuse.tabletop.sheet import sheet

IMAGES = Path(__file__).parent.parent / "docs" / "images"
ALIKE = 3.0
"""Mean difference, of 255, that another machine's arithmetic may make."""


@pytest.mark.slow
def test_powerpaint_s_page(tmp_path: Path) -> None:
    stage = Stage(Engine("tabletop", max_rows=1), Cast(), tmp_path, lambda path: None)
    made = sheet("PowerPaint: one condition, four tasks", rows(stage))
    made = made.resize((made.width * 2 // 3, made.height * 2 // 3), Image.Resampling.LANCZOS)
    path = IMAGES / "powerpaint.png"
    if os.environ.get("WRITE_PICTURES"):
        made.quantize(256).save(path, optimize=True)
    with Image.open(path) as shown:
        assert shown.size == made.size
        difference = np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(made, float)).mean()
    assert difference < ALIKE, f"docs/images/powerpaint.png differs by {difference:.1f} of 255; is it of older weights?"

"""The pictures in the documents are what the embedded models make. WRITE_PICTURES=1 makes them anew."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infuse.engine.engine import Engine
from infuse.tabletop import demo_powerpaint, demo_video
from infuse.tabletop.sheet import moving, save_moving, sheet
from infuse.tabletop.stage import Cast, Stage

IMAGES = Path(__file__).parents[2] / "docs" / "images"
ALIKE = 3.0
"""Mean difference, of 255, that another machine's arithmetic may make."""


@pytest.mark.slow
def test_powerpaint_s_page(tmp_path: Path) -> None:
    stage = Stage(Engine("tabletop", max_rows=1), Cast(), tmp_path, lambda path: None)
    made = sheet("PowerPaint: one condition, four tasks", demo_powerpaint.rows(stage))
    made = made.resize((made.width * 2 // 3, made.height * 2 // 3), Image.Resampling.LANCZOS)
    path = IMAGES / "powerpaint.png"
    if os.environ.get("WRITE_PICTURES"):
        made.save(path, optimize=True)  # a palette of 256 colours makes bands of what is shaded softly
    with Image.open(path) as shown:
        assert shown.size == made.size
        difference = np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(made, float)).mean()
    assert difference < ALIKE, f"docs/images/powerpaint.png differs by {difference:.1f} of 255; is it of older weights?"


@pytest.mark.slow
def test_the_page_of_clips(tmp_path: Path) -> None:
    stage = Stage(Engine("tabletop", max_rows=1), Cast(), tmp_path, lambda path: None)
    pages = moving("Clips: conditions add", demo_video.rows(stage))
    small = [p.resize((p.width * 3 // 5, p.height * 3 // 5), Image.Resampling.LANCZOS) for p in pages]
    path = IMAGES / "clips.gif"
    if os.environ.get("WRITE_PICTURES"):
        save_moving(small, path)
    with Image.open(path) as shown:
        assert (shown.size, shown.n_frames) == (small[0].size, len(small))  # type: ignore[attr-defined]
        for k, made in enumerate(small):
            shown.seek(k)
            difference = np.abs(np.asarray(shown.convert("RGB"), float) - np.asarray(made, float)).mean()
            assert difference < ALIKE, f"docs/images/clips.gif differs by {difference:.1f} of 255 in frame {k}"

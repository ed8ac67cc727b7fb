"""The pictures that come with infuse are what the renderer draws, and land in any folder without touching what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

import infuse
from infuse.tabletop.examples import PICTURES
from infuse.tabletop.making.example_pictures import FRAMES, SIDE, draw

NAMES = ["depth.png", "depths.gif", "edges.png", "left.png", "look.png", "mask.png", "right.png", "room.png", "segments.png",
         "walk.gif"]  # fmt: skip


def test_they_land_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "room.png").write_bytes(b"mine")
    assert [str(p) for p in infuse.examples()] == NAMES
    assert (tmp_path / "room.png").read_bytes() == b"mine", "what lies there stays"
    assert [p.name for p in infuse.examples(tmp_path / "a" / "new" / "one")] == NAMES
    for path in (tmp_path / "a" / "new" / "one").iterdir():
        with Image.open(path) as image:
            assert image.size == (SIDE, SIDE) and getattr(image, "n_frames", 1) == (
                FRAMES if path.suffix == ".gif" else 1
            )


@pytest.mark.slow
def test_they_are_what_is_drawn(tmp_path: Path) -> None:
    draw(tmp_path)
    assert sorted(p.name for p in PICTURES.iterdir()) == sorted(p.name for p in tmp_path.iterdir()) == NAMES
    for name in NAMES:
        with Image.open(PICTURES / name) as shipped, Image.open(tmp_path / name) as drawn:
            for a, b in zip(ImageSequence.Iterator(shipped), ImageSequence.Iterator(drawn), strict=True):
                difference = np.abs(np.asarray(a.convert("RGB"), float) - np.asarray(b.convert("RGB"), float))
                assert difference.mean() < 0.5, name

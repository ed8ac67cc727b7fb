"""The demo makes its sheet and every picture on it, on random networks; the layout holds any number of panels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import tiny
from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.engine.shelf import Shelf
from infuse.tabletop.demo import TABLE, TARGET, Cast, demo
from infuse.tabletop.sheet import CAPTION_LINES, GAP, TILE, Panel, Row, sheet
from infuse.tabletop.world import Camera, box


def test_a_sheet_has_room_for_everything() -> None:
    panels = [Panel(Image.new("RGB", (16, 16)), "words " * 60, given) for given in (True, False, False)]
    small, large = (
        sheet("t", [Row("a", "b", panels[:1])]),
        sheet("t", [Row("a", "b", panels), Row("c", "d", panels[:1])]),
    )
    assert large.width - small.width == 2 * (TILE + GAP)
    assert large.height - small.height > TILE + CAPTION_LINES * 17


def test_the_scenes_lie_inside_of_the_picture() -> None:
    for scene in (TABLE, TARGET):
        for thing in scene.things:
            left, top, right, bottom = box(thing, Camera())
            assert left > 0 and top > 0 and right < 1 and bottom < 1


@pytest.mark.slow
def test_the_demo_on_random_networks(tmp_path: Path) -> None:
    shelf = Shelf(device="cpu")
    shelf.add("base", tiny.base("sd1").base)
    shelf.add("nine", tiny.powerpaint1().base)
    shelf.add("lines", tiny.controlnet("sd1", 7))
    shelf.add("look", tiny.adapter("sd1", "plain", 9))
    told: list[Path] = []
    path = demo(
        tmp_path,
        Engine("base", shelf=shelf, max_rows=1),
        Cast("base", "nine", "lines", "look", side=32, steps=4),
        told.append,
    )
    with Image.open(path) as sheet:
        assert path == tmp_path / "contact_sheet.png" and sheet.size > (1000, 1000)
    everything = Recipe.load(tmp_path / "all.png")
    assert [c.kind for c in everything.conditions] == ["inpaint", "controlnet", "ip_adapter"]
    assert len(told) == len(set(told)) >= 16 and all(Recipe.load(p) for p in told)

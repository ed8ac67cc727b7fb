"""The demo makes its sheet and every picture on it, on random networks; the layout holds any number of panels."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import tiny
from infuse import Recipe
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.media.film_writer import read_record_of
from infuse.tabletop.demo import demo
from infuse.tabletop.demo_pictures import TARGET
from infuse.tabletop.demo_video import HOPPING, STILL
from infuse.tabletop.moves import times
from infuse.tabletop.sheet import CAPTION_LINES, GAP, TILE, Panel, Row, moving, save_moving, sheet
from infuse.tabletop.stage import TABLE, Cast
from infuse.tabletop.world import Camera, box
from infuse.training.video_models import composed_base, video_base


def test_a_sheet_has_room_for_everything() -> None:
    panels = [Panel(Image.new("RGB", (16, 16)), "words " * 60, given) for given in (True, False, False)]
    small, large = (
        sheet("t", [Row("a", "b", panels[:1])]),
        sheet("t", [Row("a", "b", panels), Row("c", "d", panels[:1])]),
    )
    assert large.width - small.width == 2 * (TILE + GAP)
    assert large.height - small.height > TILE + CAPTION_LINES * 17


def test_a_clip_is_four_frames_on_paper_and_all_of_them_in_motion(tmp_path: Path) -> None:
    greys = [Image.new("L", (8, 8), 30 * k) for k in range(8)]
    clip, picture = Panel(greys, "a clip"), Panel(greys[0], "a picture")
    four = clip.at(None)
    assert [four.getpixel(p)[0] for p in ((0, 0), (8, 0), (0, 8), (8, 8))] == [0, 60, 150, 210]
    assert clip.at(3) is greys[3] and clip.at(99) is greys[7] and picture.at(5) is picture.at(None) is greys[0]
    pages = moving("t", [Row("a", "b", [picture, clip, Panel(greys[:3], "shorter")])])
    assert len(pages) == 8 and pages[0].tobytes() != pages[7].tobytes()
    with Image.open(save_moving(pages, tmp_path / "a.gif")) as film:
        assert (film.n_frames, film.size, film.info["loop"]) == (8, pages[0].size, 0)


def test_the_scenes_lie_inside_of_the_picture() -> None:
    for scene in (TABLE, TARGET, STILL, *(HOPPING.at(t) for t in times(8))):
        for thing in scene.things:
            left, top, right, bottom = box(thing, Camera())
            assert left > 0 and top > 0 and right < 1 and bottom < 1


@pytest.mark.slow
def test_the_demo_on_random_networks(tmp_path: Path) -> None:
    store = ModelStore(device="cpu")
    store.add("base", tiny.base("sd1").base)
    store.add("nine", tiny.powerpaint1().base)
    store.add("lines", tiny.controlnet("sd1", 7))
    clips = composed_base(video_base(tiny.base("sd1").base, 4), style=False)
    clips.network.unet.eval()
    store.add("clips", clips)
    store.add("look", tiny.adapter("sd1", "plain", 9))
    told: list[Path] = []
    path = demo(
        tmp_path,
        Engine("base", store=store, max_rows=1),
        Cast("base", "nine", "lines", "look", "clips", side=32, steps=4, frames=4, clip_steps=3),
        told.append,
    )
    with Image.open(path) as sheet:
        assert path == tmp_path / "contact_sheet.png" and sheet.size > (1000, 1000)
    with Image.open(tmp_path / "clips.gif") as film:
        assert film.n_frames == 4
    both = Recipe.model_validate(read_record_of(tmp_path / "video-image-right.gif")["recipe"])
    assert [c.kind for c in both.conditions] == ["single_image", "motion"]
    told.remove(tmp_path / "clips.gif")
    everything = Recipe.load(tmp_path / "all.png")
    assert [c.kind for c in everything.conditions] == ["inpaint", "controlnet", "ip_adapter"]
    assert len(told) == len(set(told)) >= 16 and all(Recipe.load(p) for p in told)

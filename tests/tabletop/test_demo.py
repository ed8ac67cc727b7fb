"""The demo makes its sheet and every picture on it, on random networks; the layout holds any number of panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from diffusers import T2IAdapter
from loras import lora
from PIL import Image
from typer.testing import CliRunner

import tiny
from infuse import Recipe
from infuse.cli.app import app
from infuse.engine.engine import Engine
from infuse.engine.model_store import ModelStore
from infuse.media.film_writer import read_record_of
from infuse.tabletop.demo import MOVING, STILL, demo
from infuse.tabletop.demo_maps import AFTER, BEFORE, MIXED, NEAR_AND_FAR, ORANGE, TWO
from infuse.tabletop.demo_pictures import TARGET
from infuse.tabletop.demo_video import HOPPING
from infuse.tabletop.demo_video import STILL as FIRST
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


@pytest.mark.slow
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
    for scene in (
        TABLE,
        TARGET,
        NEAR_AND_FAR,
        TWO,
        MIXED,
        BEFORE,
        AFTER,
        ORANGE,
        FIRST,
        *(HOPPING.at(t) for t in times(8)),
    ):
        for thing in scene.things:
            left, top, right, bottom = box(thing, Camera())
            assert left > 0 and top > 0 and right < 1 and bottom < 1


@pytest.mark.slow
def test_the_demo_on_random_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quarter(title: str, rows: Sequence[Row]) -> list[Image.Image]:  # of noise, a palette takes minutes to find
        return [p.resize((p.width // 4, p.height // 4)) for p in moving(title, rows)]

    monkeypatch.setattr("infuse.tabletop.demo.moving", quarter)
    store = ModelStore(device="cpu")
    store.add("base", tiny.base("sd1").base)
    store.add("nine", tiny.powerpaint1().base)
    store.add("lines", tiny.controlnet("sd1", 7))
    clips = composed_base(video_base(tiny.base("sd1").base, 4), style=False)
    clips.network.unet.eval()
    store.add("clips", clips)
    store.add("look", tiny.adapter("sd1", "plain", 9))
    store.add("five", tiny.base("sd1", in_channels=5).base)
    store.add("eight", tiny.base("sd1", in_channels=8).base)
    store.add("greys", tiny.controlnet("sd1", 8))
    widths = list(tiny.base("sd1").base.network.unet.config["block_out_channels"])
    store.add("kinds", T2IAdapter(in_channels=3, channels=widths, num_res_blocks=1, downscale_factor=2))
    store.add("wooden", lora(tiny.base("sd1").base, 3))
    told: list[Path] = []
    path = demo(
        tmp_path,
        Engine("base", store=store, max_rows=1),
        Cast(
            "base",
            "nine",
            "five",
            "eight",
            "lines",
            "greys",
            "kinds",
            "look",
            "clips",
            side=32,
            steps=4,
            frames=4,
            clip_steps=3,
            lora="wooden",
        ),
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
    five = {c.kind for c in Recipe.load(tmp_path / "five-all.png").conditions}
    assert five == {"inpaint", "controlnet", "t2i_adapter", "text", "ip_adapter"}
    looks = {n: Recipe.load(tmp_path / f"looks-{n}.png") for n in ("without", "0.5", "left", "both")}
    said = {n: [(c.model, c.weight, c.mask is not None) for c in r.conditions] for n, r in looks.items()}
    left = [("wooden", 1.0, True)]
    assert said == {"without": [], "0.5": [("wooden", 0.5, False)], "left": left, "both": left}
    assert "<gold>" in looks["both"].prompt
    without = [len(Recipe.load(p).conditions) for p in tmp_path.glob("five-no-*.png")]
    assert without == [4] * 5
    assert len(told) == len(set(told)) >= 40 and all(Recipe.load(p) for p in told)


@pytest.mark.slow
def test_rows_are_chosen_by_name_and_unknown_ones_are_a_letter(tmp_path: Path) -> None:
    listed = CliRunner().invoke(app, ["demo", "--rows", "list"]).stdout.split()
    assert listed == [*STILL, *MOVING] and {"edit", "depth", "segments", "reference", "five"} <= set(listed)
    wrong = CliRunner().invoke(app, ["demo", "--rows", "edit, egde", "--out", str(tmp_path / "out")])
    assert wrong.exit_code == 2 and not (tmp_path / "out").exists()
    assert "there is no row 'egde'. Rows: text," in wrong.output
    store = ModelStore(device="cpu")
    store.add("base", tiny.base("sd1").base)
    cast = Cast("base", side=32, steps=4)
    demo(tmp_path, Engine("base", store=store, max_rows=1), cast, rows=["img2img"])
    made = {p.name for p in tmp_path.iterdir()}
    assert made == {"contact_sheet.png", "img2img-input.png", *(f"img2img-{s}.png" for s in (0.3, 0.6, 0.8))}

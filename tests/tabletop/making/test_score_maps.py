"""Measuring edits and maps: every experiment of the card, kept when cut off; what is asked is the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from infuse.cli.app import app
from infuse.tabletop.judge import Seen
from infuse.tabletop.making.card import ROWS
from infuse.tabletop.making.score_maps import PLAN, drawn, edit_of, grey, told
from infuse.tabletop.making.scorer import examples
from infuse.tabletop.maps import kinds


def test_edits_lead_forth_and_back_between_a_scene_and_its_neighbour() -> None:
    forth, back = examples(2)
    assert edit_of(forth).before.scene == forth.scene and edit_of(back).after.scene == back.scene
    for e in (forth, back):
        assert edit_of(e).text == edit_of(e).text
        assert (drawn(edit_of(e).before) != drawn(edit_of(e).after)).any()


def test_a_picture_that_is_its_map_scores_one() -> None:
    found = []
    for e in examples(2):
        seen = Seen((), "grey", "beige", kinds(e.scene, e.picture.segments), grey(e) / 255.0)
        found.append((e, e.picture.rgb, seen))
    assert told(found) == {"depth": pytest.approx(1.0), "iou": 1.0}
    wrong = [(e, rgb, Seen((), "", "", np.ones((128, 128), np.uint8), np.full((128, 128), 0.5))) for e, rgb, _ in found]
    assert told(wrong)["iou"] == 0.0 and told(wrong)["depth"] < 0.5


@pytest.mark.slow
def test_every_experiment_of_the_card_is_measured_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    asked = ["train", "score-maps", "--out", str(out), "--count", "1", "--steps", "1"]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    figures = json.loads(out.read_text("utf-8"))
    rows = [(experiment, figure) for _, experiment, figure, _ in ROWS if experiment in PLAN]
    assert {e for e, _ in rows} == set(PLAN)
    assert all(isinstance(figures[experiment][figure], float) for experiment, figure in rows)
    figures["edit"]["asked"] = 7.0
    del figures["segments"]
    out.write_text(json.dumps(figures), "utf-8")
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    again = json.loads(out.read_text("utf-8"))
    assert again["edit"]["asked"] == 7.0 and "iou" in again["segments"]

"""Measuring the model of clips: every experiment with and without, kept when cut off, and how it was measured beside it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infuse.cli.app import app
from infuse.tabletop.making.card import ROWS
from infuse.tabletop.making.score_video import OFFSET, examples


@pytest.mark.slow
def test_what_is_measured_moves_and_is_the_same_every_time() -> None:
    found = examples(3, 4)
    assert found[0].index >= OFFSET and [e.index for e in found] == [e.index for e in examples(3, 4)]
    for e in found:
        assert e.paths.shape == (len(e.prompt.things), 4, 2) and e.clip.rgb.shape[0] == 4
        assert (e.paths[:, 0] != e.paths[:, -1]).any(), "something travels"
        assert [t.colour for t in e.prompt.things] == [e.move.scene.things[i].colour for i in e.order]


@pytest.mark.slow
def test_every_clip_experiment_of_the_card_is_measured_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "figures" / "scores.json"
    asked = ["train", "score-video", "--out", str(out), "--count", "1", "--steps", "1", "--bf16"]
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    figures = json.loads(out.read_text("utf-8"))
    for _, experiment, figure, _ in ROWS:
        if experiment.startswith("video"):
            assert isinstance(figures[experiment][figure], float), (experiment, figure)
    how = {"clips": 1, "frames": 8, "steps": 1, "dtype": "bfloat16", "scheduler": "DPM++ 2M", "guidance": None}
    assert all(how.items() <= one.items() for one in figures.values())

    del figures["video_words"]
    figures["video_depth"]["depth"] = 7.0
    out.write_text(json.dumps(figures), "utf-8")
    assert CliRunner().invoke(app, asked, catch_exceptions=False).exit_code == 0
    again = json.loads(out.read_text("utf-8"))
    assert again["video_depth"]["depth"] == 7.0 and "trajectory" in again["video_words"]

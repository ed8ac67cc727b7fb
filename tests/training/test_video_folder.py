"""A folder of clips whose films have rates of their own: each stretch shows the same time in all of them."""

from __future__ import annotations

import json
from pathlib import Path

import filming
import numpy as np
import pytest
from PIL import Image

from infuse.training.video_folder import ClipFolder

pytestmark = pytest.mark.slow

pytest.importorskip("av", reason="pip install 'infuse[video]'")

GREYS = [Image.new("RGB", (32, 32), (8 * k,) * 3) for k in range(32)]


@pytest.mark.parametrize("beside", ["slow.mp4", "short.mp4", "same.mp4", "slow"])
def test_what_lies_beside_a_clip_is_seen_at_its_times(beside: str, tmp_path: Path) -> None:
    """A clip that grows brighter by 8 levels in each frame, beside films of the same 2 s."""
    filming.video(tmp_path / "clip.mp4", GREYS, rate=16)
    filming.video(tmp_path / "same.mp4", GREYS, rate=16)
    filming.video(tmp_path / "slow.mp4", GREYS[::2], rate=8)
    filming.video(tmp_path / "short.mp4", GREYS[:-1], rate=16)  # by a frame, which is near enough
    filming.folder(tmp_path / "slow", GREYS[::2])
    line = {"file_name": "clip.mp4", "text": "it grows light", "depth": beside}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(line))
    clips = ClipFolder(tmp_path, 4, 32)
    for pick in range(40):
        shown = np.array([np.asarray(f).mean() for f in clips.stretch(pick)])
        depth = clips.seen("depth", pick, None, np.random.default_rng(0))
        assert depth is not None
        far = shown - depth[0].mean((1, 2)).numpy() / 2 * 255
        assert abs(far).max() < 13, "a frame of the slower film at most"

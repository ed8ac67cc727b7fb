"""The cache holds what `film` draws, and goes on where it was cut off."""

from pathlib import Path

import numpy as np
import pytest

from infuse.tabletop import clips
from infuse.tabletop.flow import film


@pytest.mark.slow
def test_cached_clips_are_the_films(tmp_path: Path) -> None:
    data = clips.load_clips(3, clips.HELD_OUT, frames=4, pixels=32, root=tmp_path, workers=1)
    assert len(data) == 3 and data.frames == 4
    assert data.motion.shape == (3, 4, 8, 8, 2) and data.motion.dtype == np.float16
    for i in range(3):
        clip = film(data.move(i), 4, (32, 32))
        assert np.array_equal(data.rgb[i], clip.rgb) and np.array_equal(data.segments[i], clip.segments)
        assert np.array_equal(data.edges[i], clip.edges)
        assert np.abs(data.inverse_depth[i] / 255 - clip.inverse_depth).max() <= 0.5 / 255 + 1e-6
        assert np.abs(data.motion[i, :, 2, 3] - clip.flow[:, 8:12, 12:16].mean((1, 2))).max() < 0.01
    assert not {data.move(i) for i in range(3)} & {clips.move_at(clips.TRAIN, i) for i in range(3)}


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "CHUNK", 2)
    drawn: list[int] = []
    draw = clips._draw_chunk

    def failing(job: tuple[Path, int, int]) -> int:
        if job[2] == 2:
            raise KeyboardInterrupt
        drawn.append(job[2])
        return draw(job)

    monkeypatch.setattr(clips, "_draw_chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        clips.load_clips(6, frames=2, pixels=16, root=tmp_path, workers=1)
    monkeypatch.setattr(clips, "_draw_chunk", lambda job: (drawn.append(job[2]), draw(job))[1])
    data = clips.load_clips(6, frames=2, pixels=16, root=tmp_path, workers=1)
    assert drawn == [0, 1, 2] and (data.rgb.reshape(6, -1).max(1) > 0).all()


def test_clips_of_other_lengths_lie_beside_each_other(tmp_path: Path) -> None:
    short, long = (clips.load_clips(1, frames=n, pixels=16, root=tmp_path, workers=1) for n in (2, 3))
    assert np.array_equal(short.rgb[0, 0], long.rgb[0, 0]) and np.array_equal(short.rgb[0, -1], long.rgb[0, -1])


def test_size_must_suit_the_cells(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        clips.load_clips(1, pixels=30, root=tmp_path)

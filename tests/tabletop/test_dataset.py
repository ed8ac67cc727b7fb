"""The cache holds what the renderer draws, and goes on where it was cut off."""

from pathlib import Path

import numpy as np
import pytest

from infuse.errors import RecipeError
from infuse.tabletop import dataset
from infuse.tabletop.render import render


def test_cached_pictures_are_the_renders(tmp_path: Path) -> None:
    data = dataset.load(3, dataset.HELD_OUT, pixels=32, root=tmp_path, workers=1)
    for i in range(3):
        picture = render(data.scene(i), (32, 32))
        assert np.array_equal(data.rgb[i], picture.rgb) and np.array_equal(data.segments[i], picture.segments)
        assert np.abs(data.inverse_depth[i] / 255 - picture.inverse_depth).max() <= 0.5 / 255 + 1e-6
    assert not {data.scene(i) for i in range(3)} & {dataset.scene_at(dataset.TRAIN, i) for i in range(100)}


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "CHUNK", 2)
    drawn: list[int] = []
    draw = dataset._draw_chunk

    def failing(job: tuple[Path, int, int]) -> int:
        if job[2] == 2:
            raise KeyboardInterrupt
        drawn.append(job[2])
        return draw(job)

    monkeypatch.setattr(dataset, "_draw_chunk", failing)
    with pytest.raises(KeyboardInterrupt):
        dataset.load(6, pixels=16, root=tmp_path, workers=1)
    monkeypatch.setattr(dataset, "_draw_chunk", lambda job: (drawn.append(job[2]), draw(job))[1])
    data = dataset.load(6, pixels=16, root=tmp_path, workers=1)
    assert drawn == [0, 1, 2] and (data.rgb.reshape(6, -1).max(1) > 0).all()


def test_cache_folder_can_be_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INFUSE_CACHE", str(tmp_path))
    assert dataset.cache_root() == tmp_path


def test_a_data_set_asks_for_numba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One scene takes a second without it, a data set days."""
    monkeypatch.setattr(dataset, "COMPILED", False)
    with pytest.raises(RecipeError, match=r"pip install 'infuse\[train\]'"):
        dataset.load(6, pixels=16, root=tmp_path, workers=1)

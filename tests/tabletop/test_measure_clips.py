"""A rendered clip scores high against its own move, soft or noisy as well; a still, a reversed and another clip score low."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from some import some

import infuse.tabletop
from infuse.tabletop.captions import Asked
from infuse.tabletop.flow import Clip, film
from infuse.tabletop.judge import Judge, Seen
from infuse.tabletop.measure import truth
from infuse.tabletop.measure_clips import (
    best_correlation,
    colours_throughout,
    depth_correlation,
    empty_rooms,
    first_frame,
    spearman,
    track,
    trajectory_correlation,
    trajectory_error,
)
from infuse.tabletop.move_captions import canonical_move
from infuse.tabletop.moves import STAY, Move, Route, move_at
from infuse.tabletop.render import render
from infuse.tabletop.world import Room, Scene, Thing

FRAMES = 6


@cache
def moves() -> list[Move]:
    return [move_at(21, i) for i in range(12)]


@cache
def clips() -> list[Clip]:
    return [film(move, FRAMES) for move in moves()]


@cache
def asked() -> list[list[Asked]]:
    return [[Asked(t.shape, t.colour, t.size) for t in move.scene.things] for move in moves()]


def small(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(cv2.resize(frame, (48, 48), interpolation=cv2.INTER_AREA), (128, 128))


WEAR: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as drawn": lambda frame: frame,
    "soft": lambda frame: cv2.GaussianBlur(small(frame), (0, 0), 1.5),
    "noisy": lambda frame: (frame + np.random.default_rng(0).normal(0, 12, frame.shape)).clip(0, 255).astype(np.uint8),
}


@pytest.fixture(scope="module", params=some(WEAR, quick=["soft"]))
def seen(request: pytest.FixtureRequest) -> list[list[Seen]]:
    """What the shipped judge sees in each clip, for each kind of wear."""
    judge = Judge.load(Path(infuse.tabletop.__file__).parent / "weights" / "judge.safetensors")

    def look(rgb: np.ndarray, wear: Callable[[np.ndarray], np.ndarray]) -> list[Seen]:
        worn = np.stack([wear(frame) for frame in rgb])
        return judge.look(torch.from_numpy(worn).permute(0, 3, 1, 2) / 255)

    return [look(clip.rgb, WEAR[request.param]) for clip in clips()]


def trajectories(frames: list[list[Seen]]) -> list[float]:
    pairs = zip(frames, asked(), clips(), strict=True)
    scores = [trajectory_correlation(track(s, a, c.centres[:, 0]), c.centres) for s, a, c in pairs]
    return [score for score in scores if score is not None]


@pytest.mark.slow
def test_trajectories(seen: list[list[Seen]]) -> None:
    own = trajectories(seen)
    assert np.mean(own) > 0.95 and len(own) > 7
    assert np.mean(trajectories([[s[0]] * FRAMES for s in seen])) == 0
    assert np.mean(trajectories([s[::-1] for s in seen])) < -0.8
    assert abs(np.mean(trajectories(seen[1:] + seen[:1]))) < 0.4


@pytest.mark.slow
def test_places(seen: list[list[Seen]]) -> None:
    errors = [trajectory_error(track(s, a), c.centres) for s, a, c in zip(seen, asked(), clips(), strict=True)]
    others = seen[1:] + seen[:1]
    wrong = [trajectory_error(track(s, a), c.centres) for s, a, c in zip(others, asked(), clips(), strict=True)]
    assert np.mean(errors) < 0.03 and np.mean(wrong) > 0.25


@pytest.mark.slow
def test_depth(seen: list[list[Seen]]) -> None:
    rooms = [empty_rooms(move, FRAMES) for move in moves()]

    def score(frames: list[list[Seen]]) -> float:
        return float(
            np.mean([depth_correlation(s, c.inverse_depth, r) for s, c, r in zip(frames, clips(), rooms, strict=True)])
        )

    assert score(seen) > 0.85
    assert score(seen[1:] + seen[:1]) < 0
    assert score([[s[0]] * FRAMES for s in seen]) < 0.4  # a clip that stands still on its first frame


def test_colours(seen: list[list[Seen]]) -> None:
    prompts = [canonical_move(move) for move in moves()]
    own = [colours_throughout(p, s) for p, s in zip(prompts, seen, strict=True)]
    other = [colours_throughout(p, s) for p, s in zip(prompts[1:] + prompts[:1], seen, strict=True)]
    assert np.mean(own) > 0.95 and np.mean(other) < 0.4


def test_a_perfect_judge_gives_full_marks() -> None:
    thing = Thing("sphere", "red", "small", -1.0, 0.0)
    move = Move(Scene((thing,), Room("grey", "beige", "left")), (Route(length=1.5, curve=0.6),))
    clip, stills = film(move, 4), [move.at(k / 3) for k in range(4)]
    frames = [truth(scene, render(scene)) for scene in stills]
    found = track(frames, [Asked("sphere", "red")])
    assert (trajectory_correlation(found, clip.centres) or 0) > 0.999
    assert depth_correlation(frames, clip.inverse_depth, empty_rooms(move, 4)) > 0.999
    assert trajectory_correlation(found, film(Move(move.scene, (STAY,)), 4, (16, 16)).centres) is None


def test_solids_that_are_alike_are_told_apart_by_where_they_were() -> None:
    pair = Scene(tuple(Thing("cube", "red", "small", x, 0.0) for x in (-1.0, 1.0)), Room("grey", "beige", "left"))
    move = Move(pair, (Route(length=0.6), Route(heading=np.pi, length=0.6)))
    clip = film(move, 5)
    frames = [truth(move.at(k / 4), render(move.at(k / 4))) for k in range(5)]
    for start in (clip.centres[:, 0], clip.centres[::-1, 0]):
        found = track(frames, [Asked("cube", "red")] * 2, start)
        assert np.abs(found[:, 0] - start).max() < 0.05 and np.abs(np.diff(found, axis=1)).max() < 0.1


def test_what_is_not_found_counts_as_wrong() -> None:
    path = np.linspace((0.2, 0.5), (0.6, 0.5), 6)[None]
    lost = path.copy()
    lost[0, 1:5] = np.nan
    assert trajectory_correlation(lost, path) == 0 and trajectory_correlation(path, path) == pytest.approx(1)
    assert trajectory_error(lost, path) == pytest.approx(0.5 * 4 / 6)
    assert np.isnan(track([], [Asked("cube", "red")])).size == 0


def test_where_nobody_said_whose_path_is_whose_the_best_pairing_counts() -> None:
    to_right = np.linspace((0.2, 0.3), (0.6, 0.3), 6)
    upwards, still = np.linspace((0.5, 0.8), (0.5, 0.4), 6), np.full((6, 2), 0.7)
    paths = np.stack([to_right, upwards, still])
    for found in (paths, paths[[1, 0, 2]], paths[[2, 0, 1]]):
        assert best_correlation(found, paths) == pytest.approx(1)
    assert abs(trajectory_correlation(paths[[1, 0, 2]], paths) or 0) < 1e-9
    one_lost = np.stack([still, to_right, np.full((6, 2), np.nan)])
    assert best_correlation(one_lost, paths) == pytest.approx(0.5), "each solid goes one way only"
    assert best_correlation(paths[:, ::-1], paths) == 0, "backwards is no way of following"
    assert best_correlation(paths, np.stack([still] * 3)) is None


def test_first_frame() -> None:
    assert first_frame(clips()[0].rgb, clips()[0].rgb[0]) == 99 and first_frame(clips()[0].rgb, clips()[1].rgb[0]) < 25


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 20, 200), rng.integers(0, 20, 200)
    assert spearman(a, a + b) == pytest.approx(stats.spearmanr(a, a + b).statistic)
    assert spearman(np.ones(5), np.arange(5)) == 0

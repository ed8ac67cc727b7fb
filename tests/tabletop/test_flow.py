"""Motion vectors are exact: a frame pulled along the flow is the next one, wherever nothing was hidden."""

from functools import cache

import cv2
import numpy as np
import pytest

from infuse.tabletop.flow import Clip, displacement, empty_depth, film, trajectories
from infuse.tabletop.moves import STAY, CameraRoute, Move, Route, move_at, scenes
from infuse.tabletop.render import FIRST_THING, render
from infuse.tabletop.world import Camera, Room, Scene, Thing

BALL = Scene((Thing("sphere", "red", "large", -0.5, 0.0),), Room("grey", "beige", "left"))
TO_THE_RIGHT = Move(BALL, (Route(length=1.2),))


@cache
def moves() -> list[Move]:
    return [move_at(7, i) for i in range(10)]


@cache
def clips() -> list[Clip]:
    return [film(move, 6) for move in moves()]


def pulled(layer: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """What is at p in the next frame was at p - flow in this one."""
    columns, rows = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in flow.shape[1::-1]))
    return cv2.remap(layer.astype(np.float32), columns - flow[..., 0], rows - flow[..., 1], cv2.INTER_LINEAR)


def errors(clip: Clip, k: int) -> tuple[float, float, float]:
    """Mean absolute colour error on solids that were seen before too, with and without the flow; and how much was seen."""
    same = np.abs(pulled(clip.segments[k - 1], clip.flow[k]) - clip.segments[k]) < 1e-3
    solid = same & (clip.segments[k] >= FIRST_THING)
    with_flow = np.abs(pulled(clip.rgb[k - 1], clip.flow[k]) - clip.rgb[k])[solid].mean()
    without = np.abs(clip.rgb[k - 1].astype(float) - clip.rgb[k])[solid].mean()
    return float(with_flow), float(without), float(same.mean())


@pytest.mark.slow
def test_pulling_a_frame_along_the_flow_gives_the_next() -> None:
    with_flow, without, seen = np.transpose([errors(clip, k) for clip in clips() for k in range(1, 6)])
    assert (
        with_flow.mean() < 3 and np.median(with_flow) < 1.6
    )  # of 255: the light changes on the way, most as cubes turn
    assert without.mean() > 5 * with_flow.mean()
    assert seen.min() > 0.85 and seen.mean() > 0.94


def test_depth_agrees_with_the_flow_too() -> None:
    """Where only the camera moves, the room's depth is pulled along exactly, but for the camera's own advance."""
    clip = film(Move(BALL, (STAY,), CameraRoute(pan=0.1)), 3)
    for k in (1, 2):
        room = (clip.segments[k] < FIRST_THING) & (pulled(clip.segments[k - 1], clip.flow[k]) == clip.segments[k])
        error = np.abs(pulled(clip.inverse_depth[k - 1], clip.flow[k]) - clip.inverse_depth[k])[room]
        assert np.median(error) < 0.01


def test_flow_points_where_things_go() -> None:
    clip = film(TO_THE_RIGHT, 5)
    assert not clip.flow[0].any()
    for k in range(1, 5):
        ball = clip.segments[k] == FIRST_THING
        assert (clip.flow[k][ball][:, 0] > 0).all() and not clip.flow[k][~ball].round(4).any()
        way = 128 * (clip.centres[0, k] - clip.centres[0, k - 1])
        assert np.median(clip.flow[k][ball], 0) == pytest.approx(
            way, rel=0.15, abs=0.01
        )  # its front is nearer than its middle


def test_nobody_moves_no_flow() -> None:
    assert np.abs(film(Move(BALL, (STAY,)), 3, (32, 32)).flow).max() < 1e-4


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (48, 80)])
def test_there_and_back_is_nothing(size: tuple[int, int]) -> None:
    """The point a pixel shows, followed into the other picture and back from there, returns to the pixel."""
    first, last = (moves()[4].at(t) for t in (0.0, 0.5))
    here, there = render(first, size), render(last, size)
    forth, back = displacement(here, first, last), displacement(there, last, first)
    columns, rows = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    x, y = columns + forth[..., 0], rows + forth[..., 1]
    inside = (x > 0) & (x < size[0] - 1) & (y > 0) & (y < size[1] - 1)
    returned = cv2.remap(back.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    same = cv2.remap(there.segments.astype(np.float32), x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
    kept = inside & (same == here.segments)
    error = np.abs(forth + returned)[kept]
    assert np.median(error) < 0.05 and np.percentile(error, 95) < 0.5


def test_a_codec_would_say_the_opposite() -> None:
    """motion / motion_scale = src - dst for a block found in the past; times a source of -1 that is our flow."""
    clip = film(TO_THE_RIGHT, 3)
    dst, src = clip.centres[0, 1] * 128, clip.centres[0, 0] * 128
    codec, source = src - dst, -1
    ball = clip.segments[1] == FIRST_THING
    assert source * codec == pytest.approx(np.median(clip.flow[1][ball], 0), rel=0.15, abs=0.01)


def test_trajectories_are_where_renders_show_the_solids() -> None:
    whole = 0
    for move, clip in zip(moves(), clips(), strict=True):
        for k, scene in enumerate(scenes(move, 6)):
            for i, position in enumerate(render(scene, (64, 64)).positions):
                if position.visible == 1:
                    whole += 1
                    assert np.abs(np.array(position.centre) / 64 - clip.centres[i, k]).max() < 0.04
        assert clip.visible.shape == clip.centres.shape[:2] and clip.visible.min() > 0.2
    assert whole > 50


def test_trajectories_need_no_large_pictures() -> None:
    centres, visible = trajectories(moves()[0], 6)
    assert np.array_equal(centres, clips()[0].centres) and np.abs(visible - clips()[0].visible).max() < 0.1


def test_places_in_wide_pictures() -> None:
    move = Move(BALL, (Route(length=0.4),))
    for size in ((96, 64), (64, 96)):
        seen = render(move.at(0), size).positions[0].centre
        assert np.abs(np.array(seen) / size - film(move, 2, size).centres[0, 0]).max() < 0.03


def test_the_empty_room() -> None:
    camera = Camera(eye=(0.4, -6.0, 2.6))
    drawn = render(Scene((), BALL.room, camera), (48, 32))
    assert np.abs(drawn.depth - empty_depth(camera, (48, 32))).max() < 1e-3

"""Moves are values: reproducible, disjoint from stream to stream, and nobody runs into anybody."""

from functools import cache
from itertools import combinations
from math import dist, hypot, pi

import numpy as np
import pytest

from infuse.tabletop.moves import (
    HOLD,
    STAY,
    TRAVEL,
    CameraRoute,
    Move,
    Route,
    move_at,
    scenes,
    travel,
)
from infuse.tabletop.world import WALL_Y, Camera, Room, Scene, Thing, box, scene_at


@cache
def moves() -> list[Move]:
    return [move_at(7, i) for i in range(40)]


BALL = Scene((Thing("sphere", "red", "small", 0.0, 0.0),), Room("grey", "beige", "left"))


@pytest.mark.slow
def test_same_seed_same_move() -> None:
    assert [move_at(7, i) for i in range(8)] == moves()[:8]
    assert not set(moves()) & {move_at(8, i) for i in range(8)}
    assert not {m.scene for m in moves()} & {scene_at(7, i) for i in range(40)}


@pytest.mark.slow
def test_nobody_runs_into_another_or_the_wall_or_out_of_the_picture() -> None:
    for move in moves():
        for scene in scenes(move, 25):
            for a, b in combinations(scene.things, 2):
                assert hypot(a.x - b.x, a.y - b.y) > a.extent[0] + b.extent[0]
            for thing in scene.things:
                left, top, right, bottom = box(thing, scene.camera)
                assert min(left, top) > -0.02 and max(right, bottom) < 1.02
                assert thing.y + thing.extent[0] < WALL_Y and thing.lift >= 0


def test_most_clips_move_and_some_things_stay() -> None:
    travels = [[bool(route.length) for route in move.routes] for move in moves()]
    assert 0.75 <= np.mean([any(t) for t in travels]) <= 0.95
    assert 0.1 <= 1 - np.mean(np.concatenate(travels)) <= 0.5
    assert 0.4 <= np.mean([move.camera == HOLD for move in moves()]) <= 0.7
    assert {len(move.routes) for move in moves()} == {1, 2, 3}


def test_travel_is_a_fair_part_of_the_picture() -> None:
    ways = [
        travel(thing, route, move.scene.camera)
        for move in moves()
        for thing, route in zip(move.scene.things, move.routes, strict=True)
        if route.length
    ]
    assert TRAVEL[0] <= min(ways) and max(ways) <= TRAVEL[1] and 0.22 < np.mean(ways) < 0.34


@pytest.mark.parametrize("frames", [2, 5, 16])
def test_a_move_can_be_cut_into_any_number_of_frames(frames: int) -> None:
    cut = scenes(moves()[0], frames)
    assert len(cut) == frames and cut[0] == moves()[0].at(0) and cut[-1] == moves()[0].at(1)
    assert scenes(moves()[0], 1) == (moves()[0].at(0),)


def test_it_starts_as_its_scene_and_stays_so_if_nobody_moves() -> None:
    for move in moves()[:10]:
        assert move.at(0).things == move.scene.things
    still = Move(BALL, (STAY,))
    assert still.at(0.7).things == BALL.things and dist(still.at(0.7).camera.target, Camera().target) < 1e-9


def test_routes_are_arcs_that_hop_and_turn() -> None:
    thing = BALL.things[0]
    assert Route(heading=pi / 2, length=1.0).at(thing, 0.5).y == pytest.approx(0.5)
    quarter = Route(length=pi / 2, curve=pi / 2).at(thing, 1.0)  # a quarter of the unit circle, to the left
    assert (quarter.x, quarter.y) == pytest.approx((1.0, 1.0))
    hop = Route(hops=2, height=0.3, turn=1.0)
    assert [hop.at(thing, t).lift for t in (0, 0.25, 0.5, 0.75)] == pytest.approx([0, 0.3, 0, 0.3])
    assert hop.at(thing, 0.5).yaw == pytest.approx(thing.yaw + 0.5)


def test_camera_moves_where_its_route_says() -> None:
    start = Camera()
    orbit, pan, dolly = (
        c.at(start, 1.0) for c in (CameraRoute(orbit=0.2), CameraRoute(pan=0.1), CameraRoute(dolly=0.1))
    )
    assert orbit.eye[0] > 1 and dist(orbit.eye, orbit.target) == pytest.approx(dist(start.eye, start.target))
    assert pan.eye == start.eye and pan.project(start.target)[0] < 0.45  # what was in the middle goes to the left
    assert dist(dolly.eye, dolly.target) == pytest.approx(0.9 * dist(start.eye, start.target))


def test_each_solid_needs_a_route() -> None:
    with pytest.raises(ValueError, match="2 for 1 solids"):
        Move(BALL, (STAY, STAY))

"""Scenes are values: reproducible, within bounds, and disjoint from stream to stream."""

import sys
from dataclasses import replace
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from math import hypot

import numpy as np
import pytest

from infuse.tabletop import _rays
from infuse.tabletop.render import FIRST_THING, FLOOR, WALL, depth_from_inverse, inverse_depth, render
from infuse.tabletop.world import Camera, Room, Scene, Thing, box, scene_at


@cache
def scenes() -> list[Scene]:
    return [scene_at(7, i) for i in range(60)]


@pytest.mark.slow
def test_same_seed_same_scene() -> None:
    assert [scene_at(7, i) for i in range(60)] == scenes()
    assert not set(scenes()) & {scene_at(8, i) for i in range(60)}


def test_solids_do_not_intersect_and_stay_in_view() -> None:
    for scene in scenes():
        assert 1 <= len(scene.things) <= 3 and scene.room.floor != scene.room.wall
        for i, a in enumerate(scene.things):
            left, top, right, bottom = box(a, scene.camera)
            assert min(left, top) > 0 and max(right, bottom) < 1
            assert all(hypot(a.x - b.x, a.y - b.y) > a.extent[0] + b.extent[0] for b in scene.things[:i])


@pytest.mark.slow
def test_solids_are_nearly_whole_and_of_sensible_size() -> None:
    for scene in scenes():
        for thing, position in zip(scene.things, render(scene).positions, strict=True):
            assert position.visible >= 0.75
            assert 18 <= position.box[2] - position.box[0] <= 68
            estimate = np.array(box(thing, scene.camera)) * 128
            if position.visible == 1:  # a cube seen face on is narrower than its estimate
                assert np.abs(estimate - position.box).max() < (9 if thing.shape == "cube" else 4)


def test_picture_is_a_pure_function_of_the_scene() -> None:
    first, second = render(scenes()[0]), render(scenes()[0])
    assert np.array_equal(first.rgb, second.rgb) and np.array_equal(first.depth, second.depth)


def test_small_motion_is_a_small_change() -> None:
    thing = Thing("sphere", "red", "large", 0.0, 0.0)
    scene = Scene((thing,), Room("grey", "beige", "left"))
    still, moved = (render(replace(scene, things=(replace(thing, x=x),))).rgb.astype(float) for x in (0.0, 0.02))
    change = np.abs(still - moved)
    assert 0 < change.mean() < 1.0


@pytest.mark.parametrize("size", [(128, 128), (96, 64), (64, 96), (256, 256)])
def test_layers_fit_together_at_any_size(size: tuple[int, int]) -> None:
    scene = scenes()[2]
    picture = render(scene, size)
    width, height = size
    assert picture.rgb.shape == (height, width, 3) and picture.rgb.dtype == np.uint8
    assert picture.depth.shape == picture.segments.shape == picture.edges.shape == (height, width)
    assert set(np.unique(picture.segments)) <= {WALL, FLOOR, *range(FIRST_THING, FIRST_THING + len(scene.things))}
    changes = picture.segments[:, 1:] != picture.segments[:, :-1]
    assert (picture.edges[:, :-1][changes] == 255).all()
    assert set(np.unique(picture.edges)) == {0, 255} and (picture.edges > 0).mean() < 0.1


def test_shape_of_the_views_agree_at_twice_the_size() -> None:
    small, large = render(scenes()[3]), render(scenes()[3], (256, 256))
    halved = large.rgb.reshape(128, 2, 128, 2, 3).mean((1, 3))
    assert np.abs(halved - small.rgb).mean() < 2


def test_near_is_white_and_invertible() -> None:
    picture = render(scenes()[4])
    grey = picture.inverse_depth
    assert grey.min() >= 0 and grey.max() <= 1
    assert grey[-1].mean() > 3 * grey[0].mean()
    assert np.allclose(depth_from_inverse(inverse_depth(picture.depth)), picture.depth, rtol=1e-4)


def test_light_casts_shadows_away_from_it() -> None:
    thing = Thing("cylinder", "white", "large", 0.0, 0.0)
    for light, dark in (("left", slice(80, 100)), ("right", slice(28, 48))):
        lit = render(Scene((thing,), Room("grey", "beige", light)))
        empty = render(Scene((), Room("grey", "beige", light)))
        shade = (empty.rgb.astype(int) - lit.rgb)[lit.segments == FLOOR]
        columns = np.tile(np.arange(128), (128, 1))[lit.segments == FLOOR]
        inside = (columns >= dark.start) & (columns < dark.stop)
        mirrored = (columns >= 128 - dark.stop) & (columns < 128 - dark.start)
        assert shade[inside].mean() > 2 * max(shade[mirrored].mean(), 0.5)


def test_camera_axes_are_a_right_handed_frame() -> None:
    right, up, forward = (np.array(a) for a in Camera(eye=(0.3, -6, 2.5)).axes)
    assert np.allclose(np.cross(right, up), -forward) and np.isclose(np.linalg.norm(up), 1)
    u, v, _ = Camera().project(Camera().target)
    assert (round(u, 6), round(v, 6)) == (0.5, 0.5)


@pytest.mark.slow
def test_without_numba_the_pixels_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (40, 32)
    compiled = [render(scene, size) for scene in scenes()[:4]]
    spec = spec_from_file_location("rays_as_they_stand", _rays.__file__)
    assert spec and spec.loader and _rays.COMPILED
    plain = module_from_spec(spec)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numba", None)
        spec.loader.exec_module(plain)
    assert not plain.COMPILED
    monkeypatch.setattr("infuse.tabletop.render._rays", plain)
    for scene, fast in zip(scenes(), compiled, strict=False):
        slow = render(scene, size)
        assert slow.positions == fast.positions
        for name in ("rgb", "depth", "segments", "edges"):
            assert np.array_equal(getattr(slow, name), getattr(fast, name)), name

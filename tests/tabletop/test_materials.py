"""Wood and gold: what they look like, and that nothing else does."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from infuse.tabletop import measure_looks
from infuse.tabletop.materials import RING, grain
from infuse.tabletop.render import FIRST_THING, Render, render
from infuse.tabletop.world import Room, Scene, Thing, scene_at

THING = Thing("sphere", "red", "large", 0.0, 0.0)
ROOM = Room("slate", "grey", "above")


@cache
def made(material: str, colour: str = "red") -> Render:
    return render(Scene((replace(THING, material=material, colour=colour),), ROOM))


def test_every_sampled_scene_is_plain() -> None:
    assert {t.material for i in range(40) for t in scene_at(1, i).things} == {"plain"}


@pytest.mark.parametrize("material", ["wood", "gold"])
def test_a_material_changes_its_solid_and_nothing_around_it(material: str) -> None:
    plain, other = made("plain"), made(material)
    for name in ("depth", "segments", "edges"):
        assert np.array_equal(getattr(plain, name), getattr(other, name)), name
    near = plain.segments == FIRST_THING
    for axis in (0, 1):
        near = near | np.roll(near, 1, axis) | np.roll(near, -1, axis)
    assert np.array_equal(plain.rgb[~near], other.rgb[~near])
    assert np.abs(plain.rgb[near].astype(int) - other.rgb[near]).mean() > 20


def test_a_plain_solid_beside_one_of_wood_stays_to_the_bit() -> None:
    beside = Thing("cube", "blue", "small", -1.2, -0.4, 0.3)
    scenes = [Scene((replace(THING, x=0.8, material=m), beside), ROOM) for m in ("plain", "wood")]
    one, two = (render(s) for s in scenes)
    cube = one.segments == FIRST_THING + 1
    assert cube.sum() > 200 and np.array_equal(one.rgb[cube], two.rgb[cube])


def test_wood_is_brown_and_has_rings_and_gold_is_gold() -> None:
    for colour in ("yellow", "orange", "purple"):
        plain, wood, gold = (made(m, colour) for m in ("plain", "wood", "gold"))
        solid = plain.segments == FIRST_THING
        assert measure_looks.brown(wood.rgb, solid) > 0.95 and measure_looks.golden(wood.rgb, solid) < 0.1
        assert measure_looks.golden(gold.rgb, solid) > 0.6 and measure_looks.brown(plain.rgb, solid) < 0.2
        assert measure_looks.golden(plain.rgb, solid) < 0.1
        assert measure_looks.grain(wood.rgb, solid) > 2 * measure_looks.grain(plain.rgb, solid)


def test_a_measure_of_no_solid_is_nothing_and_a_rim_is_not_looked_at() -> None:
    picture, nowhere = np.full((20, 20, 3), 99, np.uint8), np.zeros((20, 20), bool)
    assert [f(picture, nowhere) for f in (measure_looks.brown, measure_looks.golden, measure_looks.grain)] == [0, 0, 0]
    solid = nowhere.copy()
    solid[4:16, 4:16] = True
    picture[solid] = (20, 40, 200)
    picture[6:14, 6:14] = (150, 100, 60)  # hue 26.7 degrees, saturation 0.6
    assert measure_looks.brown(picture, solid) == 1.0
    assert measure_looks.shrunk(solid, 2).sum() == 64 and measure_looks.shrunk(solid, 0) is solid
    hue, saturation = measure_looks.hues(picture)
    assert (round(hue[8, 8], 1), round(saturation[8, 8], 2)) == (26.7, 0.6) and round(hue[4, 4], 1) == 233.3


def test_flat_and_evenly_shaded_solids_have_no_grain() -> None:
    slope = np.exp(np.linspace(3, 5, 40))[None, :, None].repeat(40, 0).repeat(3, 2)
    stripes = slope * (1 + 0.3 * np.sin(np.arange(40) * np.pi / 4))[:, None, None]
    everywhere = np.ones((40, 40), bool)
    flat, striped = (measure_looks.grain(p.clip(0, 255).astype(np.uint8), everywhere) for p in (slope, stripes))
    assert flat < 3 and striped > 20


def test_rings_are_as_far_apart_as_they_are_said_to_be() -> None:
    along = np.array([grain(x, 0.0, 0.0, 0.8) for x in np.arange(1.0, 4.0, 0.01)])
    sudden = np.flatnonzero((along[:-1] > 0.5) & (along[1:] <= 0.5))
    assert along.min() >= 0 and along.max() <= 1
    assert abs(np.diff(sudden).mean() * 0.01 - RING) < 0.03


@pytest.mark.parametrize("material", ["wood", "gold"])
def test_the_colour_of_wood_or_gold_is_not_seen(material: str) -> None:
    assert np.array_equal(made(material, "white").rgb, made(material, "blue").rgb)

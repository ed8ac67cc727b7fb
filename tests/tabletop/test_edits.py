import numpy as np
import pytest

from infuse.tabletop.edits import DARK, KINDS, View, change_at, darkened, edit, edit_at, names_of
from infuse.tabletop.world import Camera, Room, Scene, Thing

ROOM = Room("grey", "olive", "left")
RED, BLUE = Thing("cube", "red", "small", -1, 0), Thing("cube", "blue", "small", 1, 0)


def scene(*things: Thing, room: Room = ROOM) -> Scene:
    return Scene(things, room, Camera())


def test_a_solid_is_named_so_that_nobody_takes_another_for_it() -> None:
    assert names_of(scene(RED, BLUE), 0) == [("red", "cube"), ("small", "red", "cube")]
    assert names_of(scene(RED, RED), 0) == []
    assert ("cube",) in names_of(scene(RED, Thing("cone", "red", "small", 1, 0)), 0)


@pytest.mark.parametrize(
    ("before", "after", "kind", "words"),
    [
        (View(scene(RED, BLUE)), View(scene(BLUE)), "less", ("red",)),
        (View(scene(BLUE)), View(scene(BLUE, RED)), "more", ("red",)),
        (View(scene(RED)), View(scene(Thing("cube", "green", "small", -1, 0))), "colour", ("green",)),
        (View(scene(RED)), View(scene(Thing("cone", "red", "small", -1, 0))), "shape", ("cone",)),
        (View(scene(RED)), View(scene(RED, room=Room("grey", "rose", "left"))), "wall", ("wall", "rose")),
        (View(scene(RED)), View(scene(RED), dark=True), "dark", ()),
        (View(scene(RED), dark=True), View(scene(RED)), "bright", ()),
    ],
)
def test_words_are_read_off_the_difference(before: View, after: View, kind: str, words: tuple[str, ...]) -> None:
    for seed in range(8):
        said = edit(before, after, np.random.default_rng(seed))
        assert said.kind == kind and all(w in said.text.split() for w in words), said.text


def test_changes_are_reproducible_differ_in_one_thing_and_can_be_told_both_ways() -> None:
    found: set[str] = set()
    for i in range(60):
        one, other = change_at(1, i)
        assert change_at(1, i) == (one, other) and one != other
        there, back = edit_at(1, i), edit_at(1, i, reverse=True)
        assert (there.before, there.after) == (back.after, back.before) == (one, other)
        moved = set(one.scene.things) ^ set(other.scene.things)
        assert len(moved) <= 2 and (not moved or one.scene.room == other.scene.room)
        found |= {there.kind, back.kind}
    assert found == {*KINDS, "bright"}


def test_the_light_comes_back() -> None:
    grey = np.full((2, 2, 3), 120, np.uint8)
    assert darkened(grey).max() < 80
    assert np.abs(darkened(darkened(grey), 1 / DARK).astype(int) - 120).max() <= 2

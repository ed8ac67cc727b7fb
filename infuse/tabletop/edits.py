"""Two scenes that differ in one thing, and the words that lead from the one to the other: "make the cube green".

A change is a pair of scenes; the words are read off the difference, so each pair can be told in both directions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from infuse.tabletop.captions import RELATIONS, _a, _word, relation
from infuse.tabletop.world import (
    COLOURS,
    FIELD_X,
    FIELD_Y,
    LIGHTS,
    ROOM_COLOURS,
    SHAPES,
    SIZES,
    VERSION,
    Scene,
    Thing,
    box,
    fits,
    scene_at,
)

KINDS: dict[str, float] = {
    "colour": 0.24, "shape": 0.15, "size": 0.09, "less": 0.12, "more": 0.14, "wall": 0.08, "floor": 0.08, "light": 0.06,
    "dark": 0.04,
}  # fmt: skip
"""How often each kind of change is drawn. "bright" is "dark" told backwards."""
DARK = 0.2
"""What is left of the light, in linear colour, when it is switched off."""
GAMMA = 2.2
TRIES = 40


@dataclass(frozen=True)
class View:
    """A scene, with its light switched on or off."""

    scene: Scene
    dark: bool = False


@dataclass(frozen=True)
class Edit:
    """What is asked of a picture of `before`; `after` is what should come of it.

    `thing` counts the solids of `before` (of `after` for "more"): the one that changes, or None if the room does.
    """

    text: str
    kind: str  # a key of KINDS, or "bright"
    before: View
    after: View
    thing: int | None = None


def change_at(seed: int, index: int, variant: int = 0) -> tuple[View, View]:
    """Two views that differ in one thing: scene `index` of the stream `seed`, and one of its many neighbours."""
    rng = np.random.default_rng((VERSION, seed, index, 7, variant))
    return changed(View(scene_at(seed, index)), rng)


def edit_at(seed: int, index: int, variant: int = 0, reverse: bool = False) -> Edit:
    """A change of that number in words, forth or back."""
    one, other = change_at(seed, index, variant)
    rng = np.random.default_rng((VERSION, seed, index, 8, variant, reverse))
    return edit(other, one, rng) if reverse else edit(one, other, rng)


def changed(view: View, rng: np.random.Generator) -> tuple[View, View]:
    """The view and another one. What cannot be said clearly of it, or does not fit, is drawn again as another kind."""
    names, odds = [*KINDS], np.array([*KINDS.values()])
    while True:
        kind = names[int(rng.choice(len(names), p=odds / odds.sum()))]
        other = replace(view, dark=True) if kind == "dark" else _another(view.scene, kind, rng)
        other = View(other) if isinstance(other, Scene) else other
        if other is not None and _clear(view, other) and _clear(other, view):
            return view, other


def _another(scene: Scene, kind: str, rng: np.random.Generator) -> Scene | None:
    things = scene.things
    if kind in ("wall", "floor"):
        taken = (scene.room.floor, scene.room.wall)
        return replace(scene, room=replace(scene.room, **{kind: _other(rng, ROOM_COLOURS, *taken)}))
    if kind == "light":
        return replace(scene, room=replace(scene.room, light=_other(rng, LIGHTS, scene.room.light)))
    if kind == "more":
        return None if len(things) > 2 else _put(scene, rng)
    i = int(rng.integers(len(things)))
    rest = (*things[:i], *things[i + 1 :])
    if kind == "less":
        return replace(scene, things=rest)
    names = {"colour": COLOURS, "shape": SHAPES, "size": SIZES}[kind]
    new = replace(things[i], **{kind: _other(rng, names, getattr(things[i], kind))})
    if not fits([*rest, new], [box(t, scene.camera) for t in (*rest, new)]):
        return None
    return replace(scene, things=(*things[:i], new, *things[i + 1 :]))


def _put(scene: Scene, rng: np.random.Generator) -> Scene | None:
    """One solid more, where there is room for it."""
    for _ in range(TRIES):
        shape, colour, size = (_other(rng, names) for names in (SHAPES, COLOURS, SIZES))
        x, y, yaw = rng.uniform(*FIELD_X), rng.uniform(*FIELD_Y), rng.uniform(0, np.pi / 2)
        things = [*scene.things, Thing(shape, colour, size, float(x), float(y), float(yaw))]
        if fits(things, [box(t, scene.camera) for t in things]):
            return replace(scene, things=tuple(things))
    return None


def _other(rng: np.random.Generator, names: Iterable[str], *taken: str) -> str:
    left = [n for n in names if n not in taken]
    return left[int(rng.integers(len(left)))]


def _clear(before: View, after: View) -> bool:
    """Can the solid that changes be named so that nobody takes another one for it?"""
    i = _which(before.scene.things, after.scene.things)
    return i is None or len(after.scene.things) > len(before.scene.things) or bool(names_of(before.scene, i))


def _which(before: tuple[Thing, ...], after: tuple[Thing, ...]) -> int | None:
    """The first place in which two lists of solids differ, in the longer of the two."""
    for i in range(max(len(before), len(after))):
        if i >= min(len(before), len(after)) or before[i] != after[i]:
            return i
    return None


def names_of(scene: Scene, i: int) -> list[tuple[str, ...]]:
    """The ways to name solid `i` that fit no other: attributes, the shape last."""
    ways = (("shape",), ("colour", "shape"), ("size", "shape"), ("size", "colour", "shape"))

    def said(thing: Thing, way: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(getattr(thing, w)) for w in way)

    own = [said(scene.things[i], way) for way in ways]
    return [
        name
        for way, name in zip(ways, own, strict=True)
        if all(said(t, way) != name for j, t in enumerate(scene.things) if j != i)
    ]


def edit(before: View, after: View, rng: np.random.Generator) -> Edit:
    """One of many ways to ask for it."""
    old_scene, new_scene = before.scene, after.scene
    if before.dark != after.dark:
        ways = ("make the room dark", "make it dark", "turn off the light", "darken the room")
        back = ("make the room bright", "make it bright", "turn on the light", "brighten the room")
        return Edit(_any(rng, ways if after.dark else back), "dark" if after.dark else "bright", before, after)
    for part in ("wall", "floor"):
        new = getattr(new_scene.room, part)
        if new != getattr(old_scene.room, part):
            ways = (
                f"make the {part} {new}",
                f"paint the {part} {new}",
                f"change the {part} to {new}",
                f"a {new} {part}",
            )
            return Edit(_any(rng, ways), part, before, after)
    if old_scene.room.light != new_scene.room.light:
        where = "above" if new_scene.room.light == "above" else f"the {new_scene.room.light}"
        ways = (f"light it from {where}", f"make the light come from {where}", f"light from {where}")
        return Edit(_any(rng, ways), "light", before, after)
    i = _which(old_scene.things, new_scene.things)
    assert i is not None, "two views that are the same"
    if len(new_scene.things) > len(old_scene.things):
        return Edit(_adding(new_scene, i, rng), "more", before, after, i)
    ref = "the " + " ".join(_word(w, rng) for w in _any(rng, names_of(old_scene, i)))
    old = old_scene.things[i]
    if len(new_scene.things) < len(old_scene.things):
        return Edit(
            _any(rng, ("remove {}", "delete {}", "take {} away", "take away {}")).format(ref), "less", before, after, i
        )
    new = new_scene.things[i]
    if new.colour != old.colour:
        ways = (f"make {ref} {new.colour}", f"turn {ref} {new.colour}", f"paint {ref} {new.colour}")
        return Edit(_any(rng, (*ways, f"change the colour of {ref} to {new.colour}")), "colour", before, after, i)
    if new.shape != old.shape:
        shape = _a(" ".join([new.colour] * int(rng.integers(2)) + [_word(new.shape, rng)]))
        ways = (
            f"turn {ref} into {shape}",
            f"replace {ref} with {shape}",
            f"make {ref} {shape}",
            f"change {ref} to {shape}",
        )
        return Edit(_any(rng, ways), "shape", before, after, i)
    size = _word(new.size, rng)
    more = "bigger" if new.size == "large" else "smaller"
    return Edit(_any(rng, (f"make {ref} {size}", f"make {ref} {more}", f"{more} {ref[4:]}")), "size", before, after, i)


def _adding(scene: Scene, i: int, rng: np.random.Generator) -> str:
    thing, rest = scene.things[i], [j for j in range(len(scene.things)) if j != i]
    name = [_word(thing.size, rng)] * int(rng.integers(2)) + [thing.colour, _word(thing.shape, rng)]
    text = _any(rng, ("add {}", "put {} on the table", "place {} on the table", "add {}")).format(_a(" ".join(name)))
    near = rest[int(rng.integers(len(rest)))] if rest and rng.random() < 0.4 else None
    if near is None or not (names := names_of(scene, near)):
        return text
    how = relation(thing, scene.things[near], scene)
    ref = "the " + " ".join(_word(w, rng) for w in _any(rng, names))
    return f"{text.removesuffix(' on the table')} {RELATIONS[how]} {ref}" if how else text


def _any(rng: np.random.Generator, ways: Sequence[Any]) -> Any:
    return ways[int(rng.integers(len(ways)))]


def darkened(rgb: np.ndarray, by: float = DARK) -> np.ndarray:
    """(h w 3) uint8 with so much of its light left; 1 / DARK makes it bright again."""
    linear = (rgb / 255.0) ** GAMMA * by
    return (255 * np.clip(linear, 0, 1) ** (1 / GAMMA) + 0.5).astype(np.uint8)

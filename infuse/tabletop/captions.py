"""Scenes in words. A Prompt carries both the text and what it asks for, so that answers are measured without a parser.

`describe` varies order, synonyms, relations and what is left unsaid; `canonical` says everything the same way each time.
"""

from dataclasses import dataclass

import numpy as np

from infuse.tabletop.world import COLOURS, LIGHTS, ROOM_COLOURS, SHAPES, SIZES, Scene, Thing, box, scene_at

SYNONYMS: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "sphere", "ball"),
    "cube": ("cube", "cube", "block"),
    "small": ("small", "small", "little"),
    "large": ("large", "large", "big"),
}
OPENINGS = ("", "", "", "a picture of ", "a render of ", "a table with ", "there is ")
RELATIONS = {"left of": "to the left of", "right of": "to the right of", "front of": "in front of", "behind": "behind"}
LIGHT_WORDS = {"left": "lit from the left", "right": "lit from the right", "above": "lit from above"}
DROP_SIZES, DROP_FLOOR, DROP_WALL, SAY_LIGHT, RELATE = 0.25, 0.15, 0.15, 0.2, 0.45
CLEARLY_BESIDE, CLEARLY_BEHIND = 0.12, 0.6  # of the picture's width; world units


@dataclass(frozen=True)
class Asked:
    """A solid that was asked for. `size` is None where the text leaves it open."""

    shape: str
    colour: str
    size: str | None = None


@dataclass(frozen=True)
class Relation:
    """`first` stands `word` (a key of RELATIONS) of `second`; both count the prompt's things from 0."""

    first: int
    word: str
    second: int


@dataclass(frozen=True)
class Prompt:
    """A text and what it asks for. `floor`, `wall` and `light` are None where the text does not mention them."""

    text: str
    things: tuple[Asked, ...]
    floor: str | None = None
    wall: str | None = None
    light: str | None = None
    relations: tuple[Relation, ...] = ()


def world_words() -> tuple[str, ...]:
    """Every word and mark that a caption may contain, for the tokenizer; sorted."""
    names = (*SHAPES, *COLOURS, *SIZES, *ROOM_COLOURS, *LIGHTS)
    phrases = (
        *OPENINGS,
        *RELATIONS.values(),
        *LIGHT_WORDS.values(),
        *(w for words in SYNONYMS.values() for w in words),
    )
    rest = "a an the and on in of , . : with from left to right floor wall table two three solids scene picture"
    return tuple(sorted({word for text in (*names, *phrases, rest) for word in text.split()}))


def relation(first: Thing, second: Thing, scene: Scene) -> str | None:
    """How `first` clearly stands to `second` as seen in the picture, or None."""
    a, b = box(first, scene.camera), box(second, scene.camera)
    aside = (a[0] + a[2] - b[0] - b[2]) / 2
    if abs(aside) >= CLEARLY_BESIDE:
        return "left of" if aside < 0 else "right of"
    if abs(first.y - second.y) >= CLEARLY_BEHIND:
        return "front of" if first.y < second.y else "behind"
    return None


def canonical(scene: Scene) -> Prompt:
    """Everything, in one fixed way: solids from left to right with their sizes, then floor and wall."""
    things = sorted(scene.things, key=lambda t: sum(box(t, scene.camera)[::2]))
    asked = tuple(Asked(t.shape, t.colour, t.size) for t in things)
    listed = _list([f"a {a.size} {a.colour} {a.shape}" for a in asked])
    text = f"{listed} on {_a(scene.room.floor)} floor, {scene.room.wall} wall"
    return Prompt(text, asked, scene.room.floor, scene.room.wall)


def describe(scene: Scene, rng: np.random.Generator) -> Prompt:
    """One of many ways to say it. Every solid is mentioned with colour and shape."""
    things = [scene.things[i] for i in rng.permutation(len(scene.things))]
    sized = rng.random() >= DROP_SIZES
    asked = tuple(Asked(t.shape, t.colour, t.size if sized else None) for t in things)
    floor = scene.room.floor if rng.random() >= DROP_FLOOR else None
    wall = scene.room.wall if rng.random() >= DROP_WALL else None
    light = scene.room.light if rng.random() < SAY_LIGHT else None
    names = [" ".join(_word(w, rng) for w in (a.size, a.colour, a.shape) if w) for a in asked]
    if rng.random() < 0.15:  # the terse style: a list of things, no articles
        surroundings = [f"{floor} floor"] * bool(floor) + [f"{wall} wall"] * bool(wall)
        lit = [LIGHT_WORDS[light]] if light else []
        return Prompt(", ".join([*names, *surroundings, *lit]), asked, floor, wall, light)
    related = relation(things[0], things[1], scene) if len(things) > 1 and rng.random() < RELATE else None
    names = [_a(name) for name in names]
    if related:
        names = [f"{names[0]} {RELATIONS[related]} {names[1]}", *names[2:]]
    text = OPENINGS[rng.integers(len(OPENINGS))] + _list(names)
    room = _room(floor, wall, rng)
    if room and rng.random() < 0.2:
        text = f"{room}: {text}"
    elif room:
        text = f"{text}{'' if room.startswith(('on', 'in')) else ','} {room}"
    if light:
        text = f"{text}, {LIGHT_WORDS[light]}"
    return Prompt(text, asked, floor, wall, light, (Relation(0, related, 1),) if related else ())


def prompts(count: int, seed: int) -> list[Prompt]:
    """`count` prompts of random scenes of the stream `seed`; take a held-out seed to ask for the unseen."""
    return [describe(scene_at(seed, i), np.random.default_rng((seed, i, 1))) for i in range(count)]


def _room(floor: str | None, wall: str | None, rng: np.random.Generator) -> str:
    if floor and wall:
        ways = (
            f"on {_a(floor)} floor, {wall} wall",
            f"on {_a(floor)} floor in front of {_a(wall)} wall",
            f"{_a(floor)} floor and {_a(wall)} wall",
            f"{wall} wall, {floor} floor",
        )
        return ways[rng.integers(len(ways))]
    return f"on {_a(floor)} floor" if floor else f"in front of {_a(wall)} wall" if wall else ""


def _word(name: str, rng: np.random.Generator) -> str:
    ways = SYNONYMS.get(name, (name,))
    return ways[rng.integers(len(ways))]


def _a(name: str) -> str:
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _list(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]

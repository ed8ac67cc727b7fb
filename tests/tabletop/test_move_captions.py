"""Captions of moves say who moves where, in words that the shipped tokenizer can spell, within 77 tokens."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPTokenizer

import infuse.tabletop
from infuse.tabletop.captions import SYNONYMS
from infuse.tabletop.move_captions import (
    CAMERA_WAYS,
    DIRECTIONS,
    Motion,
    camera_motion,
    canonical_move,
    describe_move,
    motion,
    move_prompts,
)
from infuse.tabletop.moves import CameraRoute, Move, Route, move_at
from infuse.tabletop.world import Room, Scene, Thing


@cache
def prompts() -> list[Any]:
    return move_prompts(40, 11)


SCENE = Scene(
    (Thing("cube", "red", "small", 1.0, 0.0), Thing("cone", "blue", "large", -1.0, 0.0)), Room("olive", "grey", "left")
)
MOVE = Move(SCENE, (Route(heading=np.pi, length=1.0), Route(turn=0.5)), CameraRoute(pan=0.1))


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(Path(infuse.tabletop.__file__).parent / "weights" / "base" / "tokenizer")


@pytest.mark.slow
def test_solids_and_their_motions_are_said() -> None:
    for prompt in prompts():
        assert len(prompt.motions) == len(prompt.things)
        for thing in prompt.things:
            assert thing.colour in prompt.text and any(
                w in prompt.text for w in SYNONYMS.get(thing.shape, (thing.shape,))
            )
        for its in prompt.motions:
            assert its.direction is None or any(way in prompt.text for way in DIRECTIONS[its.direction])
        assert (prompt.camera is not None) == ("the camera" in prompt.text)
        assert prompt.camera is None or any(f"the camera {w}" in prompt.text for w in CAMERA_WAYS[prompt.camera])


def test_motions_stand_beside_their_solids() -> None:
    for i in range(40):
        prompt = describe_move(MOVE, np.random.default_rng(i))
        said = {(a.colour, a.shape): its for a, its in zip(prompt.things, prompt.motions, strict=True)}
        assert said == {("red", "cube"): Motion("left"), ("blue", "cone"): Motion(turns=True)}


@pytest.mark.slow
def test_they_vary_and_are_reproducible() -> None:
    assert move_prompts(8, 11) == prompts()[:8]
    assert len({describe_move(MOVE, np.random.default_rng(i)).text for i in range(40)}) > 30


def test_canonical() -> None:
    assert canonical_move(MOVE).text == (
        "a large blue cone turns and a small red cube moves to the left on an olive floor, grey wall, "
        "the camera turns to the right"
    )


def test_directions() -> None:
    ways = {"right": 0.0, "away": np.pi / 2, "left": np.pi, "closer": -np.pi / 2}
    assert {motion(Route(heading=angle, length=1.0)).direction for angle in ways.values()} == set(ways)
    assert all(motion(Route(heading=angle, length=1.0)).direction == way for way, angle in ways.items())
    assert motion(Route(length=1.0, curve=2 * np.pi - 0.1)).direction == "left"  # it veers right round
    assert camera_motion(CameraRoute(dolly=0.1)) == ("dolly", "closer")
    assert camera_motion(CameraRoute(orbit=-0.1)) == ("orbit", "left") and camera_motion(CameraRoute()) is None


@pytest.mark.slow
def test_the_shipped_tokenizer_can_spell_them(tokenizer: CLIPTokenizer) -> None:
    for prompt in [*prompts(), *(canonical_move(move_at(11, i)) for i in range(10))]:
        ids = tokenizer(prompt.text).input_ids
        assert len(ids) <= tokenizer.model_max_length and tokenizer.eos_token_id not in ids[1:-1]
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == prompt.text.replace(" ", "")

"""Captions name every solid; prompts know what they ask for; the tokenizer knows every word as one token."""

import numpy as np
import pytest
from transformers import CLIPTokenizer

from infuse.tabletop.captions import SYNONYMS, canonical, describe, prompts, relation, world_words
from infuse.tabletop.tokenizer import build_tokenizer, merges_for
from infuse.tabletop.world import Room, Scene, Thing, scene_at

PROMPTS = prompts(300, 11)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CLIPTokenizer:
    return build_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def test_every_solid_is_mentioned() -> None:
    for prompt in PROMPTS:
        words = prompt.text.replace(",", " ").replace(":", " ").split()
        for thing in prompt.things:
            assert thing.colour in words
            assert set(SYNONYMS.get(thing.shape, (thing.shape,))) & set(words)
        assert (prompt.floor is None) == (" floor" not in prompt.text)
        assert (prompt.wall is None) == (" wall" not in prompt.text)


@pytest.mark.slow
def test_they_vary_and_are_reproducible() -> None:
    assert prompts(300, 11) == PROMPTS
    scene = scene_at(1, 5)
    assert len({describe(scene, np.random.default_rng(i)).text for i in range(40)}) > 25


def test_canonical_reads_from_left_to_right() -> None:
    scene = Scene(
        (Thing("cube", "red", "small", 1.0, 0.0), Thing("cone", "blue", "large", -1.0, 0.0)),
        Room("olive", "grey", "left"),
    )
    assert canonical(scene).text == "a large blue cone and a small red cube on an olive floor, grey wall"
    assert relation(*scene.things, scene) == "right of" and relation(*scene.things[::-1], scene) == "left of"


def test_relation_in_depth() -> None:
    near, far = Thing("cube", "red", "small", 0.0, -1.0), Thing("cone", "blue", "small", 0.0, 0.8)
    scene = Scene((near, far), Room("olive", "grey", "left"))
    assert relation(near, far, scene) == "front of" and relation(far, near, scene) == "behind"


def test_every_word_is_one_token(tokenizer: CLIPTokenizer) -> None:
    for word in world_words():
        assert len(tokenizer(word).input_ids) == 3, word
    for prompt in PROMPTS:
        words = prompt.text.replace(",", " ,").replace(":", " :").split()
        assert len(tokenizer(prompt.text).input_ids) == len(words) + 2


@pytest.mark.parametrize("text", ["naïve café", "日本 🎉", "A LARGE Red Sphere!!", "xyzzy", ""])
def test_any_text_survives(tokenizer: CLIPTokenizer, text: str) -> None:
    ids = tokenizer(text).input_ids
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.lower().replace(" ", "")


def test_pads_like_stable_diffusion(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a red cube", padding="max_length").input_ids
    assert len(ids) == tokenizer.model_max_length == 77 and set(ids[5:]) == {tokenizer.eos_token_id}


def test_later_merges_leave_earlier_words_whole() -> None:
    words = ("cone", "one", "on", "ten", "tent")
    assert len(merges_for(words)) >= len(words)

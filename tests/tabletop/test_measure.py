"""A render scores 1 against its own scene; a wrong picture scores low."""

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from infuse.tabletop.captions import Asked, canonical
from infuse.tabletop.judge import Judge
from infuse.tabletop.measure import (
    agreement,
    answer,
    depth_agreement,
    edge_f1,
    fulfilled,
    inpainting,
    mean,
    psnr,
    truth,
)  # fmt: skip
from infuse.tabletop.render import render
from infuse.tabletop.world import Room, Scene, Thing, scene_at


@cache
def scenes() -> list[Scene]:
    return [scene_at(21, i) for i in range(20)]


@cache
def renders() -> list[Any]:
    return [render(scene) for scene in scenes()]


@cache
def truths() -> list[Any]:
    return [truth(scene, picture) for scene, picture in zip(scenes(), renders(), strict=True)]


def test_renders_answer_their_own_prompts() -> None:
    score = mean([answer(canonical(scene), seen) for scene, seen in zip(scenes(), truths(), strict=True)])
    assert set(vars(score).values()) == {1.0}


def test_other_renders_do_not() -> None:
    score = mean(
        [answer(canonical(scene), seen) for scene, seen in zip(scenes(), truths()[1:] + truths()[:1], strict=True)]
    )
    assert score.everything == 0 and score.pair < 0.3


def test_matching_gives_each_solid_one_partner() -> None:
    red = Thing("cube", "red", "small", 0, 0)
    pair = Scene((red, replace(red, size="large", x=1.5)), Room("grey", "beige", "left"))
    things = truth(pair, render(pair)).things
    cube = Asked("cube", "red")
    assert fulfilled([cube, cube], things) and not fulfilled([cube, cube], things[:1])
    assert fulfilled([cube, replace(cube, size="small")], things)  # the open one must take the large cube
    assert not fulfilled([replace(cube, size="small")] * 2, things)


def test_too_many_solids_are_wrong() -> None:
    scene, seen = scenes()[0], truths()[0]
    crowd = replace(seen, things=seen.things + seen.things[:1])
    assert answer(canonical(scene), crowd).everything == 0 and answer(canonical(scene), crowd).pair == 1


def test_edges_of_renders() -> None:
    own = [edge_f1(p.rgb, s, p.edges) for p, s in zip(renders(), truths(), strict=True)]
    other = [
        edge_f1(p.rgb, s, q.edges) for p, s, q in zip(renders(), truths(), renders()[1:] + renders()[:1], strict=True)
    ]
    assert np.mean(own) > 0.95 and np.mean(other) < 0.65
    assert edge_f1(renders()[0].rgb, truths()[0], np.zeros((128, 128), np.uint8)) == 0


def test_agreement_with_a_reference() -> None:
    same, other = agreement(truths()[0], truths()[0]), agreement(truths()[0], truths()[1])
    assert (same.colours, same.shapes, same.room) == (1, 1, 1)
    assert other.colours < 1 or other.room < 1


def test_depth() -> None:
    assert depth_agreement(truths()[0], renders()[0].inverse_depth) == 1
    assert depth_agreement(truths()[0], 1 - renders()[0].inverse_depth) < 0.7


def test_inpainting_looks_in_the_hole_and_around_it() -> None:
    scene, picture, seen = scenes()[0], renders()[0], truths()[0]
    x, y = (int(c) for c in seen.things[0].centre)
    mask = np.zeros((128, 128), bool)
    mask[max(y - 8, 0) : y + 8, max(x - 8, 0) : x + 8] = True
    asked = [Asked(scene.things[0].shape, scene.things[0].colour)]
    blotted = picture.rgb.copy()
    blotted[mask] = 0
    assert inpainting(blotted, picture.rgb, mask, asked, seen).outside == 99
    assert inpainting(blotted, picture.rgb, mask, asked, seen).inside == 1
    assert inpainting(blotted, picture.rgb, ~mask, asked, replace(seen, things=seen.things[:1])).inside == 0
    assert psnr(picture.rgb, np.roll(picture.rgb, 9, 1)) < 30


@pytest.mark.parametrize("size", [(128, 128), (64, 96)])
def test_judge_answers_in_the_pictures_own_pixels(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    judge = Judge()
    torch.nn.init.constant_(judge.things[-1].bias[:1], 4.0)  # type: ignore[index,arg-type]  # let it see solids everywhere
    first, _ = judge.look(torch.rand(2, 3, *size))
    assert first.segments.shape == first.inverse_depth.shape == size
    assert first.things and all(-9 <= t.centre[0] <= size[1] + 9 for t in first.things)


def test_judge_survives_being_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    judge = Judge().eval()
    judge.save(tmp_path / "judge.safetensors")
    assert (tmp_path / "judge.safetensors").stat().st_size < 3e6
    image = torch.rand(1, 3, 128, 128)
    assert torch.allclose(judge(image).depth, Judge.load(tmp_path / "judge.safetensors")(image).depth, atol=0.02)


def test_judge_wants_a_batch() -> None:
    with pytest.raises(ValueError, match="batch, 3"):
        Judge().look(torch.rand(3, 128, 128))

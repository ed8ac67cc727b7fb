"""The tabletop's lessons for PowerPaint are true: what is taken away is gone, what is hidden can be known. And the scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from infuse.conditions.powerpaint.words import QUALITY
from infuse.tabletop import dataset, measure
from infuse.tabletop.captions import world_words
from infuse.tabletop.judge import Judge, SeenThing
from infuse.tabletop.making import score_powerpaint as scoring
from infuse.tabletop.making.objectives_vae import tabletop_vae
from infuse.tabletop.making.powerpaint_tabletop import PUT, TAKEN, Lessons
from infuse.tabletop.making.scorer import Example, examples
from infuse.tabletop.render import FIRST_THING, render
from infuse.weights.library import embedded_root

COUNT = 6


@pytest.fixture(scope="module")
def lessons(tmp_path_factory: pytest.TempPathFactory) -> Lessons:
    data = dataset.load(COUNT, root=tmp_path_factory.mktemp("cache"), workers=1)
    return Lessons(data, lambda picks: torch.zeros(len(picks), 4, 16, 16), COUNT, tabletop_vae().eval())


def test_a_pick_always_means_the_same_picture(lessons: Lessons) -> None:
    for pick in (1, COUNT * TAKEN + 2, COUNT * 50 + 3):
        first, again = (lessons.example(pick, np.random.default_rng(4)) for _ in range(2))
        assert np.array_equal(first.picture, again.picture) and np.array_equal(first.hole, again.hole)
        assert (first.task, first.prompt, first.share) == (again.task, again.prompt, again.share)
        other = lessons.example(pick, np.random.default_rng(5))
        assert np.array_equal(first.picture, other.picture), "the target must not depend on what is drawn later"
    assert len(lessons) == 100 * COUNT


def test_changed_pictures_are_encoded_and_the_others_cached(lessons: Lessons) -> None:
    picks = np.array([COUNT * 50, 0, COUNT * (TAKEN + PUT), COUNT * TAKEN])
    z = lessons.latents(picks)
    assert [bool(one.any()) for one in z] == [False, True, False, True]


@pytest.mark.slow
def test_what_is_taken_away_is_gone(lessons: Lessons) -> None:
    """In the hole is the scene without the solid, to the pixel; outside of it, perhaps still its shadow."""
    shadows = 0
    for pick in range(COUNT * TAKEN):
        example, index = lessons.example(pick, np.random.default_rng(0)), pick % COUNT
        scene, hole = lessons.data.scene(index), example.hole > 0
        segments = np.asarray(lessons.data.segments[index])
        missing = [
            i
            for i in range(len(scene.things))
            if (segments == FIRST_THING + i).any() and hole[segments == FIRST_THING + i].all()
        ]
        truths = [
            render(replace(scene, things=tuple(t for k, t in enumerate(scene.things) if k != i))).rgb for i in missing
        ]
        fits = [t for t in truths if np.array_equal(t[hole], example.picture[hole])]
        assert example.task == "removal" and fits
        shadows += not any(np.array_equal(t, example.picture) for t in fits)
        assert not np.array_equal(example.picture, lessons.data.rgb[index])
    assert 0.25 < shadows / (COUNT * TAKEN) < 0.75


@pytest.mark.slow
def test_lessons_keep_their_promises(lessons: Lessons) -> None:
    """Context never hides a solid that nobody could know of; every prompt is made of words that captions have."""
    known = {*world_words(), *QUALITY.replace(",", " , ").split()}
    seen: Counter[Any] = Counter()
    rng = np.random.default_rng(0)
    for pick in rng.integers(COUNT * (TAKEN + PUT), len(lessons), 250):
        example, index = lessons.example(int(pick), rng), int(pick) % COUNT
        seen[example.task] += 1
        assert example.hole.shape == (128, 128) and set(np.unique(example.hole)) <= {0, 1}
        assert np.array_equal(example.picture, lessons.data.rgb[index]), "as cached: its latent is, too"
        assert set(example.prompt.replace(",", " , ").replace(":", " : ").split()) <= known
        segments = np.asarray(lessons.data.segments[index])
        solids = [segments == FIRST_THING + i for i in range(len(lessons.data.scene(index).things))]
        hidden = [i for i, s in enumerate(solids) if s.any() and example.hole[s.nonzero()].mean() > 0.5]
        if example.task == "removal":
            assert not hidden
        if example.task == "outpaint" and hidden:
            assert all(lessons.data.scene(index).things[i].colour in example.prompt for i in hidden)
        if example.task in ("text", "shape"):
            assert hidden
        assert (example.share == 1) or example.task == "shape"
    assert set(seen) == {"text", "shape", "removal", "outpaint", None} and min(seen.values()) > 10


class Painter:
    """Answers every recipe with a picture of our choice, seen by a perfect judge of `truth` things."""

    def __init__(self, paint: Callable[[Example, Any], tuple[np.ndarray, Any]]) -> None:
        self.paint, self.examples = paint, examples(4)
        self.judge = Judge.load(embedded_root() / "judge.safetensors")

    def made(self, name: str, recipe: Callable[[Example], Any]) -> Iterator[tuple[Example, np.ndarray, Any]]:
        for e in self.examples:
            model, prompt, conditions = recipe(e)
            assert model == scoring.MODEL and len(conditions) == 1
            conditions[0].check(SPEC, SPEC)
            yield e, *self.paint(e, SimpleNamespace(prompt=prompt, condition=conditions[0]))


class Spec(SimpleNamespace):
    """A nine-channel base with task tokens, as far as a check asks."""


SPEC = Spec(
    tasks="v1",
    context_width=128,
    described="tabletop",
    in_channels=9,
    channel_slots=(),
    name="x",
    family="tabletop",
    frames=0,
)


def untouched(e: Example, asked: Any) -> tuple[np.ndarray, Any]:
    return e.picture.rgb, measure.truth(e.scene, e.picture)


def emptied(e: Example, asked: Any) -> tuple[np.ndarray, Any]:
    s = scoring.stand(e)
    scene = replace(e.scene, things=tuple(t for t in e.scene.things if t is not s.thing))
    return s.without, measure.truth(scene, render(scene))


def obeyed(e: Example, asked: Any) -> tuple[np.ndarray, Any]:
    """What was asked for stands where the old one stood, in its silhouette."""
    s, words = scoring.stand(e), asked.prompt.split()
    seen = measure.truth(e.scene, e.picture)
    old = next(t for t, thing in zip(seen.things, e.scene.things, strict=True) if thing is s.thing)
    new = SeenThing(words[3], words[2], words[1], old.centre, old.box, 1.0)
    return e.picture.rgb, replace(seen, things=(new,))


@pytest.mark.slow
def test_a_perfect_painter_scores_one_and_an_idle_one_nothing() -> None:
    perfect: Any = Painter(emptied)
    assert scoring.removal(perfect) == {"gone": 1, "inside_error": 0}
    idle = scoring.removal(Painter(untouched))  # type: ignore[arg-type]
    assert idle["gone"] == 0 and idle["inside_error"] > 2
    obedient: Any = Painter(obeyed)
    assert scoring.text(obedient, True) == {"inside": 1, "colour": 1, "shape": 1, "outside_psnr": 99}
    assert scoring.text(Painter(untouched), True)["inside"] == 0  # type: ignore[arg-type]
    assert scoring.shape(obedient, 1.0) == {"iou": 1, "area": 1, "colour": 1}
    assert scoring.shape(perfect, 0.5)["iou"] < 0.01  # where others stand behind it, something is seen in the hole
    assert scoring.outpaint(Painter(untouched)) == {"seam_error": 0, "room": 1, "calm": 1}  # type: ignore[arg-type]

"""The tabletop's clips as lessons: each condition as a recipe would show it, and words that may leave out the motion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tiny
from infuse.conditions import DepthVideo, Motion, SingleImage, SingleSketch, SketchVideo
from infuse.encoders.kit import Kit
from infuse.media.films import Film
from infuse.media.pictures import Picture
from infuse.tabletop.clips import load_clips
from infuse.tabletop.making.video_tabletop import TabletopClips, latents_of_clips
from infuse.tabletop.move_paths import drawn_paths
from infuse.tabletop.moves import HOLD


@pytest.mark.slow
def test_a_lesson_shows_what_a_recipe_would_show(tmp_path: Path) -> None:
    """Depths, lines and first picture of a clip through the conditions of a job: the same size, the same unit."""
    clips = load_clips(2, frames=4, root=tmp_path, workers=1)
    vae = tiny.vae()
    means = latents_of_clips(vae, clips, tmp_path / "latents.npy")
    lessons = TabletopClips(clips, means, 0.5)
    assert lessons.latents(np.array([1, 0])).shape == (2, 4, 4, 64, 64)
    pixels = torch.from_numpy(np.array(clips.rgb[1, 2])).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        one = vae.encode(pixels).latent_dist.mean[0] * 0.5  # type: ignore[union-attr]
    assert float((lessons.latents(np.array([1]))[0, :, 2] - one).abs().max()) < 2e-3

    kit: Any = Kit(tiny.base("sd1").base, (128, 128), None, frames=4)
    rgb, depth, edges = (np.asarray(a[0]) for a in (clips.rgb, clips.inverse_depth, clips.edges))
    asked = {
        "depth": DepthVideo(film=Film.of(depth[..., None])),
        "sketch": SketchVideo(film=Film.of(edges[..., None])),
        "single_sketch": SingleSketch(image=Picture.of(edges[0])),
        "local_image": SingleImage(image=Picture.of(rgb[0])),
        "motion": Motion(drawn=drawn_paths(replace(lessons.move(0), camera=HOLD), 4)),
    }

    class Low:  # the first of the kinds that a user may bring
        random, integers = (lambda self: 0.0), (lambda self, n: 0)

    for name, condition in asked.items():
        mine: Any = lessons.seen(name, 0, None, Low())  # type: ignore[arg-type]
        theirs = condition.seen(kit)
        assert mine.expand_as(theirs).dtype == theirs.dtype
        if name != "motion":
            assert float((mine - theirs).abs().max()) < 0.01, name
        assert lessons.seen(name, 0, 2, np.random.default_rng(0)).shape[2:] == theirs.shape[2:]
    assert lessons.caption(0, None, np.random.default_rng(0)) != lessons.caption(0, 2, np.random.default_rng(0))


def test_half_of_the_captions_leave_out_what_a_condition_tells(tmp_path: Path) -> None:
    found = load_clips(3, frames=4, root=tmp_path, workers=1)
    np.save(tmp_path / "latents.npy", np.zeros((3, 4, 4, 16, 16), np.float16))
    lessons, rng = TabletopClips(found, tmp_path / "latents.npy", 1.0), np.random.default_rng(0)
    moving = next(i for i in range(3) if any(route.length for route in lessons.move(i).routes))
    verbs = ("moves", "slides", "goes", "hops", "jumps")

    def said(told: bool) -> float:
        captions = [lessons.caption(moving, None, rng, told) for _ in range(200)]
        return float(np.mean([any(verb in caption for verb in verbs) for caption in captions]))

    assert said(told=False) == 1.0 and 0.4 < said(told=True) < 0.6

"""What the lessons of clips say of motion: conditions may tell it, words may, and what nobody sets moving stands still."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from noise_clips import FRAMES, Noise, clips, objective
from some import some

from infuse.training.video import Batch, Silence
from infuse.training.video_models import composed_base

pytestmark = pytest.mark.slow  # all of it: a few seconds together, and seldom touched


class Heard(Noise):
    """Notes which captions and conditions it was asked for."""

    def __init__(self) -> None:
        self.captions: list[tuple[int | None, bool]] = []
        self.shown: list[tuple[str, int | None]] = []

    def caption(self, pick: int, frame: int | None, rng: np.random.Generator, told: bool = False) -> str:
        self.captions.append((frame, told))
        return super().caption(pick, frame, rng, told)

    def seen(self, condition: str, pick: int, frame: int | None, rng: np.random.Generator) -> torch.Tensor | None:
        self.shown.append((condition, frame))
        return super().seen(condition, pick, frame, rng)


def test_a_held_clip_is_one_frame_from_beginning_to_end_and_nobody_says_that_it_moves() -> None:
    base = composed_base(clips())
    made = objective(base, held=1.0, silence=Silence(0, 1, 0))
    made.examples = notes = Heard()
    batch, seen = made.batch(np.random.default_rng(0)), []
    assert batch.frames is not None and batch.length == FRAMES and len(batch.picks) == 2

    def watch(z: torch.Tensor, *others: object) -> tuple[torch.Tensor, dict[str, float]]:
        seen.append((z, *others))
        return z.sum(), {}

    made.error = watch  # type: ignore[method-assign,assignment]
    made.loss(batch, torch.Generator().manual_seed(0))
    (z, noise, _, rows, predict), whole = seen[0], notes.latents(batch.picks)
    for i, k in enumerate(batch.frames):
        assert torch.equal(z[i], whole[i][:, k : k + 1].expand(-1, FRAMES, -1, -1))
        assert (k, True) == notes.captions[i], "depths and lines are heard, and the words are the frame's"
    assert not torch.equal(noise[:, :, 0], noise[:, :, 1]), "frames are noised as any clip's are"
    assert predict == base.network.predict, "not as pictures"  # type: ignore[union-attr]
    assert {frame for _, frame in notes.shown} == set(batch.frames.tolist())
    assert "motion" not in {name for name, _ in notes.shown}
    assert all(c.value.shape == (8, FRAMES, 8, 8) for row in rows for c in row.channels)


TOLD = [("motion", True), ("depth", True), ("sketch", True), ("masked", True),
        ("local_image", False), ("single_sketch", False), ("style", False), ("text", False)]  # fmt: skip


@pytest.mark.parametrize(("name", "told"), some(TOLD, quick=[TOLD[0], TOLD[3], TOLD[4], TOLD[7]]))
def test_words_need_not_say_what_a_condition_of_every_frame_tells(name: str, told: bool) -> None:
    made = objective(composed_base(clips()))
    made.examples = notes = Heard()
    heard = {other: np.array([other == name, False]) for other in made.names}
    made.ports(Batch(np.array([1, 2]), None, FRAMES, np.zeros(2), heard, np.random.default_rng(0)), (8, 8))
    assert notes.captions == [(None, told), (None, False)]


def test_what_is_to_be_a_picture_what_is_held_and_what_moves_share_the_batches() -> None:
    made, rng = objective(clips(), still=0.3, held=0.2), np.random.default_rng(0)
    drawn = [made.batch(rng) for _ in range(600)]
    pictures = np.mean([b.length == 1 for b in drawn])
    held = np.mean([b.length == FRAMES and b.frames is not None for b in drawn])
    assert abs(pictures - 0.3) < 0.05 and abs(held - 0.2) < 0.05
    assert all(len(b.picks) == 2 * (FRAMES if b.length == 1 else 1) for b in drawn)
    assert replace(drawn[0], frames=None).at(0) is None
